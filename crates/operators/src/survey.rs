//! The state of an operator, entry by entry, for `windrow.windows`.
//!
//! Invariant: a row that an operator has read and not finished is in exactly one entry, except that it is in one for
//! each of several overlapping windows.

/// An open window, a session of a key, or the rows of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenState {
    /// The input, if the operator has several.
    pub input: Option<usize>,
    /// The key of a session, as text.
    pub key: Option<String>,
    /// First tick and one past the last tick of a window; of a session as far as it is known.
    pub bounds: Option<(i64, i64)>,
    /// Its rows.
    pub rows: u64,
    /// Bytes of memory.
    pub bytes: u64,
    /// The first and the last event time of its rows, in ticks; `None` when there are no rows, or they are on disk.
    pub times: Option<(i64, i64)>,
}

/// The state of an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Windows and sessions in order of their end.
    pub states: Vec<OpenState>,
    /// Whether there are more, which end later.
    pub truncated: bool,
}

impl Survey {
    /// The rows of inputs; inputs without rows are omitted if there are several.
    pub(crate) fn of_rows(states: Vec<OpenState>) -> Self {
        let states = states.into_iter().filter(|state| state.input.is_none() || state.rows > 0);
        Self { states: states.collect(), truncated: false }
    }
}

/// The first and the last event time of some rows.
pub(crate) type Times = Option<(i64, i64)>;

/// The first and the last event time of two groups of rows together.
pub(crate) fn cover(a: Times, b: Times) -> Times {
    match (a, b) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (some, None) | (None, some) => some,
    }
}
