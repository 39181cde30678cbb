//! From SQL text to plans. Spellings, refusals, rules and the forms of a plan are made here. What may not be: reading rows,
//! waiting, knowing where a stream is kept or which user asks; the catalog is asked through what planning is given.
//!
//! This crate owns the way `text → Statement → plan`: [`parse`] reads statements, with every
//! spelling of a window brought into one canonical form; [`plan`] makes logical plans of them and
//! lowers these to a bounded or a continuous form; [`leaf`] is where rows enter a plan that runs
//! once per micro-batch; [`diagnostics`] turns the engine's errors into errors for people.
//!
//! Invariants: SQL is never turned back into text on the way; no input, however long or deeply
//! nested, makes this crate panic or overflow the stack.

pub mod diagnostics;
mod functions;
pub mod leaf;
pub mod parse;
pub mod plan;
