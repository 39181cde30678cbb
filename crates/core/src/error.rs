//! Errors as shown to users: message, place in the SQL, hint.
//!
//! Crates keep precise error enums internally; what leaves a crate is this one [`Error`]. A new [`ErrorKind`] is
//! justified only when the caller would *act* differently.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

/// The result of everything that can fail in Windrow.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The action that an error calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The statement is wrong: edit the SQL.
    Sql,
    /// An option or a setting is wrong: edit it.
    Config,
    /// A named object does not exist.
    NotFound,
    /// A named object already exists.
    Exists,
    /// An external system does not respond: wait and try again.
    Unavailable,
    /// Data cannot be read as declared.
    Data,
    /// A named limit was reached: raise it, or slow the source.
    Limit,
    /// Stored data is damaged.
    Corrupt,
    /// No valid login, or it has expired: log in (again).
    Unauthenticated,
    /// The user who is logged in may not do this: ask an administrator.
    Denied,
    /// The query was cancelled by its user.
    Cancelled,
    /// A bug in Windrow: please report it.
    Internal,
}

impl ErrorKind {
    /// The exit status of the command line for this kind (`sysexits`-like; 70 is a bug in Windrow).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Sql | Self::Config | Self::NotFound | Self::Exists => 2,
            Self::Unauthenticated | Self::Denied => 2,
            Self::Data | Self::Limit | Self::Corrupt => 3,
            Self::Unavailable => 4,
            Self::Internal => 70,
            Self::Cancelled => 130,
        }
    }
}

/// A place in the SQL text: 1-based line and column (in characters) of its first and one past
/// its last character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// First line, from 1.
    pub line: usize,
    /// First column, from 1, in characters.
    pub column: usize,
    /// Line of the end, from 1.
    pub end_line: usize,
    /// Column one past the last character.
    pub end_column: usize,
}

impl Place {
    /// Returns a place one character wide.
    pub fn at(line: usize, column: usize) -> Self {
        Self { line, column, end_line: line, end_column: column + 1 }
    }
}

/// An error for people. Its [`Display`](fmt::Display) prints the message only; the command line
/// adds detail, the SQL with a caret, and the hints.
#[derive(Debug)]
pub struct Error(Box<Parts>);

/// What an [`Error`] holds; boxed, so that a result that carries one stays small.
#[derive(Debug)]
struct Parts {
    kind: ErrorKind,
    message: String,
    detail: Option<String>,
    hints: Vec<String>,
    place: Option<Place>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Returns a new error. `message` is lower case, without a full stop, and names the object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            message: message.into(),
            detail: None,
            hints: vec![],
            place: None,
            source: None,
        }))
    }

    /// Returns an error for a wrong statement.
    pub fn sql(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Sql, message)
    }

    /// Returns an error for a wrong option or setting.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Returns an error for data that cannot be read as declared.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Returns an error for a bug in Windrow.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Returns an error for a bug in Windrow: `what` was unwound by a panic with the payload `panic`.
    ///
    /// ```
    /// let panic = std::panic::catch_unwind(|| { Vec::<u8>::with_capacity(usize::MAX); }).unwrap_err();
    /// let e = windrow_core::Error::panicked("the statement", &*panic);
    /// assert_eq!(e.message(), "the statement stopped at a panic: capacity overflow");
    /// assert_eq!(e.kind(), windrow_core::ErrorKind::Internal);
    /// ```
    pub fn panicked(what: &str, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let said = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let said = said.and_then(|said| said.lines().next()).unwrap_or("without a message");
        Self::internal(format!("{what} stopped at a panic: {said}")).with_hint(
            "This is a bug in Windrow; please report it with the statement and the place that the log has.",
        )
    }

    /// Adds a full sentence that explains more.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds something that the user can do, as a full sentence.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Sets the place in the SQL.
    #[must_use]
    pub fn with_place(mut self, place: Place) -> Self {
        self.0.place = Some(place);
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The action that the error calls for.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// A full sentence that explains more.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// What the user can do.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    /// The place in the SQL, if known.
    pub fn place(&self) -> Option<Place> {
        self.0.place
    }

    /// Renders the message, the line of `sql` with a caret under the place, the detail and the hints: the text that
    /// every surface shows.
    ///
    /// ```
    /// use windrow_core::{Error, Place};
    /// let e = Error::sql("unknown column \"x\"")
    ///     .with_place(Place { line: 1, column: 8, end_line: 1, end_column: 9 })
    ///     .with_hint("Known columns: a, b.");
    /// assert_eq!(
    ///     e.render("SELECT x FROM t"),
    ///     "unknown column \"x\"\n  line 1: SELECT x FROM t\n                 ^\nhint: Known columns: a, b."
    /// );
    /// ```
    pub fn render(&self, sql: &str) -> String {
        let mut out = self.0.message.clone();
        if let Some((place, line)) =
            self.0.place.and_then(|p| Some((p, sql.lines().nth(p.line.checked_sub(1)?)?)))
        {
            out.push_str(&quote_line(place, line));
        }
        if let Some(detail) = &self.0.detail {
            out.push_str(&format!("\ndetail: {detail}"));
        }
        for hint in &self.0.hints {
            out.push_str(&format!("\nhint: {hint}"));
        }
        out
    }
}

/// The line of SQL with carets under the place; a long line is cut around the place.
fn quote_line(place: Place, line: &str) -> String {
    const WIDTH_MAX: usize = 96;
    let chars: Vec<char> = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let from = place.column.saturating_sub(1).min(chars.len());
    let to =
        if place.end_line == place.line { place.end_column.saturating_sub(1) } else { chars.len() };
    let first = if chars.len() > WIDTH_MAX { from.saturating_sub(WIDTH_MAX / 2) } else { 0 };
    let shown: String = chars.iter().skip(first).take(WIDTH_MAX).collect();
    let prefix = format!("  line {}: {}", place.line, if first > 0 { "…" } else { "" });
    let carets = to.saturating_sub(from).clamp(1, WIDTH_MAX.saturating_sub(from - first).max(1));
    format!(
        "\n{prefix}{shown}\n{}{}",
        " ".repeat(prefix.chars().count() + from - first),
        "^".repeat(carets)
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError as A;
        let kind = match &e {
            A::IoError(..) | A::ExternalError(_) => ErrorKind::Unavailable,
            A::MemoryError(_) => ErrorKind::Limit,
            A::InvalidArgumentError(_) | A::NotYetImplemented(_) | A::CDataInterface(_) => {
                ErrorKind::Internal
            }
            _ => ErrorKind::Data,
        };
        Self::new(kind, e.to_string()).with_source(e)
    }
}
