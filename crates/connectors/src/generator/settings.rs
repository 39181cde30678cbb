//! Options of generators: synonyms, ranges and instants.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use windrow_core::{Clock, Error, Result};

use crate::options::{StreamOptions, bad_value};

/// The options of one stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    options: &'a StreamOptions<'a>,
}

impl<'a> Settings<'a> {
    pub(super) fn new(options: &'a StreamOptions<'a>) -> Self {
        Self { options }
    }

    /// Returns the text of an option that may have any of `names`, and the name that was used.
    pub(super) fn find<'n>(&self, names: &[&'n str]) -> Result<Option<(&'n str, &'a str)>> {
        let mut found =
            names.iter().filter_map(|name| Some((*name, self.options.get(name)?.trim())));
        let first = found.next();
        if let (Some((a, _)), Some((b, _))) = (first, found.next()) {
            return Err(Error::config(format!("options \"{a}\" and \"{b}\" mean the same"))
                .with_hint("Use one of them."));
        }
        Ok(first)
    }

    /// Parses a whole number from `min` to `max`; `_` may group its digits.
    pub(super) fn number(&self, names: &[&str], min: u64, max: u64) -> Result<Option<u64>> {
        let Some((name, value)) = self.find(names)? else { return Ok(None) };
        match value.replace('_', "").parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ if max == u64::MAX => {
                Err(bad_value(name, value, &format!("a whole number of at least {min}")))
            }
            _ => Err(bad_value(name, value, &format!("a whole number from {min} to {max}"))),
        }
    }

    /// Parses a share between 0 and 1.
    pub(super) fn share(&self, names: &[&str]) -> Result<Option<f64>> {
        let Some((name, value)) = self.find(names)? else { return Ok(None) };
        match value.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Some(share)),
            _ => Err(bad_value(name, value, "a number from 0 to 1")),
        }
    }

    /// Parses a duration in nanoseconds; at most 292 years.
    pub(super) fn nanos(&self, name: &str) -> Result<Option<i64>> {
        self.options
            .duration(name)?
            .map(|length| {
                i64::try_from(length.as_nanos()).map_err(|_| {
                    Error::config(format!("option \"{name}\" is longer than 292 years"))
                })
            })
            .transpose()
    }

    /// Whether an instant is the current time, which is another one after a restart.
    pub(super) fn is_now(&self, name: &str) -> bool {
        self.options.get(name).is_some_and(|value| value.trim().eq_ignore_ascii_case("now"))
    }

    /// Parses an instant in nanoseconds since the epoch: a timestamp, a number of ms, or `now`.
    pub(super) fn instant(&self, name: &str, clock: &dyn Clock) -> Result<Option<i64>> {
        let Some(value) = self.options.get(name).map(str::trim) else { return Ok(None) };
        if self.is_now(name) {
            return Ok(Some(clock.now_micros().saturating_mul(1_000)));
        }
        let nanos = match value.parse::<i64>() {
            Ok(ms) => ms.checked_mul(1_000_000),
            Err(_) => string_to_timestamp_nanos(value).ok(),
        };
        nanos.map(Some).ok_or_else(|| {
            let expected = "a timestamp like '2024-01-01 00:00:00', ms since 1970, or 'now'";
            bad_value(name, value, expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use windrow_core::ManualClock;

    use super::*;
    use crate::options::OptionDoc;

    const KNOWN: &[OptionDoc] = &[OptionDoc { name: "*", values: "", default: "", doc: "" }];

    fn entries(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn errors_name_the_option() {
        let given = entries(&[("rate", "fast"), ("a", "1"), ("b", "1")]);
        let options = StreamOptions::try_new("datagen", &given, KNOWN).unwrap();
        let settings = Settings::new(&options);
        let error = settings.number(&["rate"], 1, u64::MAX).unwrap_err();
        assert_eq!(
            error.message(),
            "option \"rate\" must be a whole number of at least 1, not \"fast\""
        );
        assert!(settings.number(&["a", "b"], 0, 9).is_err());
        assert_eq!(settings.number(&["a", "c"], 0, 9).unwrap(), Some(1));
        assert!(settings.number(&["a"], 2, 9).is_err());
    }

    #[test]
    fn instants() {
        let given = entries(&[("a", "2015-07-15 00:00:00"), ("b", "1436918400000"), ("c", "now")]);
        let options = StreamOptions::try_new("datagen", &given, KNOWN).unwrap();
        let clock = ManualClock::at(5);
        let at = |name| Settings::new(&options).instant(name, &clock).unwrap();
        assert_eq!(at("a"), Some(1_436_918_400_000_000_000));
        assert_eq!(at("a"), at("b"));
        assert_eq!(at("c"), Some(5_000));
        assert_eq!(at("d"), None);
        let is_now = |name| Settings::new(&options).is_now(name);
        assert_eq!(["a", "b", "c", "d"].map(is_now), [false, false, true, false]);
    }
}
