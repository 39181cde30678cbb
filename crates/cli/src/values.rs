//! Values of flags: sizes, times, formats.

use std::time::Duration;

use clap::ValueEnum;
use windrow_core::size::parse_bytes;

/// How results are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    #[default]
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object per line.
    #[value(alias = "json", alias = "jsonl")]
    Ndjson,
}

/// Parses bytes: a number and a unit, of thousands (kB, MB, GB, TB) or of 1024 (KiB, MiB, GiB, TiB).
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    const BYTES_MIN: u64 = 1 << 20;
    if text.trim().ends_with(|c: char| c.is_ascii_digit()) {
        return Err("write a whole number and a unit, such as 256MB or 4GiB".to_owned());
    }
    let bytes = parse_bytes(text)?;
    match usize::try_from(bytes) {
        Ok(_) if bytes < BYTES_MIN => Err("at least 1MiB is needed".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err("that is more than can be addressed".to_owned()),
    }
}

/// Parses a time in seconds, with or without a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds, such as 10 or 0.5")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration >= Duration::from_millis(1) => Ok(duration),
        _ => Err("it is at least 0.001 seconds".to_owned()),
    }
}
