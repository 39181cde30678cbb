//! The values of one line of JSON, as slices of it: nothing is copied, nothing is converted.
//!
//! Everything is checked to be JSON, including what is not wanted; only raw control characters in strings are accepted.

use std::borrow::Cow;

/// Deeper nesting is refused: the parser is recursive.
const DEPTH_MAX: usize = 128;

/// A value as a slice of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    True,
    False,
    /// A valid JSON number.
    Number(&'a str),
    /// The text between the quotes.
    Text(&'a str),
    /// The same, containing escapes (all of them valid).
    Escaped(&'a str),
    /// From bracket to bracket.
    Object(&'a str),
    List(&'a str),
}

impl<'a> Value<'a> {
    /// Returns its text for a text column: strings without quotes, everything else as written. `None` for null.
    pub(crate) fn as_text(self) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Null => return None,
            Self::True => "true".into(),
            Self::False => "false".into(),
            Self::Number(text) | Self::Text(text) | Self::Object(text) | Self::List(text) => {
                text.into()
            }
            Self::Escaped(text) => unescaped(text).into(),
        })
    }
}

/// Why a text is not JSON.
pub(crate) type Wrong = &'static str;

/// A parser that reads values one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Whether only white space is left.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.at >= self.text.len()
    }

    /// Parses an object, and passes its keys and values to `each` in order.
    ///
    /// # Errors
    /// When it is not an object, and those of `each`.
    pub(crate) fn object<E: From<Wrong>>(
        &mut self,
        mut each: impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.members(0, &mut each)
    }

    fn members<E: From<Wrong>>(
        &mut self,
        depth: usize,
        each: &mut impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.skip_space();
        if !self.take(b'{') {
            return Err("an object was expected".into());
        }
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let key = match self.string()? {
                Value::Escaped(text) => Cow::Owned(unescaped(text)),
                Value::Text(text) => Cow::Borrowed(text),
                _ => return Err("a key was expected".into()),
            };
            self.skip_space();
            if !self.take(b':') {
                return Err("a colon was expected after a key".into());
            }
            let value = self.nested_value(depth)?;
            each(key, value)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err("a comma or the end of the object was expected".into());
            }
        }
    }

    /// Parses a list, and passes its items to `each` in order.
    ///
    /// # Errors
    /// When it is not a list, and those of `each`.
    pub(crate) fn list<E: From<Wrong>>(
        &mut self,
        mut each: impl FnMut(Value<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.items(0, &mut each)
    }

    fn items<E: From<Wrong>>(
        &mut self,
        depth: usize,
        each: &mut impl FnMut(Value<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.skip_space();
        if !self.take(b'[') {
            return Err("a list was expected".into());
        }
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            let value = self.nested_value(depth)?;
            each(value)?;
            self.skip_space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err("a comma or the end of the list was expected".into());
            }
        }
    }

    /// Parses any value.
    ///
    /// # Errors
    /// When it is not JSON.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Wrong> {
        self.nested_value(0)
    }

    fn nested_value(&mut self, depth: usize) -> Result<Value<'a>, Wrong> {
        self.skip_space();
        let start = self.at;
        if depth > DEPTH_MAX {
            return Err("it is nested too deeply");
        }
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => {
                self.members::<Wrong>(depth + 1, &mut |_, _| Ok(()))?;
                Ok(Value::Object(self.since(start)))
            }
            Some(b'[') => {
                self.items::<Wrong>(depth + 1, &mut |_| Ok(()))?;
                Ok(Value::List(self.since(start)))
            }
            Some(b't') => self.word("true", Value::True),
            Some(b'f') => self.word("false", Value::False),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err("a value was expected"),
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Wrong> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err("a value was expected");
        }
        self.at += word.len();
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Value<'a>, Wrong> {
        let start = self.at;
        self.take(b'-');
        let has_zero = self.peek() == Some(b'0');
        let whole = self.digits();
        let mut is_number = whole == 1 || whole > 1 && !has_zero;
        if self.take(b'.') {
            is_number &= self.digits() > 0;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            is_number &= self.digits() > 0;
        }
        if is_number { Ok(Value::Number(self.since(start))) } else { Err("a number is wrong") }
    }

    fn string(&mut self) -> Result<Value<'a>, Wrong> {
        if !self.take(b'"') {
            return Err("a string was expected");
        }
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut is_escaped = false;
        loop {
            self.at = quote_or_backslash(bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    let text = self.since(start);
                    self.at += 1;
                    return Ok(if is_escaped { Value::Escaped(text) } else { Value::Text(text) });
                }
                Some(_) => {
                    is_escaped = true;
                    let escape = bytes.get(self.at..).unwrap_or_default();
                    let (_, length) = unescape(escape).ok_or("an escape in a string is wrong")?;
                    self.at += length;
                }
                None => return Err("a string is not closed"),
            }
        }
    }
}

/// Finds the next quote or backslash, or the end: eight bytes at a time.
fn quote_or_backslash(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    // The lowest bit that is set belongs to the first byte that is zero.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight);
        let found =
            zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\') {
            break;
        }
        at += 1;
    }
    at
}

/// Returns the meaning of the escape at the beginning of `text`, and its length.
fn unescape(text: &[u8]) -> Option<(char, usize)> {
    let plain = match text.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = hex(text.get(2..6)?)?;
            if !(0xD800..0xE000).contains(&first) {
                return Some((char::from_u32(first)?, 6));
            }
            let second = text.get(6..12)?.strip_prefix(b"\\u").and_then(hex)?;
            let is_pair = first < 0xDC00 && (0xDC00..0xE000).contains(&second);
            let code = is_pair.then(|| 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00))?;
            return Some((char::from_u32(code)?, 12));
        }
        _ => return None,
    };
    Some((plain, 2))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + (*digit as char).to_digit(16)?))
}

/// Resolves the escapes of a string, which have been checked.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, _)) = rest.split_once('\\') {
        plain.push_str(before);
        rest = rest.get(before.len()..).unwrap_or_default();
        let Some((meant, length)) = unescape(rest.as_bytes()) else { break };
        plain.push(meant);
        rest = rest.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Value<'_>, Wrong> {
        let mut cursor = Cursor::new(text);
        let value = cursor.value()?;
        if cursor.is_at_end() { Ok(value) } else { Err("there is more") }
    }

    #[test]
    fn values_stand_as_they_are() {
        for (text, value) in [
            (" null ", Value::Null),
            ("true", Value::True),
            ("-0", Value::Number("-0")),
            ("12345678901234567890", Value::Number("12345678901234567890")),
            ("1.50e+3", Value::Number("1.50e+3")),
            ("\"\"", Value::Text("")),
            ("\"abcdefgh\u{e9}ij\"", Value::Text("abcdefgh\u{e9}ij")),
            (r#""a\"b""#, Value::Escaped(r#"a\"b"#)),
            (r#" {"a" : [1, {}] } "#, Value::Object(r#"{"a" : [1, {}] }"#)),
            ("[ ]", Value::List("[ ]")),
        ] {
            assert_eq!(one(text), Ok(value), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "007",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "NaN",
            "nul",
            "\"",
            "\"a",
            r#""\x""#,
            r#""\u12""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            "[1,]",
            "[1 2]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "1 2",
            "[}",
            "{\"a\":1]",
        ] {
            assert!(one(text).is_err(), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
        assert!(one(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn strings_are_unescaped_as_serde_does() {
        for text in [
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u00e9\ud83d\ude00x""#,
            r#""no escapes, long enough for words""#,
            r#""\u0000""#,
            r#""a\\""#,
        ] {
            let ours = one(text).unwrap().as_text().unwrap().into_owned();
            assert_eq!(ours, serde_json::from_str::<String>(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn a_quote_is_found_wherever_it_stands() {
        for length in 0..40 {
            for at in 0..length {
                for quote in [b'"', b'\\'] {
                    let mut bytes = vec![b'#'; length];
                    bytes[at] = quote;
                    // The byte behind differs in one bit: it must not match.
                    if let Some(next) = bytes.get_mut(at + 1) {
                        *next = quote ^ 1;
                    }
                    assert_eq!(quote_or_backslash(&bytes, 0), at);
                    assert_eq!(quote_or_backslash(&bytes, at + 1), length);
                }
            }
        }
    }
}
