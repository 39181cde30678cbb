//! The options in `WITH (…)`, checked against those of the connector.
//!
//! A connector's options are listed once, as [`OptionDoc`]s; errors, help and tab completion all come from that list.
//! [`StreamOptions`] is the typed view: every key in it is a known one.

use std::str::FromStr;
use std::time::Duration;

use windrow_core::{Error, Result};

/// One option of a connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionDoc {
    /// Its name. A part `*` between dots matches any name (`fields.*.min`), and a trailing `*` for any ending
    /// (`aws_*`).
    pub name: &'static str,
    /// Its values as shown to users: `true | false`, `a number`.
    pub values: &'static str,
    /// Its default; empty when it has none.
    pub default: &'static str,
    /// Its effect: one sentence.
    pub doc: &'static str,
}

/// An option, in the order of the columns of its table in the documentation.
pub(crate) const fn option(
    name: &'static str,
    values: &'static str,
    default: &'static str,
    doc: &'static str,
) -> OptionDoc {
    OptionDoc { name, values, default, doc }
}

impl OptionDoc {
    /// Whether `key` (lower case) names this option.
    fn matches(&self, key: &str) -> bool {
        if let Some(prefix) = self.name.strip_suffix('*')
            && !prefix.ends_with('.')
        {
            return key.starts_with(prefix);
        }
        let Some((head, tail)) = self.name.split_once('*') else { return self.name == key };
        key.len() > head.len() + tail.len() && key.starts_with(head) && key.ends_with(tail)
    }
}

/// Whether the value of an option must not be shown: passwords, keys and tokens, of whatever connector.
pub fn is_secret(key: &str) -> bool {
    const SECRET: &[&str] =
        &["password", "secret", "token", "key.pem", "key_pem", "oauthbearer.config", "user.info"];
    const SHOWN: &[&str] = &[".url", ".location", ".claim.name", "token_provider"];
    let key = key.to_ascii_lowercase();
    let is_login = |word: &&str| key.starts_with("header.") && key.contains(*word);
    if ["auth", "cookie", "signature", "api-key", "apikey", "api_key"].iter().any(is_login) {
        return true;
    }
    SECRET.iter().any(|word| key.contains(word)) && !SHOWN.iter().any(|end| key.ends_with(end))
}

/// The options of one stream: every key is known, none occurs twice.
#[derive(Debug, Clone)]
pub struct StreamOptions<'a> {
    connector: &'a str,
    entries: Vec<(String, &'a str)>,
}

impl<'a> StreamOptions<'a> {
    /// Checks that every key is one of `known`. Keys are compared in lower case.
    ///
    /// # Errors
    /// For an unknown or repeated option; the hint lists the known ones and suggests the nearest.
    pub fn try_new(
        connector: &'a str,
        entries: &'a [(String, String)],
        known: &[OptionDoc],
    ) -> Result<Self> {
        let mut checked: Vec<(String, &'a str)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let lower = key.to_ascii_lowercase();
            if !known.iter().any(|doc| doc.matches(&lower)) {
                return Err(unknown_option(connector, key, known));
            }
            if checked.iter().any(|(k, _)| *k == lower) {
                return Err(Error::config(format!("option \"{key}\" is given twice")));
            }
            checked.push((lower, value.as_str()));
        }
        Ok(Self { connector, entries: checked })
    }

    /// The connector to which these options belong.
    pub fn connector(&self) -> &str {
        self.connector
    }

    /// Iterates over all keys (lower case) and values, as written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), *v))
    }

    /// Returns the value of an option.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.entries.iter().find(|(k, _)| k == name).map(|(_, v)| *v)
    }

    /// Returns the value of a required option.
    ///
    /// # Errors
    /// When it is missing.
    pub fn required(&self, name: &str) -> Result<&'a str> {
        self.get(name).ok_or_else(|| {
            Error::config(format!(
                "a stream with connector \"{}\" needs the option \"{name}\"",
                self.connector
            ))
            .with_hint(format!("Add {name} = '…' to WITH."))
        })
    }

    /// Returns the value of an option that a sink requires.
    ///
    /// # Errors
    /// When it is missing.
    pub fn required_by_sink(&self, name: &str) -> Result<&'a str> {
        self.get(name).ok_or_else(|| {
            Error::config(format!(
                "a sink with connector \"{}\" needs the option \"{name}\"",
                self.connector
            ))
            .with_hint(format!("Add {name} = '…' to WITH."))
        })
    }

    /// Parses a switch: `true`/`false`, `on`/`off`, `yes`/`no`, `1`/`0`.
    ///
    /// # Errors
    /// For any other value.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name).map(|v| v.trim().to_ascii_lowercase()).as_deref() {
            None => Ok(default),
            Some("true" | "on" | "yes" | "1") => Ok(true),
            Some("false" | "off" | "no" | "0") => Ok(false),
            Some(other) => Err(bad_value(name, other, "true or false")),
        }
    }

    /// Parses a number.
    ///
    /// # Errors
    /// When the value is not a number, or does not fit.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.get(name)
            .map(|v| v.trim().replace('_', "").parse().map_err(|_| bad_value(name, v, "a number")))
            .transpose()
    }

    /// Parses one ASCII character; `\t` and `tab` mean the tab.
    ///
    /// # Errors
    /// For anything else.
    pub fn ascii(&self, name: &str) -> Result<Option<u8>> {
        self.get(name)
            .map(|v| match v.as_bytes() {
                [byte] if byte.is_ascii() => Ok(*byte),
                b"\\t" | b"tab" | b"TAB" => Ok(b'\t'),
                _ => Err(bad_value(name, v, "one ASCII character")),
            })
            .transpose()
    }

    /// Parses a duration: `200 ms`, `5s`, `1 minute`; a bare number is milliseconds.
    ///
    /// # Errors
    /// For anything else.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        self.get(name)
            .map(|v| {
                parse_duration(v)
                    .ok_or_else(|| bad_value(name, v, "a length of time such as '200 ms'"))
            })
            .transpose()
    }

    /// Parses one of several words.
    ///
    /// # Errors
    /// For any other word; the hint lists them.
    pub fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let word = value.trim().to_ascii_lowercase();
        if let Some((_, choice)) = words.iter().find(|(w, _)| *w == word) {
            return Ok(Some(*choice));
        }
        let known: Vec<String> = words.iter().map(|(w, _)| format!("'{w}'")).collect();
        Err(bad_value(name, value, &format!("one of {}", known.join(", "))))
    }

    /// Returns the names of columns of an option, which are separated by commas; none if it is not set.
    ///
    /// # Errors
    /// When a name is empty or occurs twice.
    pub(crate) fn columns(&self, option: &str) -> Result<Vec<String>> {
        let Some(text) = self.get(option) else { return Ok(vec![]) };
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let is_twice = |(at, name): (usize, &String)| names.iter().take(at).any(|n| n == name);
        if names.iter().any(String::is_empty) || names.iter().enumerate().any(is_twice) {
            return Err(bad_value(option, text, "different names of columns with commas"));
        }
        Ok(names)
    }
}

/// Returns the error for an invalid value of an option. `expected` continues "must be …".
pub fn bad_value(name: &str, value: &str, expected: &str) -> Error {
    Error::config(format!("option \"{name}\" must be {expected}, not \"{value}\""))
}

fn unknown_option(connector: &str, key: &str, known: &[OptionDoc]) -> Error {
    let names: Vec<&str> = known.iter().map(|doc| doc.name).collect();
    let error = Error::config(format!("unknown option \"{key}\" of connector \"{connector}\""));
    let error = match nearest(&key.to_ascii_lowercase(), &names) {
        Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
        None => error,
    };
    error.with_hint(format!("Known options of \"{connector}\": {}.", names.join(", ")))
}

/// Returns the word of `words` that `word` most likely means, if any is near enough.
pub(crate) fn nearest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    let near = words.iter().map(|w| (edit_distance(word, w), *w)).min_by_key(|(d, _)| *d)?;
    (near.0 <= (word.chars().count() / 3).max(2) && near.0 < near.1.len()).then_some(near.1)
}

/// The number of insertions, removals and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(ca != *cb)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Parses `200 ms`, `1.5 s` (not ISO 8601); a bare number is milliseconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim().to_ascii_lowercase().as_str() {
        "us" | "µs" | "microsecond" | "microseconds" => 1e-6,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[OptionDoc] = &[
        OptionDoc { name: "path", values: "a path", default: "", doc: "Where." },
        OptionDoc { name: "fields.*.min", values: "a number", default: "", doc: "Least." },
        OptionDoc { name: "aws_*", values: "a word", default: "", doc: "For S3." },
        OptionDoc { name: "poll", values: "a time", default: "", doc: "How often." },
    ];

    fn entries(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn unknown_options_name_the_nearest_and_list_all() {
        let given = entries(&[("paht", "x")]);
        let e = StreamOptions::try_new("file", &given, KNOWN).unwrap_err();
        assert_eq!(e.message(), "unknown option \"paht\" of connector \"file\"");
        assert_eq!(e.hints().first().unwrap(), "Did you mean \"path\"?");
        assert!(e.hints().last().unwrap().contains("path, fields.*.min"));
    }

    #[test]
    fn patterns_match_whole_families() {
        let given = entries(&[("fields.a.min", "1"), ("AWS_REGION", "eu"), ("path", "p")]);
        let options = StreamOptions::try_new("file", &given, KNOWN).unwrap();
        assert_eq!(options.get("aws_region"), Some("eu"));
        assert_eq!(options.number::<i64>("fields.a.min").unwrap(), Some(1));
        assert!(StreamOptions::try_new("file", &entries(&[("fields.min", "1")]), KNOWN).is_err());
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for key in [
            "sasl.password",
            "SECRET_ACCESS_KEY",
            "session_token",
            "ssl.key.pem",
            "aws_secret_access_key",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in [
            "path",
            "sasl.username",
            "ssl.key.location",
            "access_key_id",
            "sasl.oauthbearer.token.endpoint.url",
        ] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, millis) in [("200 ms", 200), ("5s", 5_000), ("1.5 minutes", 90_000), ("7", 7)] {
            let given = entries(&[("poll", text)]);
            let options = StreamOptions::try_new("file", &given, KNOWN).unwrap();
            assert_eq!(options.duration("poll").unwrap(), Some(Duration::from_millis(millis)));
        }
        let given = entries(&[("poll", "soon")]);
        let options = StreamOptions::try_new("file", &given, KNOWN).unwrap();
        assert!(options.duration("poll").is_err());
    }
}
