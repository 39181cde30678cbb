//! A segment: the unit that workers pass to the merger when a slice is removed from its store.

pub(crate) mod ascending;
pub(crate) mod kept;
pub(crate) mod ordered;
pub(crate) mod saved;
pub(crate) mod spill;

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};

use self::spill::Spilled;
use crate::batches;
use crate::spec::Columns;
use crate::survey::Times;
use crate::table::{Frozen, GroupTable, arrays_bytes};

/// The state of one store for one slice. Several segments of a slice are merged.
#[derive(Debug)]
pub struct Segment {
    pub(crate) slice: i64,
    pub(crate) counts_from: i64,
    pub(crate) rows: u64,
    /// The first and the last event time of its rows, if they are recorded.
    pub(crate) times: Times,
    pub(crate) body: Body,
}

/// The content of a segment, or of an open slice.
#[derive(Debug)]
pub(crate) enum Body {
    /// Live groups: cheapest if nothing will be merged (a tumbling window of one worker).
    Live(Box<GroupTable>),
    /// Keys and states.
    Frozen(Frozen),
    /// Unchanged rows.
    Rows(Vec<RecordBatch>),
    /// Groups or rows, on disk.
    Spilled(Spilled),
}

impl Body {
    pub(crate) fn freeze(self) -> Result<Self> {
        Ok(match self {
            Self::Live(table) => Self::Frozen(table.freeze()?),
            other => other,
        })
    }

    /// Loads a body that is on disk.
    pub(crate) fn in_memory(self) -> Result<Self> {
        match self {
            Self::Spilled(spilled) => spilled.load(),
            other => Ok(other),
        }
    }

    /// Returns two bodies that share their arrays; a live table cannot be shared.
    pub(crate) fn share(self) -> Result<(Self, Self)> {
        match self {
            Self::Live(_) => Err(Error::internal("a live slice has two owners")),
            Self::Frozen(frozen) => Ok((Self::Frozen(frozen.clone()), Self::Frozen(frozen))),
            Self::Rows(rows) => Ok((Self::Rows(rows.clone()), Self::Rows(rows))),
            Self::Spilled(spilled) => Ok((Self::Spilled(spilled.clone()), Self::Spilled(spilled))),
        }
    }

    /// Merges two bodies of one slice, the smaller into the larger. `groups` is scratch.
    pub(crate) fn merge(spec: &Columns, a: Self, b: Self, groups: &mut Vec<usize>) -> Result<Self> {
        let (mut into, from) = match (a, b) {
            (Self::Rows(mut a), Self::Rows(b)) => {
                a.extend(b);
                return Ok(Self::Rows(batches::together(a)?));
            }
            (Self::Live(a), Self::Live(b)) if a.len() < b.len() => (b, a.freeze()?),
            (Self::Live(a), Self::Live(b)) => (a, b.freeze()?),
            (Self::Live(live), Self::Frozen(frozen)) | (Self::Frozen(frozen), Self::Live(live)) => {
                (live, frozen)
            }
            (a, Self::Frozen(frozen)) => (a.live(spec, groups)?, frozen),
            _ => return Err(Error::internal("rows and aggregates of one slice")),
        };
        into.merge(&from, groups)?;
        Ok(Self::Live(into))
    }

    /// Returns the groups as a live table.
    pub(crate) fn live(self, spec: &Columns, groups: &mut Vec<usize>) -> Result<Box<GroupTable>> {
        match self {
            Self::Live(table) => Ok(table),
            Self::Frozen(frozen) => {
                let mut table = Box::new(GroupTable::new(spec, frozen.groups)?);
                table.merge(&frozen, groups)?;
                Ok(table)
            }
            Self::Rows(_) | Self::Spilled(_) => {
                Err(Error::internal("a slice of an aggregate holds no groups"))
            }
        }
    }

    /// The number of groups, or of rows if rows are held.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Live(table) => table.len(),
            Self::Frozen(frozen) => frozen.groups,
            Self::Rows(rows) => rows.iter().map(RecordBatch::num_rows).sum(),
            Self::Spilled(spilled) => spilled.len(),
        }
    }

    /// Bytes of memory of the keys alone.
    pub(crate) fn keys_bytes(&self) -> usize {
        match self {
            Self::Frozen(frozen) => arrays_bytes(&frozen.keys),
            other => other.size_bytes(),
        }
    }

    /// Bytes of memory.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Live(table) => table.size_bytes(),
            Self::Frozen(frozen) => frozen.size_bytes(),
            Self::Rows(rows) => rows.iter().map(RecordBatch::get_array_memory_size).sum(),
            Self::Spilled(_) => 0,
        }
    }
}

impl Segment {
    /// The start of the slice in ticks.
    pub fn slice(&self) -> i64 {
        self.slice
    }

    /// Returns the end from which its rows count: they count only in windows that end then or later; `i64::MIN` for
    /// rows that were on time and count in all windows of the slice.
    pub fn counts_from(&self) -> i64 {
        self.counts_from
    }

    /// The number of input rows counted in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.body.size_bytes()
    }
}
