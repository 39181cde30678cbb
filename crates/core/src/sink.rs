//! How rows leave Windrow: the port to destinations.
//!
//! A [`Sink`] takes the rows of one view in the order of its log, each row once, and commits them from time to time. The log
//! can always be read again from an earlier row, so nothing is handed over in two phases: what has to be known after a crash
//! is only up to which row the destination has committed.
//!
//! ```text
//! view   ├─ committed ────────┼─ taken (write) ─┼─ not read yet ─┤
//!        0              the sequence
//! ```
//! A sequence is a number of rows of the view, as in `SUBSCRIBE TO v AFTER n`: the rows below it are committed.

use std::fmt::Debug;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::{OffsetRange, Result};

/// How often a row arrives at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Once, whatever ends the process: the destination holds the sequence in the same step as the rows.
    ExactlyOnce,
    /// Once, as long as the destination remembers the key of a row, by which it drops what comes again: rows that were under
    /// way come again, with the same key.
    OnceWithinWindow,
    /// At least once: rows that were under way when the process ended come again, with the same key.
    AtLeastOnce,
    /// At least once: rows that were in flight when the process ended are repeated. The destination has no place for a key.
    AtLeastOnceWithoutKey,
}

impl Guarantee {
    /// The guarantee in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly once",
            Self::OnceWithinWindow => {
                "exactly once within the destination's window of de-duplication"
            }
            Self::AtLeastOnce => "at least once, the same key again",
            Self::AtLeastOnceWithoutKey => "at least once",
        }
    }
}

/// A destination of rows.
///
/// # Contract
/// - Rows come in order, without gap and overlap, from the sequence on that was committed last.
/// - What was taken is not lost by an error: [`commit`](Sink::commit) may be called again, and continues where it failed.
/// - Errors of the kind [`Unavailable`](crate::ErrorKind::Unavailable) are temporary. Any other error ends the sink until a
///   person acts; [`Data`](crate::ErrorKind::Data) is that of a row that the destination refuses.
#[async_trait]
pub trait Sink: Debug + Send {
    /// How often a row arrives.
    fn guarantee(&self) -> Guarantee;

    /// How long a row may wait for others that are committed with it.
    fn wait_max(&self) -> Duration;

    /// Opens the destination, and returns up to which sequence it has the rows of this sink; `None`: it does not know.
    /// `known`: the sequence that was committed as far as the engine knows, which may be behind the destination; `None` for a
    /// new sink. May be called again after an error.
    ///
    /// # Errors
    /// When it cannot be reached, does not accept rows, or has rows of another sink that a new one would be mistaken for.
    async fn open(&mut self, known: Option<u64>) -> Result<Option<u64>>;

    /// How many rows it takes before they have to be committed.
    fn room(&self) -> usize;

    /// Takes rows, which have these numbers. They need not arrive before they are committed.
    ///
    /// # Errors
    /// When they cannot be encoded.
    async fn write(&mut self, rows: &RecordBatch, range: OffsetRange) -> Result<()>;

    /// Commits the rows that it has taken: all rows below `sequence` are at the destination when it returns.
    ///
    /// # Errors
    /// When the destination does not have all of them.
    async fn commit(&mut self, sequence: u64) -> Result<()>;

    /// After a failed commit: the sequence up to which rows have reached the destination nevertheless; `None` if there are none or
    /// this is unknown.
    fn delivered(&self) -> Option<u64> {
        None
    }

    /// After an error of the kind [`Data`](crate::ErrorKind::Data): the number of the refused row (the sequence before
    /// it); `None` if it is unknown which of the written rows was refused.
    fn refused(&self) -> Option<u64> {
        None
    }

    /// Discards the rows that were written and not committed: they are read again.
    ///
    /// # Errors
    /// When the destination cannot be returned to a consistent state.
    async fn rewind(&mut self) -> Result<()> {
        self.close().await
    }

    /// A number that grows whenever the destination takes something, also within a commit that fails afterwards: a destination that
    /// takes something is not away.
    fn progress(&self) -> u64 {
        0
    }

    /// How long the destination asks to wait before the next attempt, after an error.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// Releases what it holds. Rows that are not committed are dropped: they are read again.
    ///
    /// # Errors
    /// When the destination cannot be left in order.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
