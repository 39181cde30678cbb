//! The progress bar on stderr: how much has been read, how fast.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use windrow_runtime::{Engine, Progress};

/// How often the bar moves; also how long a statement runs before it has one.
pub(crate) const TICK: Duration = Duration::from_millis(250);

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
        bar.set_style(style(bytes_total > 0));
        if bytes_total > 0 {
            bar.set_length(bytes_total);
            bar.set_position(bytes.min(bytes_total));
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

fn style(with_bytes: bool) -> ProgressStyle {
    let template = if with_bytes {
        "{bar:32} {bytes}/{total_bytes}  {msg}  {elapsed}"
    } else {
        "{spinner} {msg}  {elapsed}"
    };
    // Both templates are constants; should one be wrong, the plain bar does.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_speed_are_grouped() {
        assert_eq!(message(1_234_567, 89_000.4), "1,234,567 rows, 89,000 rows/s");
        assert!(ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes}  {msg}").is_ok());
    }
}
