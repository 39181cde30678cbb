//! Following files: what is appended, through rotation, truncation and restarts.
//!
//! ```text
//! path ─ chain: app.log (now app.log.1) ─► app.log ─►      one partition, offsets go on
//!                │ read to its end            │ from its start
//!                └─────── cursors of a reader ┘  ──► place: kept with the offset
//! ```
//! A *chain* is the files that have had one name, in the order in which they were found. A file is
//! known by device and inode, and by what it begins with, whatever it is called now. A *trail* is
//! what is remembered of the text that was read of a file, so that text is known again: its first
//! bytes, its last, and marks in between. An offset counts the bytes that were read of a chain.
//!
//! Invariants: a file belongs to one chain; no byte is given out twice and none is left out but
//! those that were gone before they could be read, which is a bad row that says so.

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
