//! The first and last event time of each group, which make a group of a slice a piece of a session, and its number of
//! rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use windrow_core::{Error, Result};

/// The number of state columns.
pub(crate) const COLUMNS: usize = 3;

/// A group: its first and last time in ticks, and the number of its rows.
#[derive(Debug, Clone, Copy)]
struct Extent {
    first: i64,
    last: i64,
    rows: i64,
}

impl Extent {
    const EMPTY: Self = Self { first: i64::MAX, last: i64::MIN, rows: 0 };

    #[inline(always)]
    fn stretch(&mut self, first: i64, last: i64, rows: i64) {
        self.first = self.first.min(first);
        self.last = self.last.max(last);
        self.rows = self.rows.saturating_add(rows);
    }
}

/// First and last times and numbers of rows, by group.
#[derive(Debug, Default)]
pub(crate) struct Extents(Vec<Extent>);

impl Extents {
    /// The first time of a group.
    pub(crate) fn first(&self, group: usize) -> Option<i64> {
        self.0.get(group).map(|extent| extent.first)
    }

    /// Updates with one time per row.
    pub(crate) fn update(&mut self, times: &[i64], groups: &[usize], total: usize) {
        self.grow(total);
        for (&time, &group) in times.iter().zip(groups) {
            if let Some(extent) = self.0.get_mut(group) {
                extent.stretch(time, time, 1);
            }
        }
    }

    /// Merges one state row per entry of `groups`.
    ///
    /// # Errors
    /// Internal when it is not such a state.
    pub(crate) fn merge(
        &mut self,
        state: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        let (times, rows) = (of_state(state)?, rows_of_state(state)?);
        self.grow(total);
        for (((&first, &last), &rows), &group) in times.0.iter().zip(times.1).zip(rows).zip(groups)
        {
            if let Some(extent) = self.0.get_mut(group) {
                extent.stretch(first, last, rows);
            }
        }
        Ok(())
    }

    fn grow(&mut self, total: usize) {
        if self.0.len() < total {
            self.0.resize(total, Extent::EMPTY);
        }
    }

    /// Takes the extents out, as state columns.
    pub(crate) fn take(&mut self) -> Vec<ArrayRef> {
        let Self(all) = std::mem::take(self);
        let column = |of: fn(&Extent) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(all.iter().map(of)))
        };
        vec![column(|e| e.first), column(|e| e.last), column(|e| e.rows)]
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Extent>()
    }
}

/// First and last times of a state.
///
/// # Errors
/// Internal when it is not such a state.
pub(crate) fn of_state(state: &[ArrayRef]) -> Result<(&[i64], &[i64])> {
    let [first, last, _] = state else { return Err(lost()) };
    Ok((integers(first)?, integers(last)?))
}

/// The numbers of rows of a state.
///
/// # Errors
/// Internal when it is not such a state.
pub(crate) fn rows_of_state(state: &[ArrayRef]) -> Result<&[i64]> {
    let [_, _, rows] = state else { return Err(lost()) };
    integers(rows)
}

fn integers(column: &ArrayRef) -> Result<&[i64]> {
    let values = column.as_primitive_opt::<Int64Type>();
    let values =
        values.ok_or_else(|| Error::internal("the times of a session are of another type"))?;
    Ok(values.values())
}

fn lost() -> Error {
    Error::internal("the times of a session are lost")
}
