//! What an engine keeps of its objects in the data directory: which there are, which have failed, and where the parts of
//! each one lie. How bytes and batches are kept, in files, logs and checkpoints, is `windrow_storage`'s.
//!
//! ```text
//! DATA/
//! ├─ catalog.json            definitions.rs  the objects, in order of creation
//! ├─ failures.json           failures.rs     the views that have failed, and with what
//! └─ streams/<dir>/…, …      store.rs        log, archive and checkpoints of each object
//! ```
//! Invariants: what is damaged is reported by name and never overwritten; a definition is durable before
//! anything is written for its object.

pub(crate) mod definitions;
#[cfg(test)]
mod engine_simulation;
pub(crate) mod failures;
#[cfg(test)]
mod simulation;
pub(crate) mod store;
