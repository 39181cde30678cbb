//! The owner of a part of a data directory. Logs, tables and checkpoints record it, so that a part of another
//! directory, or of another object, is never mistaken for one's own.

/// The owner of a part. The part records it at its beginning; a part of another owner is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Unique among all objects of all data directories.
    pub id: String,
    /// Whether the part may predate the recording of owners.
    pub may_be_unrecorded: bool,
    /// Whether it was created before: if it is missing, it is lost.
    pub is_created: bool,
}
