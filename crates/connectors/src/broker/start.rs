//! `start`: where the reading of a stream of messages begins.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use windrow_core::Result;

use crate::options::bad_value;

/// Where reading begins; `P`: a position of the broker's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start<P> {
    /// With the oldest message.
    Earliest,
    /// With those after the stream is first read.
    Latest,
    /// With the first message of this time or later, in microseconds since 1970.
    Time(i64),
    /// At a position.
    At(P),
}

impl<P> Start<P> {
    /// Parses the option; `positions` continues "'earliest', 'latest', a time, or …".
    ///
    /// # Errors
    /// When it is none of them.
    pub(crate) fn parse(
        text: &str,
        position: impl Fn(&str) -> Option<P>,
        positions: &str,
    ) -> Result<Self> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Some(position) = position(text) {
            return Ok(Self::At(position));
        }
        let utc: Option<Tz> = "+00:00".parse().ok();
        let time = utc.and_then(|utc| string_to_datetime(&utc, text).ok());
        match time {
            Some(time) => Ok(Self::Time(time.timestamp_micros())),
            None => Err(bad_value(
                "start",
                text,
                &format!(
                    "'earliest', 'latest', a time such as '2026-01-01 00:00:00', or {positions}"
                ),
            )),
        }
    }
}
