//! The progress bar on stderr: how much has been read, how fast.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use windrow_runtime::{Engine, Progress};

/// How often the bar moves; also how long a statement runs before it has one.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// What a bar measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Stored bytes.
    Bytes,
    /// Rows that were there when queries began to read them.
    History,
    /// Nobody knows how much there is.
    Open,
}

impl Kind {
    fn of(bytes_total: u64, now: Progress) -> Self {
        if bytes_total > 0 {
            Self::Bytes
        } else if now.history < now.history_total {
            Self::History
        } else {
            Self::Open
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Bytes => "{bar:32} {bytes}/{total_bytes}  {msg}  {elapsed}",
            Self::History => "{bar:32} {human_pos}/{human_len} rows of history  {msg}  {elapsed}",
            Self::Open => "{spinner} {msg}  {elapsed}",
        }
    }
}

/// The bar of the running statement.
pub(crate) struct Bar {
    engine: Engine,
    shown: bool,
    start: Progress,
    last_rows: u64,
    /// Rows per second, smoothed.
    speed: f64,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar that is not drawn yet; never drawn where stderr is no terminal, or `quiet`.
    pub(crate) fn new(engine: &Engine, quiet: bool) -> Self {
        let start = engine.progress();
        Self {
            engine: engine.clone(),
            shown: !quiet && std::io::stderr().is_terminal(),
            last_rows: start.rows,
            start,
            speed: 0.0,
            bar: None,
        }
    }

    /// Moves the bar; called every [`TICK`].
    pub(crate) fn tick(&mut self) {
        if !self.shown {
            return;
        }
        let now = self.engine.progress();
        let rows = now.rows.saturating_sub(self.start.rows);
        let fresh = now.rows.saturating_sub(self.last_rows) as f64 / TICK.as_secs_f64();
        self.speed = if self.speed == 0.0 { fresh } else { 0.7 * self.speed + 0.3 * fresh };
        self.last_rows = now.rows;
        let bytes = now.bytes.saturating_sub(self.start.bytes);
        let bytes_total = now.bytes_total.saturating_sub(self.start.bytes);
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::no_length();
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar
        });
        let kind = Kind::of(bytes_total, now);
        bar.set_style(style(kind));
        if kind == Kind::Bytes {
            bar.set_length(bytes_total);
            bar.set_position(bytes.min(bytes_total));
        } else if kind == Kind::History {
            let total = now.history_total.saturating_sub(self.start.history);
            bar.set_length(total);
            bar.set_position(now.history.saturating_sub(self.start.history).min(total));
        }
        bar.set_message(message(rows, self.speed));
        bar.tick();
    }

    /// Lets `write` write to the terminal without the bar in its way.
    pub(crate) fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn message(rows: u64, speed: f64) -> String {
    // A speed is at least 0 and far below 2^64.
    format!("{} rows, {} rows/s", HumanCount(rows), HumanCount(speed.round() as u64))
}

fn style(kind: Kind) -> ProgressStyle {
    let template = kind.template();
    // The templates are constants; should one be wrong, the plain bar does.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_speed_are_grouped() {
        assert_eq!(message(1_234_567, 89_000.4), "1,234,567 rows, 89,000 rows/s");
        for kind in [Kind::Bytes, Kind::History, Kind::Open] {
            assert!(ProgressStyle::with_template(kind.template()).is_ok(), "{kind:?}");
        }
    }

    #[test]
    fn history_is_shown_while_it_is_read() {
        let at = |history, history_total| Progress {
            rows: 9,
            bytes: 0,
            bytes_total: 0,
            history,
            history_total,
        };
        assert_eq!(Kind::of(0, at(3, 9)), Kind::History);
        assert_eq!(Kind::of(0, at(9, 9)), Kind::Open, "it goes on with what comes");
        assert_eq!(Kind::of(5, at(3, 9)), Kind::Bytes);
    }
}
