//! Rows over HTTP. `POST /v1/streams/NAME` appends the records of its body to a stream without connector and answers
//! `202 Accepted` when they are as durable as the stream is. What belongs here: routes, headers, status codes, and the
//! transport. What does not: records (`windrow_connectors` decodes them), streams, and logins (`windrow_server`).
//!
//! ```text
//! connection ─► TLS ─► login ─► body, in memory up to a limit ─► Session::ingest_records ─► write-ahead log ─► 202
//! ```
//! Invariants: the records of a request are in the stream wholly (those that can be decoded) or not at all; a request
//! with a producer and a sequence is taken once; the bytes of all bodies in memory are bounded.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod listener;
mod push;
mod server;

pub use server::HttpServer;
