//! Patterns of times: PostgreSQL's (`YYYY-MM-DD HH24:MI`), Java's (`yyyy-MM-dd HH:mm`, as Flink and
//! Spark have them), MySQL's (`%Y-%m-%d %H:%i`) and chrono's (`%Y-%m-%d %H:%M`).
//!
//! A pattern with `%` is chrono's, or MySQL's if it has `%i`, which only MySQL has. Between the others, parts that only
//! one of them has decide; a pattern that could be either is what the function prefers ([`Family`]).
//!
//! Invariant: a letter that is in no family of patterns is an error, never text.

use windrow_core::{Error, ErrorKind, Result};

/// The family of patterns that a function prefers if both are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    /// `to_char`, `to_date`, `to_timestamp`.
    Postgres,
    /// `date_format`.
    Java,
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Literal text.
    Text(String),
    /// A part in chrono's form.
    Chrono(&'static str),
    /// A name of a month or a day, in this case, padded with blanks to a width.
    Name { chrono: &'static str, case: Case, width: usize },
    /// Before or after noon.
    Meridiem { upper: bool, dots: bool },
    /// A number that chrono does not support.
    Number(Number),
}

/// The case of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Lower,
    Title,
}

/// Numbers that chrono does not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Quarter,
    /// Sunday is 1.
    DayOfWeek,
    /// The first week begins on the first day of the year.
    WeekOfYear,
    WeekOfMonth,
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// chrono's own, unchanged.
    Chrono(String),
    Pieces(Vec<Piece>),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// When it has a part that is in no family of patterns.
    pub(super) fn read(text: &str, prefer: Family) -> Result<Self> {
        if text.contains('%') {
            if !text.contains("%i") {
                return Ok(Self::Chrono(text.to_owned()));
            }
            return mysql(text).map(Self::Pieces);
        }
        match family(text, prefer) {
            Family::Postgres => postgres(text),
            Family::Java => java(text),
        }
        .map(Self::Pieces)
    }

    /// The same as a pattern of chrono's, for parsing times.
    ///
    /// # Errors
    /// When it has a part that does not determine a time.
    pub(super) fn to_chrono(&self) -> Result<String> {
        let pieces = match self {
            Self::Chrono(text) => return Ok(text.clone()),
            Self::Pieces(pieces) => pieces,
        };
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(&text.replace('%', "%%")),
                Piece::Chrono(chrono) | Piece::Name { chrono, .. } => out.push_str(chrono),
                Piece::Meridiem { dots: false, .. } => out.push_str("%p"),
                Piece::Meridiem { dots: true, .. } | Piece::Number(_) => {
                    return Err(Error::new(
                        ErrorKind::Data,
                        "the pattern has a part that does not tell a time",
                    )
                    .with_hint("Quarters, weeks and \"a.m.\" can be written, not read."));
                }
            }
        }
        Ok(out)
    }
}

/// The family of a pattern.
fn family(text: &str, prefer: Family) -> Family {
    let bare: String = unquoted(text);
    let has = |word: &str| bare.contains(word);
    let upper_day = has("YYYY") && has("DD");
    if has("HH24")
        || has("HH12")
        || has("hh24")
        || has("hh12")
        || has("MI")
        || has("mi")
        || has("FM")
        || has("US")
        || upper_day
    {
        return Family::Postgres;
    }
    // In Java, months and hours are in capitals; days, minutes and seconds are not.
    let capitals = bare.contains(['M', 'H', 'E', 'S']);
    let small = bare.contains(['y', 'd', 'm', 's']);
    if (capitals && small) || text.contains('\'') { Family::Java } else { prefer }
}

/// A pattern without its quoted text.
fn unquoted(text: &str) -> String {
    let mut quote = None;
    text.chars()
        .filter(|c| match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(*c);
                false
            }
            (Some(q), c) if q == *c => {
                quote = None;
                false
            }
            (quote, _) => quote.is_none(),
        })
        .collect()
}

fn unknown(part: &str, pattern: &str, hint: &str) -> Error {
    Error::new(ErrorKind::Data, format!("\"{part}\" in the pattern '{pattern}' means nothing"))
        .with_hint(hint)
}

/// The parts of PostgreSQL's patterns; longer ones precede their prefixes.
const POSTGRES: &[(&str, &str)] = &[
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("HH", "%I"),
    ("MI", "%M"),
    ("SS", "%S"),
    ("MS", "%3f"),
    ("US", "%6f"),
    ("FF3", "%3f"),
    ("FF6", "%6f"),
    ("YYYY", "%Y"),
    ("YY", "%y"),
    ("IYYY", "%G"),
    ("IW", "%V"),
    ("ID", "%u"),
    ("MM", "%m"),
    ("DDD", "%j"),
    ("DD", "%d"),
    ("TZH", "%:::z"),
    ("TZ", "%Z"),
    ("OF", "%:z"),
];

/// The same without leading zeros, after FM.
const POSTGRES_SHORT: &[(&str, &str)] = &[
    ("HH24", "%-H"),
    ("HH12", "%-I"),
    ("HH", "%-I"),
    ("MI", "%-M"),
    ("SS", "%-S"),
    ("MM", "%-m"),
    ("DDD", "%-j"),
    ("DD", "%-d"),
];

const POSTGRES_HINT: &str = "PostgreSQL's patterns have YYYY, MM, DD, HH24, HH12, MI, SS, MS, US, AM, \
                             Month, Mon, Day, Dy, TZ and OF; literal text is in double quotes.";

fn postgres(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = vec![];
    let mut rest = text;
    let mut short = false;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let (inside, after) = quoted(rest, '"', text)?;
            pieces.push(Piece::Text(inside));
            rest = after;
            continue;
        }
        if !c.is_ascii_alphanumeric() {
            pieces.push(Piece::Text(c.to_string()));
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            continue;
        }
        let begins = |word: &str| {
            rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        if begins("FM") {
            short = true;
            rest = rest.get(2..).unwrap_or_default();
            continue;
        }
        let (piece, len) = if let Some(found) = postgres_name(rest, short) {
            found
        } else if let Some((word, chrono)) =
            POSTGRES_SHORT.iter().filter(|_| short).chain(POSTGRES).find(|(w, _)| begins(w))
        {
            (Piece::Chrono(chrono), word.len())
        } else {
            let number = [
                ("WW", Number::WeekOfYear),
                ("W", Number::WeekOfMonth),
                ("Q", Number::Quarter),
                ("D", Number::DayOfWeek),
            ];
            match number.iter().find(|(w, _)| begins(w)) {
                Some((word, number)) => (Piece::Number(*number), word.len()),
                None => return Err(unknown(&word_of(rest), text, POSTGRES_HINT)),
            }
        };
        short = false;
        pieces.push(piece);
        rest = rest.get(len..).unwrap_or_default();
        // DDTH means "1st" there.
        if rest.get(..2).is_some_and(|t| t.eq_ignore_ascii_case("TH")) {
            return Err(unknown(
                "TH",
                text,
                "Put text into double quotes: YYYY-MM-DD\"T\"HH24:MI.",
            ));
        }
    }
    Ok(pieces)
}

/// Names, in the case of the pattern.
fn postgres_name(rest: &str, short: bool) -> Option<(Piece, usize)> {
    let dotted = ["A.M.", "P.M."];
    let plain = ["AM", "PM"];
    for (words, dots) in [(dotted, true), (plain, false)] {
        for word in words {
            let Some(start) = rest.get(..word.len()) else { continue };
            if start.eq_ignore_ascii_case(word) {
                let upper = start.starts_with(char::is_uppercase);
                return Some((Piece::Meridiem { upper, dots }, word.len()));
            }
        }
    }
    let names = [("MONTH", "%B", 9), ("MON", "%b", 0), ("DAY", "%A", 9), ("DY", "%a", 0)];
    for (word, chrono, width) in names {
        let Some(start) = rest.get(..word.len()) else { continue };
        if start.eq_ignore_ascii_case(word) {
            let mut letters = start.chars();
            let first = letters.next().is_some_and(char::is_uppercase);
            let second = letters.next().is_some_and(char::is_uppercase);
            let case = match (first, second) {
                (true, true) => Case::Upper,
                (true, false) => Case::Title,
                (false, _) => Case::Lower,
            };
            let width = if short { 0 } else { width };
            return Some((Piece::Name { chrono, case, width }, word.len()));
        }
    }
    None
}

const JAVA_HINT: &str = "Java's patterns have yyyy, MM, dd, HH, hh, mm, ss, SSS, a, MMM, EEE, XXX and \
                         VV; literal text is in single quotes.";

fn java(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = vec![];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            let (inside, after) = quoted(rest, '\'', text)?;
            pieces.push(Piece::Text(if inside.is_empty() { "'".to_owned() } else { inside }));
            rest = after;
            continue;
        }
        if !c.is_ascii_alphabetic() {
            pieces.push(Piece::Text(c.to_string()));
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            continue;
        }
        let count = rest.chars().take_while(|next| *next == c).count();
        let (word, after) = rest.split_at(count);
        pieces.push(java_letters(c, count).ok_or_else(|| match c {
            'Y' => unknown(word, text, "Y is the year of the week in Java; write yyyy."),
            _ => unknown(word, text, JAVA_HINT),
        })?);
        rest = after;
    }
    Ok(pieces)
}

fn java_letters(letter: char, count: usize) -> Option<Piece> {
    let name = |chrono| Piece::Name { chrono, case: Case::Title, width: 0 };
    Some(match (letter, count) {
        ('y' | 'u', 1 | 3 | 4) => Piece::Chrono("%Y"),
        ('y' | 'u', 2) => Piece::Chrono("%y"),
        ('M' | 'L', 1) => Piece::Chrono("%-m"),
        ('M' | 'L', 2) => Piece::Chrono("%m"),
        ('M' | 'L', 3) => name("%b"),
        ('M' | 'L', 4) => name("%B"),
        ('d', 1) => Piece::Chrono("%-d"),
        ('d', 2) => Piece::Chrono("%d"),
        ('D', 1) => Piece::Chrono("%-j"),
        ('D', 3) => Piece::Chrono("%j"),
        ('H', 1) => Piece::Chrono("%-H"),
        ('H', 2) => Piece::Chrono("%H"),
        ('h', 1) => Piece::Chrono("%-I"),
        ('h', 2) => Piece::Chrono("%I"),
        ('m', 1) => Piece::Chrono("%-M"),
        ('m', 2) => Piece::Chrono("%M"),
        ('s', 1) => Piece::Chrono("%-S"),
        ('s', 2) => Piece::Chrono("%S"),
        ('S', 3) => Piece::Chrono("%3f"),
        ('S', 6) => Piece::Chrono("%6f"),
        ('S', 9) => Piece::Chrono("%9f"),
        ('a', 1) => Piece::Meridiem { upper: true, dots: false },
        ('E', 1..=3) => name("%a"),
        ('E', 4) => name("%A"),
        ('e', 1) => Piece::Chrono("%u"),
        ('Q' | 'q', 1) => Piece::Number(Number::Quarter),
        ('z', 1..=3) | ('V', 2) => Piece::Chrono("%Z"),
        ('Z' | 'x', 1..=2) => Piece::Chrono("%z"),
        ('X' | 'x', 3) => Piece::Chrono("%:z"),
        _ => return None,
    })
}

const MYSQL_HINT: &str = "MySQL's patterns have %Y, %y, %m, %c, %d, %e, %H, %h, %i, %s, %f, %p, %M, \
                          %b, %W, %a, %j and %T.";

fn mysql(text: &str) -> Result<Vec<Piece>> {
    let name = |chrono| Piece::Name { chrono, case: Case::Title, width: 0 };
    let mut pieces = vec![];
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        if c != '%' {
            pieces.push(Piece::Text(c.to_string()));
            continue;
        }
        let letter = letters.next();
        pieces.push(match letter {
            Some('Y') => Piece::Chrono("%Y"),
            Some('y') => Piece::Chrono("%y"),
            Some('m') => Piece::Chrono("%m"),
            Some('c') => Piece::Chrono("%-m"),
            Some('d') => Piece::Chrono("%d"),
            Some('e') => Piece::Chrono("%-d"),
            Some('H') => Piece::Chrono("%H"),
            Some('k') => Piece::Chrono("%-H"),
            Some('h' | 'I') => Piece::Chrono("%I"),
            Some('l') => Piece::Chrono("%-I"),
            Some('i') => Piece::Chrono("%M"),
            Some('s' | 'S') => Piece::Chrono("%S"),
            Some('f') => Piece::Chrono("%6f"),
            Some('p') => Piece::Meridiem { upper: true, dots: false },
            Some('j') => Piece::Chrono("%j"),
            Some('T') => Piece::Chrono("%H:%M:%S"),
            Some('r') => Piece::Chrono("%I:%M:%S %p"),
            Some('w') => Piece::Chrono("%w"),
            Some('M') => name("%B"),
            Some('b') => name("%b"),
            Some('W') => name("%A"),
            Some('a') => name("%a"),
            Some('%') => Piece::Text("%".to_owned()),
            other => {
                let part = format!("%{}", other.map(String::from).unwrap_or_default());
                return Err(unknown(&part, text, MYSQL_HINT));
            }
        });
    }
    Ok(pieces)
}

/// The quoted text at the beginning, and the rest after it.
fn quoted<'a>(rest: &'a str, quote: char, pattern: &str) -> Result<(String, &'a str)> {
    let inside = rest.get(1..).unwrap_or_default();
    match inside.split_once(quote) {
        Some((text, after)) => Ok((text.to_owned(), after)),
        None => Err(unknown(rest, pattern, "A quote is not closed.")),
    }
}

/// The letters at the beginning.
fn word_of(rest: &str) -> String {
    rest.chars().take_while(char::is_ascii_alphanumeric).collect()
}
