//! Changes: how the rows of an answer that changes are told apart.
//!
//! A row of such an answer carries a [`Change`] in its first column, which is named [`COLUMN`]. Folding the changes, in
//! order, gives the answer: an `insert` adds its row, a `delete` removes it, and an `update_before`, which the
//! `update_after` of the same row follows at once, removes the old values for the new ones.
//!
//! Invariant: the words and the numbers are stored and sent, so they never change.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, Field};

use crate::{Error, Result};

/// The name of the column of changes.
pub const COLUMN: &str = "change";

/// What a row says about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Change {
    /// The row is new.
    Insert = 0,
    /// The row as it was; the row as it is now follows at once.
    UpdateBefore = 1,
    /// The row as it is now.
    UpdateAfter = 2,
    /// The row is no longer in the answer.
    Delete = 3,
}

impl Change {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Insert, Self::UpdateBefore, Self::UpdateAfter, Self::Delete];

    /// Its word, as clients see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::UpdateBefore => "update_before",
            Self::UpdateAfter => "update_after",
            Self::Delete => "delete",
        }
    }

    /// The change with this word.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }

    /// The change with this number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether its row is in the answer from now on; otherwise it no longer is.
    pub fn adds(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The column of changes: VARCHAR, never NULL.
pub fn field() -> Field {
    Field::new(COLUMN, DataType::Utf8View, false)
}

/// Returns the words of changes as a column.
pub fn column(changes: impl Iterator<Item = Change>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(changes.map(Change::name)))
}

/// Reads a column of changes.
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
