//! From SQL text to plans: spellings, refusals, planner rules and the forms of a plan belong here. This crate reads no
//! rows, does not wait, and has no access to streams' storage or to users; it gets the catalog from its caller.
//!
//! The path is `text → Statement → plan`: [`parse`] reads statements, with every spelling of a window brought into one
//! canonical form; [`plan`] makes logical plans of them and lowers these to a bounded or a continuous form; [`leaf`] is
//! where rows enter a plan that runs once per micro-batch; [`diagnostics`] turns DataFusion's errors into Windrow's.
//!
//! Invariants: SQL is never turned back into text on the way; no input, however long or deeply
//! nested, makes this crate panic or overflow the stack.

pub mod diagnostics;
mod functions;
pub mod leaf;
pub mod parse;
pub mod plan;

pub use functions::not_json;
