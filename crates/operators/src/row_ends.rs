//! When the results of rows end that come with windows of their own, as the rows of a view do.

use windrow_core::WindowSpec;

use crate::slicing::Slicing;

/// How the end of a row's window follows from the time by which lateness is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowEnds {
    /// The window ends this many ticks later.
    After(i64),
    /// The time is the start of one of these windows.
    Starts(WindowSpec),
}

impl RowEnds {
    /// The last ticks of the windows of rows with these `times`.
    pub(crate) fn last_ticks(self, times: &[i64]) -> Vec<i64> {
        match self {
            Self::After(ticks) => {
                times.iter().map(|time| time.saturating_add(ticks).saturating_sub(1)).collect()
            }
            Self::Starts(windows) => {
                let slicing = Slicing::new(windows);
                times.iter().map(|time| slicing.last_end(*time).saturating_sub(1)).collect()
            }
        }
    }
}
