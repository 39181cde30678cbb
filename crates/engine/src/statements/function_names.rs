//! The names of functions that no other function can have.

use datafusion::execution::SessionState;
use windrow_sql::parse::is_rewritten;

use super::function_descriptions::WINDOWS;

/// Names that look like functions but are syntax of the parser.
const SYNTAX: [&str; 22] = [
    "array",
    "cast",
    "convert",
    "exists",
    "extract",
    "fill",
    "grouping",
    "hop_end",
    "hop_start",
    "if",
    "interval",
    "position",
    "proctime",
    "row",
    "session_end",
    "session_start",
    "substring",
    "trim",
    "try_cast",
    "tumble_end",
    "tumble_start",
    "unnest",
];

/// Whether a function has this name, or SQL itself uses it like one.
pub(crate) fn is_taken(state: &SessionState, name: &str) -> bool {
    state.scalar_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
        || state.table_functions().contains_key(name)
        || WINDOWS.iter().any(|(window, ..)| *window == name)
        || SYNTAX.contains(&name)
        || is_rewritten(name)
}
