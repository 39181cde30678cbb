//! Sources that generate their rows: [`nexmark()`] (the auction benchmark) and [`datagen()`] (columns as declared).
//!
//! Row `n` of a generator depends on its options and on `n` and on nothing else, so any split, any batch size and any
//! number of readers give the same rows, and reading can be repeated. Only the pace (`rate`) depends on the wall clock,
//! and it changes when a row arrives, never its contents.

pub mod datagen;
pub mod nexmark;

#[cfg(test)]
mod reading;
mod settings;
mod source;

pub use datagen::{DATAGEN_OPTIONS, datagen};
pub use nexmark::{NEXMARK_OPTIONS, nexmark};
