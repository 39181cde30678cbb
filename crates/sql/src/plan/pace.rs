//! When an updating result is emitted: the clauses `EMIT CHANGES`, `EMIT ON UPDATE` and `EMIT EVERY`.

use std::fmt;
use std::time::Duration;

use crate::parse::{Emit, Tail};

/// When the changes of an updating result are emitted. Results that are final do not wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    /// Whenever no rows are in flight, and every half second while there are: `EMIT CHANGES`, `EMIT ON UPDATE`.
    #[default]
    Prompt,
    /// As soon as there are some, but only once in that time: `EMIT ON UPDATE WITH BATCH`.
    AtMost(Duration),
    /// At the multiples of that time since the Unix epoch: `EMIT EVERY`.
    Every(Duration),
}

impl Pace {
    /// The pace that a tail asks for; `None`: only final results are emitted.
    pub(super) fn of(tail: &Tail) -> Option<Self> {
        match tail.emit {
            None | Some(Emit::OnWindowClose) => None,
            Some(Emit::Changes | Emit::OnUpdate { batch: None }) => Some(Self::Prompt),
            Some(Emit::OnUpdate { batch: Some(batch) }) => Some(Self::AtMost(batch.to_duration())),
            Some(Emit::Every(interval)) => Some(Self::Every(interval.to_duration())),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prompt => {
                f.write_str("whenever no rows are in flight, and every 0.5 s while there are")
            }
            Self::AtMost(batch) => write!(f, "when there are some, once in {batch:?}"),
            Self::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}
