//! Whose a part of a data directory is: logs, tables and checkpoints say it, so that a part of another
//! directory, or of another object, is never taken for one's own.

/// Whose a part is: it says so from its beginning, and another one's is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// No other object of any data directory has the same.
    pub id: String,
    /// The part may be from before parts said whose they are.
    pub may_be_unsaid: bool,
    /// It has been made before: one that is not there is lost.
    pub is_made: bool,
}
