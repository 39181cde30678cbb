//! The objects of a data directory: which exist, which have failed, and where the parts of each one are. How bytes and batches
//! are stored in files, logs and checkpoints is up to `windrow_storage`.
//!
//! ```text
//! DATA/
//! ├─ catalog.json            definitions.rs  the objects, in order of creation
//! ├─ failures.json           failures.rs     the views that have failed, and their errors
//! ├─ paused.json             paused.rs       the streams that are paused
//! ├─ sinks/<dir>.json        sink_records.rs how far sinks are
//! ├─ tables/<dir>.arrow      table_rows.rs   rows of reference tables
//! ├─ versions/<dir>/…       table_versions.rs the versions of refreshed tables that a view uses
//! ├─ models/<dir>/<n>.onnx   models.rs       version n of a model
//! └─ streams/<dir>/…, …      store.rs        log, archive and checkpoints of each object (streams.rs: logs of push streams)
//! ```
//! Invariants: damage is reported by name and never overwritten; a definition is durable before anything is written for its
//! object.

pub(crate) mod definitions;
#[cfg(test)]
mod engine_simulation;
pub(crate) mod failures;
mod models;
mod paused;
#[cfg(test)]
mod simulation;
pub(crate) mod sink_records;
pub(crate) mod store;
mod streams;
pub(crate) mod table_rows;
pub(crate) mod table_versions;
