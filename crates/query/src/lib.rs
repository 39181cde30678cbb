//! Continuous queries at run time. How streams are read together, how rows reach the stateful operators, how watermarks
//! of partitions combine, when windows close and where their rows go, how a checkpoint is cut, and the account of every
//! row belong here. What does not: anything that knows a catalog, a session, a statement or an engine. A query finds
//! its streams through a trait ([`start::Streams`]), and its caller provides what all queries share
//! ([`parts::QueryParts`]).
//!
//! ```text
//! scan ─► tap (one per query) ─► prepare ─► operator ─┐        (workers)
//!   └─► progress ─► coordinator ─► close ─► finish ◄──┘ ─► output: client | view | stream
//!                        └─► checkpointer ─► cut ─► checkpoint
//! ```
//! Operators are known by their port only (`windrow_operators`); logs and bounded tables are in `windrow_stream`.
#![forbid(unsafe_code)]

pub mod checkpointer;
pub mod coordinator;
pub mod cut;
pub mod idle;
pub mod latency;
pub mod ledger;
mod look;
mod numbered;
pub mod output;
pub mod parts;
pub mod progress;
pub mod promise;
pub mod queue;
pub mod reference;
pub mod refreshed;
pub mod root;
pub mod runner;
pub mod scan;
pub mod shared;
pub mod skipping;
pub mod stage;
pub mod start;
pub mod status;
pub mod survey;
pub mod tap;
pub mod tap_state;
pub mod versions;
