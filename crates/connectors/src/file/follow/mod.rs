//! Following files: appended text is read, through rotation, truncation and restarts.
//!
//! ```text
//! path ─ chain: app.log (now app.log.1) ─► app.log ─►      one partition, offsets continue
//!                │ read to its end            │ from its start
//!                └─────── cursors of a reader ┘  ──► place: stored with the offset
//! ```
//! A *chain* is the files that have had one name, in the order in which they were found. A file is identified by device
//! and inode, and by its beginning, whatever its name is now. A *trail* summarises the text that was read of a file, so
//! that the text can be recognised: its first bytes, its last, and marks in between. An offset counts the bytes that
//! were read of a chain.
//!
//! Invariants: a file belongs to one chain; no byte is returned twice and none is skipped except those that were gone
//! before they could be read, which are reported as a bad row.

mod chains;
mod handle;
mod place;
mod reader;
mod trail;

pub(super) use self::chains::Chains;
pub(super) use self::handle::Held;
pub(super) use self::reader::{FollowReader, Following};
pub(super) use self::trail::Trail;

#[cfg(test)]
mod tests;
