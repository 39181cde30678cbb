//! When the results of rows end that come with windows of their own, as those of a view do.

use windrow_core::WindowSpec;

use crate::slicing::Slicing;

/// What the time by which lateness is judged says of the end of a row's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowEnds {
    /// The window ends that many ticks later.
    After(i64),
    /// It is the start of one of these windows.
    Starts(WindowSpec),
}

impl RowEnds {
    /// The last ticks of the windows that rows with these `times` came with.
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
