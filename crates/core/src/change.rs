//! Changes: the kinds of rows in the changelog of an updating result.
//!
//! The first column of a changelog, [`COLUMN`], is the [`Change`] of each row. Folding the changes in order produces the
//! result: an `insert` adds its row, a `delete` removes it, and an `update_before` with the `update_after` that directly
//! follows it replaces the old values of a row with the new ones.
//!
//! Invariant: names and numbers are stored and sent to clients, so they never change.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, Field};

use crate::{Error, Result};

/// The name of the change column.
pub const COLUMN: &str = "change";

/// The kind of a changelog row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Change {
    /// The row is new.
    Insert = 0,
    /// The row before an update; the row after it follows directly.
    UpdateBefore = 1,
    /// The row after an update.
    UpdateAfter = 2,
    /// The row is no longer in the result.
    Delete = 3,
}

impl Change {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Insert, Self::UpdateBefore, Self::UpdateAfter, Self::Delete];

    /// Its name, as clients see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::UpdateBefore => "update_before",
            Self::UpdateAfter => "update_after",
            Self::Delete => "delete",
        }
    }

    /// The change with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }

    /// The change with this number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether its row is in the result after the change.
    pub fn adds(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The change column: VARCHAR, never NULL.
pub fn field() -> Field {
    Field::new(COLUMN, DataType::Utf8View, false)
}

/// Returns a change column.
pub fn column(changes: impl Iterator<Item = Change>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(changes.map(Change::name)))
}

/// Reads a change column.
///
/// # Errors
/// Internal when it is not one.
pub fn read(column: &ArrayRef) -> Result<Vec<Change>> {
    let words = column.as_any().downcast_ref::<StringViewArray>();
    let words = words.ok_or_else(|| Error::internal("a column of changes holds no words"))?;
    let word = |word: Option<&str>| word.and_then(Change::of_name);
    let changes: Option<Vec<Change>> = words.iter().map(word).collect();
    changes.ok_or_else(|| Error::internal("a column of changes holds another word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_name_the_same_changes() {
        for change in Change::ALL {
            assert_eq!(Change::of_name(change.name()), Some(change));
            assert_eq!(Change::of_number(change as u8), Some(change));
        }
        assert_eq!((Change::of_name("upsert"), Change::of_number(4)), (None, None));
    }

    #[test]
    fn a_column_of_changes_is_read_back() {
        let written = column(Change::ALL.into_iter());
        assert_eq!(written.data_type(), field().data_type());
        assert_eq!(read(&written).unwrap(), Change::ALL);
    }
}
