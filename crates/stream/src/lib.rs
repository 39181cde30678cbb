//! Streams: a name with columns, event time, offsets and a watermark. How a stream is written, read, retained and
//! dropped belongs here: the log of pushed rows and of views with its followers, archiving of logs, the history of
//! connectors, replays, retention, the checks that every row passes, and streams as bounded tables of DataFusion. What
//! does not: anything that runs a continuous query, or knows a catalog, a session or an engine. A log notifies the
//! query that fills it through a trait ([`spill::Fails`]).
//!
//! ```text
//! INSERT, programs ─► target ─► push ─► (write-ahead log) ─► log ─► spill ─► archive
//!                                  view ─────────────────────┘ └─► followers
//! connector ─► history ─► replay
//!         └───► receiver ─► push    (a connector that forgets)
//! ```
//! `memory` is the limit that tails of logs and operators share, and `caught` turns panics into errors; both are here
//! because this is the lowest crate that needs them.
#![forbid(unsafe_code)]

pub mod altered;
pub mod answer;
pub mod bad;
pub mod caught;
pub mod checks;
pub mod followers;
pub mod generated;
pub mod history;
pub mod intake;
pub mod kept;
pub mod log;
pub mod log_reader;
pub mod memory;
pub mod places;
pub mod push;
pub mod reads;
pub mod receiver;
pub mod repeated;
pub mod replay;
pub mod retention;
pub mod spill;
pub mod stream;
pub mod tail;
pub mod target;
pub mod texts;

pub use self::stream::{Feed, MAX_FUTURE_SKEW_MICROS, Stream, WhenIdle};
