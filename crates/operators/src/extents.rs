//! The first and last event time of each group, which make a group of a slice a piece of a session.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use windrow_core::{Error, Result};

/// First and last time by group, in ticks.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    first: Vec<i64>,
    last: Vec<i64>,
}

impl Extents {
    /// First times by group.
    pub(crate) fn first(&self) -> &[i64] {
        &self.first
    }

    /// Updates with one time per row.
    pub(crate) fn update(&mut self, times: &[i64], groups: &[usize], total: usize) {
        self.grow(total);
        for (&time, &group) in times.iter().zip(groups) {
            self.stretch(group, time, time);
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
        let (first, last) = of_state(state)?;
        self.grow(total);
        for ((&first, &last), &group) in first.iter().zip(last).zip(groups) {
            self.stretch(group, first, last);
        }
        Ok(())
    }

    #[inline(always)]
    fn stretch(&mut self, group: usize, first: i64, last: i64) {
        if let (Some(mine_first), Some(mine_last)) =
            (self.first.get_mut(group), self.last.get_mut(group))
        {
            *mine_first = (*mine_first).min(first);
            *mine_last = (*mine_last).max(last);
        }
    }

    fn grow(&mut self, total: usize) {
        if self.first.len() < total {
            self.first.resize(total, i64::MAX);
            self.last.resize(total, i64::MIN);
        }
    }

    /// Takes the times out, as two state columns.
    pub(crate) fn take(&mut self) -> Vec<ArrayRef> {
        let Self { first, last } = std::mem::take(self);
        vec![Arc::new(Int64Array::from(first)), Arc::new(Int64Array::from(last))]
    }

    pub(crate) fn size_bytes(&self) -> usize {
        (self.first.capacity() + self.last.capacity()) * size_of::<i64>()
    }
}

/// First and last times of a state.
///
/// # Errors
/// Internal when it is not such a state.
pub(crate) fn of_state(state: &[ArrayRef]) -> Result<(&[i64], &[i64])> {
    let [first, last] = state else {
        return Err(Error::internal("the times of a session are lost"));
    };
    match (first.as_primitive_opt::<Int64Type>(), last.as_primitive_opt::<Int64Type>()) {
        (Some(first), Some(last)) => Ok((first.values(), last.values())),
        _ => Err(Error::internal("the times of a session are of another type")),
    }
}
