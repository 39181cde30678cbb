//! What connectors of brokers share: messages as rows and rows as messages, whatever carries them.
//!
//! ```text
//! source:  Log ─ Feed ─► pump (back-off, health) ─► reader ─ Assembly ─► batches
//! sink:    rows ─ Outgoing ─► MessageSink ─► Destination
//! ```
//! - `values`, `avro`, `columns`: the options of values, and the columns of a stream; `assembly`: messages to batches.
//! - `log`, `pump`, `reader`: a source over partitions that are read from an offset on. A broker says how by a [`Log`](log::Log).
//! - `outgoing`, `shape`, `sink`: a sink that sends each row as a message. A broker says how by a
//!   [`Destination`](sink::Destination).
//!
//! Kafka's client has its own queues and transactions, so that it shares only the first and the `outgoing` messages.

pub(crate) mod assembly;
pub(crate) mod avro;
pub(crate) mod columns;
pub(crate) mod confine;
pub(crate) mod health;
pub(crate) mod log;
pub(crate) mod outgoing;
mod pump;
mod reader;
pub(crate) mod shape;
pub(crate) mod sink;
pub(crate) mod start;
pub(crate) mod values;
