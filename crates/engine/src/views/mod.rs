//! Materialized views: how one is built from its plan, stored, started, replaced and waited for.
//!
//! ```text
//! plan ─► storage: open archive, checkpoints ─► query ─► catalog ─► start
//!    └──► rebuild: the same beside the old view ─► wait until it has caught up ─► switch
//! ```
//! Statements decide what is created and with which options; a running view is in `windrow_query`.

pub(crate) mod build;
pub(crate) mod late_rows;
pub(crate) mod options;
pub(crate) mod rebuild;
pub(crate) mod shape;
pub(crate) mod storage;
mod tables;
pub(crate) mod wait;
