//! The changes of a window that are being returned.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::{SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use windrow_core::{Change, Error, Result};

use crate::OperatorSpec;
use crate::bounds::Bounds;
use crate::changing::Mark;
use crate::changing::emission::{Emission, code, decode, with_mark};

/// The changes of groups of one window.
#[derive(Debug)]
pub(super) struct Returned {
    /// The end of the window.
    pub(super) end: i64,
    /// Whether the window closes with them.
    pub(super) closes: bool,
    pub(super) content: Content,
}

/// What is returned.
#[derive(Debug)]
pub(super) enum Content {
    /// Some of the groups.
    Changes(Box<GroupChanges>),
    /// All rows of the window.
    Whole(Vec<RecordBatch>),
}

/// The changes of some groups.
#[derive(Debug)]
pub(super) struct GroupChanges {
    pub(super) bounds: Bounds,
    pub(super) emission: Emission,
    pub(super) marks: Marks,
    /// The number of the first group among those of all windows.
    pub(super) first: u32,
}

/// The marks of groups before and after their changes.
#[derive(Debug)]
pub(super) enum Marks {
    /// The same for all groups.
    All { before: Mark, after: Mark },
    /// By the position of the group in the emission.
    Each(Vec<(Mark, Mark)>),
}

impl Marks {
    fn of(&self, group: u32, change: Change) -> Mark {
        let (before, after) = match self {
            Self::All { before, after } => (*before, *after),
            Self::Each(marks) => marks.get(group as usize).copied().unwrap_or_default(),
        };
        if change.adds() { after } else { before }
    }
}

impl Returned {
    /// Returns the next rows, about `rows_max`, and whether they are the last.
    ///
    /// # Errors
    /// When the columns cannot be built.
    pub(super) fn next(
        &mut self,
        (groups, output): (&SchemaRef, &SchemaRef),
        windows: &OperatorSpec,
        rows_max: usize,
    ) -> Result<(Vec<RecordBatch>, bool)> {
        let changes = match &mut self.content {
            Content::Whole(batches) => return Ok((std::mem::take(batches), true)),
            Content::Changes(changes) => changes.as_mut(),
        };
        let GroupChanges { bounds, emission, marks, first } = changes;
        let Some(rows) = emission.next(groups, rows_max)? else { return Ok((vec![], true)) };
        let mut columns = rows.columns().to_vec();
        let codes = columns.pop();
        let codes = codes.as_ref().and_then(|codes| codes.as_primitive_opt::<UInt64Type>());
        let codes = codes.ok_or_else(|| Error::internal("changes without codes"))?;
        // Groups of several windows are returned together, and must not be taken for each other.
        let marked = codes.values().iter().map(|one| {
            let (group, change) = decode(*one);
            with_mark(code(group.wrapping_add(*first), change), marks.of(group, change).number())
        });
        let marked: ArrayRef = Arc::new(UInt64Array::from_iter_values(marked));
        let rows = bounds.batch(windows, columns, rows.num_rows())?;
        let columns = rows.columns().iter().cloned().chain([marked]).collect();
        let rows = RecordBatch::try_new(Arc::clone(output), columns)?;
        Ok((vec![rows], emission.rows_left() == 0))
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        match &self.content {
            Content::Changes(changes) => changes.emission.size_bytes(),
            Content::Whole(batches) => batches.iter().map(RecordBatch::get_array_memory_size).sum(),
        }
    }
}
