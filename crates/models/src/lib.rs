//! Trained models as functions of columns: the bytes of an ONNX file become a [`Model`], which computes a column of results
//! from columns of inputs, a batch at a time. What belongs here: what a file may contain, how columns become tensors and tensors
//! columns, and the operators of `ai.onnx.ml` that the library below lacks. What does not belong here: SQL, where files are, and
//! the versions of a model.
//!
//! ```text
//! bytes ─ file ─► graph ─► Model ─ predict ─► columns ─► tensors of up to 4096 rows ─► tensors ─► column
//! ```
//! Synchronous, no clock, no I/O: a file that refers to other files is refused. Every row is computed by itself, so the
//! result does not depend on how rows are cut into batches.
#![forbid(unsafe_code)]

mod columns;
mod failure;
mod file;
mod model;
mod ops;
mod signature;

pub use self::model::Model;
pub use self::signature::{Input, Output};
