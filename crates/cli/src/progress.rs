//! The progress line on stderr, which is removed when the running statement ends: a bar for bounded input, a status for
//! unbounded input.

use std::io::IsTerminal;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use windrow_core::Clock;
use windrow_engine::{Engine, Progress, ReadProgress};

use crate::clock::clock;
use crate::style::{terminal_is_able, wants_colour};

/// How often the line is updated; also how long a statement runs before it has one.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// The progress of a continuous query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Its watermark, in µs since 1970.
    pub(crate) watermark_micros: Option<i64>,
    /// Its windows that are not closed.
    pub(crate) windows_open: Option<usize>,
    /// Rows that it has read, where they are not counted in this process.
    pub(crate) rows_in: Option<u64>,
}

/// The unit of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Stored bytes.
    Bytes,
    /// Rows that existed when queries began to read them.
    History,
    /// The total is unknown.
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
            Self::Bytes => "{bar:24} {bytes}/{total_bytes}  {msg}  {elapsed}",
            Self::History => "{bar:24} {human_pos}/{human_len} rows of history  {msg}  {elapsed}",
            Self::Open => "{spinner} {msg}  {elapsed}",
        }
    }
}

/// The line of the running statement.
pub(crate) struct Bar {
    engine: Option<Engine>,
    shown: bool,
    start: Progress,
    last_rows: u64,
    /// Rows per second, smoothed.
    speed: f64,
    /// Rows that came out, where the input is not counted in this process.
    rows_out: u64,
    live: Option<Live>,
    /// How much a bounded statement has read.
    read: Option<ReadProgress>,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// Returns a line that is not drawn yet; it is never drawn where stderr is not a capable terminal, or when `quiet`.
    pub(crate) fn new(engine: Option<&Engine>, quiet: bool) -> Self {
        let start = engine.map_or(NOTHING, Engine::progress);
        Self {
            engine: engine.cloned(),
            shown: !quiet && std::io::stderr().is_terminal() && terminal_is_able(),
            last_rows: start.rows,
            start,
            speed: 0.0,
            rows_out: 0,
            live: None,
            read: None,
            bar: None,
        }
    }

    /// Sets the progress of a continuous query, and how many rows it has returned.
    pub(crate) fn live(&mut self, live: Option<Live>, rows_out: u64) {
        self.live = live;
        self.rows_out = rows_out;
    }

    /// Sets how much a bounded statement has read.
    pub(crate) fn read(&mut self, read: Option<ReadProgress>) {
        if read.is_some() && self.read.is_none() {
            // Rows that other statements read do not count.
            (self.start, self.last_rows) = (NOTHING, 0);
        }
        self.read = read;
    }

    /// Updates the line; called every [`TICK`].
    pub(crate) fn tick(&mut self) {
        if !self.shown {
            return;
        }
        let now = match (&self.engine, self.read) {
            (_, Some(ReadProgress { rows, bytes, bytes_total })) => {
                Progress { rows, bytes, bytes_total, ..NOTHING }
            }
            (Some(engine), None) => engine.progress(),
            (None, None) => {
                let rows_in = self.live.and_then(|live| live.rows_in);
                Progress { rows: rows_in.unwrap_or(self.rows_out), ..NOTHING }
            }
        };
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
        let mut message = message(rows, self.speed);
        if let Some(live) = self.live {
            message.push_str(&live_message(live, now_micros()));
        }
        bar.set_message(message);
        bar.tick();
    }

    /// Hides the line while `write` writes to the terminal.
    pub(crate) fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Removes the line, and draws none from now on: another program has the terminal.
    pub(crate) fn hide(&mut self) {
        self.shown = false;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Removes the line.
    pub(crate) fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn now_micros() -> i64 {
    clock().now_micros()
}

/// Nothing has been read.
const NOTHING: Progress =
    Progress { rows: 0, bytes: 0, bytes_total: 0, history: 0, history_total: 0 };

fn message(rows: u64, speed: f64) -> String {
    // A speed is at least 0 and far below 2^64.
    format!("{} rows, {} rows/s", HumanCount(rows), HumanCount(speed.round() as u64))
}

/// Formats watermark, lag and open windows, as far as known.
fn live_message(live: Live, now_micros: i64) -> String {
    let mut message = String::new();
    if let Some(micros) = live.watermark_micros {
        let lag = now_micros.saturating_sub(micros).max(0) / 1_000_000;
        message.push_str(&format!(", watermark {}, lag {}", time(micros), age(lag)));
    }
    if let Some(open) = live.windows_open {
        let plural = if open == 1 { "" } else { "s" };
        message.push_str(&format!(", {open} open window{plural}"));
    }
    message
}

/// Formats a time, to the second.
pub(crate) fn time(micros: i64) -> String {
    let array =
        arrow::array::TimestampMicrosecondArray::from(vec![micros - micros.rem_euclid(1_000_000)]);
    let options = arrow::util::display::FormatOptions::new();
    arrow::util::display::ArrayFormatter::try_new(&array, &options)
        .map_or_else(|_| micros.to_string(), |f| f.value(0).to_string())
}

/// Parses a time that a server wrote, to µs since 1970.
pub(crate) fn micros(time: &str) -> Option<i64> {
    let text = arrow::array::StringArray::from(vec![time]);
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let array = arrow::compute::cast(&text, &micros).ok()?;
    let array = array.as_primitive_opt::<TimestampMicrosecondType>()?;
    array.iter().next().flatten()
}

/// Formats seconds for people, in one unit.
fn age(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn style(kind: Kind) -> ProgressStyle {
    let template = kind.template();
    // The templates are constants; should one be invalid, the plain bar is used.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    if wants_colour() { style } else { style.progress_chars("#>-") }
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
        let at = |history, history_total| Progress { rows: 9, history, history_total, ..NOTHING };
        assert_eq!(Kind::of(0, at(3, 9)), Kind::History);
        assert_eq!(Kind::of(0, at(9, 9)), Kind::Open, "it goes on with what comes");
        assert_eq!(Kind::of(5, at(3, 9)), Kind::Bytes);
    }

    #[test]
    fn the_status_tells_what_is_known() {
        let watermark_micros = Some(1_772_355_601_500_000);
        let live = Live { watermark_micros, windows_open: Some(1), rows_in: None };
        assert_eq!(
            live_message(live, 1_772_355_604_000_000),
            ", watermark 2026-03-01T09:00:01, lag 2 s, 1 open window"
        );
        assert_eq!(live_message(Live::default(), 0), "");
        assert_eq!(micros("2026-03-01T09:00:01.5"), Some(1_772_355_601_500_000));
        assert_eq!(micros("2026-03-01T09:00:01.5Z"), Some(1_772_355_601_500_000));
        assert_eq!(micros("soon"), None);
        assert_eq!(
            [age(119), age(7_199), age(90_000), age(864_000)],
            ["119 s", "119 min", "25 h", "10 d"]
        );
    }
}
