//! What a slice becomes when it leaves its store: the unit that workers hand to the merger.

use arrow::record_batch::RecordBatch;
use windrow_core::Result;

use crate::table::{Frozen, GroupTable};

/// What one store has gathered of one slice. Several segments of one slice add up.
#[derive(Debug)]
pub struct Segment {
    pub(crate) slice: i64,
    pub(crate) counts_from: i64,
    pub(crate) rows: u64,
    pub(crate) body: Body,
}

/// The content of a segment, or of a slice that is still open.
#[derive(Debug)]
pub(crate) enum Body {
    /// Live groups: cheapest where nothing will be merged (a tumbling window of one worker).
    Live(Box<GroupTable>),
    /// Keys and states.
    Frozen(Frozen),
    /// Rows as they came.
    Rows(Vec<RecordBatch>),
}

impl Body {
    pub(crate) fn freeze(self) -> Result<Self> {
        Ok(match self {
            Self::Live(table) => Self::Frozen(table.freeze()?),
            other => other,
        })
    }

    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Live(table) => table.size_bytes(),
            Self::Frozen(frozen) => frozen.size_bytes(),
            Self::Rows(rows) => rows.iter().map(RecordBatch::get_array_memory_size).sum(),
        }
    }
}

impl Segment {
    /// Start of the slice in ticks.
    pub fn slice(&self) -> i64 {
        self.slice
    }

    /// The rows count only in windows that end at this time or after; `i64::MIN` for rows that
    /// were on time and count in all windows of the slice.
    pub fn counts_from(&self) -> i64 {
        self.counts_from
    }

    /// Input rows that are counted in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of state.
    pub fn size_bytes(&self) -> usize {
        self.body.size_bytes()
    }
}
