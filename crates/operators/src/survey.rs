//! What an operator keeps, entry by entry: what `windrow.windows` shows.
//!
//! Invariant: a row that an operator has taken and not finished is in exactly one entry, except in windows that overlap,
//! which show it once each.

/// An open window, a session of a key, or the rows that an operator keeps of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenState {
    /// The input of an operator that has several.
    pub input: Option<usize>,
    /// The key of a session, as text.
    pub key: Option<String>,
    /// First tick and one past the last tick of a window; of a session: as far as it is known.
    pub bounds: Option<(i64, i64)>,
    /// Its rows.
    pub rows: u64,
    /// Bytes of memory.
    pub bytes: u64,
    /// The first and the last event time of its rows, in ticks; `None` when there are no rows, or they are on disk.
    pub times: Option<(i64, i64)>,
}

/// What an operator keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Windows and sessions in order of their end.
    pub states: Vec<OpenState>,
    /// Whether there are more, which end later.
    pub truncated: bool,
}

impl Survey {
    /// The rows of inputs that are kept; inputs without rows are left out where there are several.
    pub(crate) fn of_rows(states: Vec<OpenState>) -> Self {
        let states = states.into_iter().filter(|state| state.input.is_none() || state.rows > 0);
        Self { states: states.collect(), truncated: false }
    }
}

/// The first and the last event time of some rows.
pub(crate) type Times = Option<(i64, i64)>;

/// The first and the last event time of two groups of rows.
pub(crate) fn cover(a: Times, b: Times) -> Times {
    match (a, b) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (some, None) | (None, some) => some,
    }
}
