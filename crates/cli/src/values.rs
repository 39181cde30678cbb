//! Values of flags: sizes, times, formats.

use std::time::Duration;

use clap::ValueEnum;

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
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" | "k" => 1_000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err("write a whole number and a unit, such as 256MB or 4GiB".to_owned()),
    };
    let number: u64 =
        number.parse().map_err(|e| format!("\"{number}\" is not a number of bytes: {e}"))?;
    match number.checked_mul(factor).map(usize::try_from) {
        Some(Ok(bytes)) if bytes as u64 >= BYTES_MIN => Ok(bytes),
        Some(Ok(_)) => Err("at least 1MiB is needed".to_owned()),
        _ => Err("that is more than can be addressed".to_owned()),
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
