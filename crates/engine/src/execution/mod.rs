//! The parts of the execution of every statement: its [context](context::StatementContext),
//! [`Planner`](planner::Planner), [`Executor`](executor::Executor), place within the limits of a server
//! ([`Running`](running::Running)) and [`Outcome`](outcome::Outcome). No statement is known here.
//!
//! ```text
//! text ─► Planner ─► plan ─► Executor ─► rows ─► Outcome
//!             └ budget, user's slots ┘       └ buffered, expansion: memory of the statement
//! ```

pub(crate) mod buffered;
pub(crate) mod context;
pub(crate) mod creation;
pub(crate) mod executor;
mod expansion;
pub(crate) mod file_tables;
pub(crate) mod files;
pub(crate) mod first_rows;
mod memory;
pub(crate) mod options;
pub(crate) mod outcome;
mod pass_through;
pub(crate) mod planner;
mod predictions;
pub(crate) mod running;
pub(crate) mod skipped;
pub(crate) mod suggestions;
pub(crate) mod task;
