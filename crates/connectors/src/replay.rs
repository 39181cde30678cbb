//! The options of `connector = 'replay'`. Its source is the engine's own: the history of a stream or view.

use windrow_core::Result;

use crate::options::{OptionDoc, StreamOptions, bad_value};

/// The options of a replay.
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "of",
        values: "a name",
        default: "",
        doc: "The stream or materialized view whose history is replayed.",
    },
    OptionDoc {
        name: "from",
        values: "a timestamp",
        default: "",
        doc: "Rows with an event time before it are omitted.",
    },
    OptionDoc {
        name: "to",
        values: "a timestamp",
        default: "",
        doc: "Rows with this event time or a later one are omitted.",
    },
    OptionDoc {
        name: "speed",
        values: "max | 1x | 10x | …",
        default: "max",
        doc: "The speed of event time relative to the wall clock; bounded queries read at full speed.",
    },
];

/// A parsed request for a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayOptions {
    /// The name of what is replayed, as written.
    pub of: String,
    /// The first event time, as text.
    pub from: Option<String>,
    /// The exclusive last event time, as text.
    pub to: Option<String>,
    /// Event time per wall-clock time; `None`: as fast as possible. Positive and finite.
    pub speed: Option<f64>,
}

impl ReplayOptions {
    /// Parses the options of `WITH`, except those of the engine.
    ///
    /// # Errors
    /// For an unknown, missing or invalid one.
    pub fn try_new(options: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("replay", options, OPTIONS)?;
        let text = |name| options.get(name).map(str::to_owned);
        let speed = match options.get("speed") {
            Some(value) => speed(value)?,
            None => None,
        };
        Ok(Self {
            of: options.required("of")?.to_owned(),
            from: text("from"),
            to: text("to"),
            speed,
        })
    }
}

fn speed(value: &str) -> Result<Option<f64>> {
    let word = value.trim().to_ascii_lowercase();
    if word == "max" {
        return Ok(None);
    }
    let number = word.strip_suffix('x').unwrap_or(&word).trim().parse::<f64>();
    match number {
        Ok(times) if times.is_finite() && times > 0.0 => Ok(Some(times)),
        _ => Err(bad_value("speed", value, "'max' or a multiple of real time such as '10x'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<ReplayOptions> {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ReplayOptions::try_new(&pairs)
    }

    #[test]
    fn speeds_are_read() {
        for (text, speed) in
            [("max", None), ("10x", Some(10.0)), ("0.5 X", Some(0.5)), ("2", Some(2.0))]
        {
            assert_eq!(read(&[("of", "s"), ("speed", text)]).unwrap().speed, speed, "{text}");
        }
        for text in ["0x", "-1x", "fast", "", "infx", "nan"] {
            assert!(read(&[("of", "s"), ("speed", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn it_needs_what_it_replays() {
        let e = read(&[("speed", "max")]).unwrap_err();
        assert!(e.message().contains("\"of\""), "{e}");
        let e = read(&[("of", "s"), ("til", "x")]).unwrap_err();
        assert!(e.message().contains("\"til\""), "{e}");
    }
}
