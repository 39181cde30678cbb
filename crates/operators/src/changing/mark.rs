//! What a row of an early result says about itself besides its change: whether it is final, and its revision.
//!
//! Invariant: names and types of the columns are what clients read, so they never change.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field};
use windrow_core::{Error, ErrorKind, Result};

/// The name of the column that says whether a row is the final result of its window.
pub const IS_FINAL: &str = "is_final";
/// The name of the column that numbers the corrections of a row.
pub const REVISION: &str = "revision";

/// The greatest revision.
const REVISION_MAX: u32 = (1 << 29) - 1;

/// Whether a row is final, and its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    is_final: bool,
    revision: u32,
}

impl Mark {
    /// The mark of a row while its window is open.
    pub(crate) const EARLY: Self = Self { is_final: false, revision: 0 };
    /// The mark of a row when its window has closed.
    pub(crate) const FINAL: Self = Self { is_final: true, revision: 0 };

    /// The mark of a row that has been corrected this often since its window closed.
    pub(crate) fn corrected(revision: u32) -> Self {
        Self { is_final: true, revision }
    }

    /// The revision after this one.
    ///
    /// # Errors
    /// Limit when there are too many.
    pub(crate) fn next_revision(revision: u32) -> Result<u32> {
        match revision {
            REVISION_MAX.. => {
                Err(Error::new(ErrorKind::Limit, "a row is corrected more than 536 million times")
                    .with_hint("Use a shorter ALLOW LATENESS."))
            }
            _ => Ok(revision + 1),
        }
    }

    /// The mark as a number of 30 bits.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.revision) << 1 | u64::from(self.is_final)
    }

    /// The mark with this number.
    pub(crate) fn of_number(number: u64) -> Self {
        Self { is_final: number & 1 == 1, revision: (number >> 1) as u32 }
    }

    /// The columns of early results.
    pub(crate) fn fields(revisions: bool) -> impl Iterator<Item = Field> {
        let revision = Field::new(REVISION, DataType::Int64, false);
        let is_final = Field::new(IS_FINAL, DataType::Boolean, false);
        [is_final].into_iter().chain(revisions.then_some(revision))
    }

    /// The columns of these marks.
    pub(crate) fn columns(marks: &[Self], revisions: bool) -> Vec<ArrayRef> {
        let is_final: BooleanArray = marks.iter().map(|mark| Some(mark.is_final)).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(is_final)];
        if revisions {
            let numbers = marks.iter().map(|mark| i64::from(mark.revision));
            columns.push(Arc::new(Int64Array::from_iter_values(numbers)));
        }
        columns
    }
}

/// The columns of early results that follow the columns of the query: `is_final`, and `revision` where windows are
/// corrected after they have closed.
pub fn early_fields(revisions: bool) -> Vec<Field> {
    Mark::fields(revisions).collect()
}
