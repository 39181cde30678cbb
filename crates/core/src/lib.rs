//! The words and the ports of Windrow. What two crates must mean the same by belongs here, and a port that has two sides. What
//! does not: anything that computes an answer, reads or writes, or waits; a word that one crate alone uses stays there.
//!
//! Every other crate meets here: what time is ([`time`]), which intervals rows are raked into
//! ([`window`]), where a row stands in its partition ([`offset`]), how rows enter ([`source`]),
//! the time of day ([`clock`]), how much of anything is allowed ([`limits`]), and what one
//! statement takes in one go ([`budget`]), how many bytes a batch has ([`size`]), whose a part of a data directory is
//! ([`owner`]), and how a thing went wrong ([`error`]).
//!
//! This crate knows Arrow and nothing else: no DataFusion, no tokio, no input or output.
#![forbid(unsafe_code)]

pub mod budget;
pub mod clock;
pub mod error;
pub mod limits;
pub mod offset;
pub mod owner;
pub mod size;
pub mod source;
pub mod time;
pub mod window;

pub use budget::Budget;
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, ErrorKind, Place, Result};
pub use limits::Limits;
pub use offset::{OffsetRange, PartitionId, RowOffsets};
pub use owner::Owner;
pub use source::{
    BadRow, Behind, CmpOp, Partition, Predicate, Reader, ScanRequest, Source, SourceBatch, Split,
};
pub use time::{EventTimeColumn, StreamSchema, Watermark};
pub use window::{SessionSpec, WindowKind, WindowSpec, Windows};
