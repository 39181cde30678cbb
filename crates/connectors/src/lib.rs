//! The outside as [`Source`](windrow_core::Source)s: files and object stores ([`mod@file`]), and
//! made-up events ([`generator`]). A [`replay`] is the engine's own source; only its options are here. Formats, places and
//! options may be touched here. What may not be: plans and DataFusion, watermarks, and what becomes of a row once it is given.
//!
//! [`open_source`] is the one door: it takes what `CREATE STREAM … WITH (…)` says. What options a
//! connector understands is written down once, in [`options`], and serves errors, help and tab
//! completion.
#![forbid(unsafe_code)]

mod env;
pub mod file;
pub mod generator;
pub mod options;
mod registry;
pub mod replay;

pub use env::{ConnectorEnv, Declared};
pub use file::Files;
pub use options::{OptionDoc, StreamOptions};
pub use registry::{known_connectors, open_source, options_of};
