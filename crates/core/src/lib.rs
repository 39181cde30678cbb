//! The vocabulary and the ports of Windrow. A term that two crates must understand alike belongs here, and a port that
//! has two sides. What does not belong here: anything that computes an answer, reads or writes, or waits; a term used
//! by one crate alone stays in that crate.
//!
//! Every other crate depends on it for event time ([`time`]), the intervals into which rows are grouped ([`window`],
//! [`calendar`]), the position of a row in its partition ([`offset`]), how rows enter ([`source`]) and leave ([`sink`]),
//! the kinds of rows in a changelog ([`change`]), the time of day ([`clock`]), limits ([`limits`]), the memory of one statement ([`budget`]), sizes in bytes
//! ([`size`]), the owner of a part of a data directory ([`owner`]), and errors ([`error`]).
//!
//! This crate depends on Arrow and on the database of time zones (chrono-tz), and on nothing else of weight: no
//! DataFusion, no tokio, no input or output.
#![forbid(unsafe_code)]

pub mod budget;
pub mod calendar;
pub mod change;
pub mod clock;
pub mod error;
pub mod layout;
pub mod limits;
pub mod offset;
pub mod owner;
pub mod sink;
pub mod size;
pub mod source;
pub mod sql_type;
pub mod time;
pub mod window;

pub use budget::Budget;
pub use calendar::{Calendar, CalendarUnit, StepUnit, Zone};
pub use change::Change;
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, ErrorKind, Place, Result};
pub use layout::Layout;
pub use limits::Limits;
pub use offset::{OffsetRange, PartitionId, RowOffsets};
pub use owner::Owner;
pub use sink::{Guarantee, Sink};
pub use source::{
    BadRow, Behind, CmpOp, Partition, Predicate, Reader, ScanRequest, Source, SourceBatch,
    SourceHealth, Split,
};
pub use sql_type::{sql_type, with_sql_types};
pub use time::{EventTimeColumn, StreamSchema, Watermark};
pub use window::{SessionSpec, WindowKind, WindowSpec, Windows};
