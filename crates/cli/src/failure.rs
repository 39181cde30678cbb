//! The outcome of a run that fails.

use std::io;
use std::process::ExitCode;

use windrow_core::{Error, ErrorKind};

/// The reason why a run stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error, with the text that it refers to (where there is one).
    Error {
        /// What went wrong.
        error: Error,
        /// Where the text came from and the line in it, as `file:line`.
        origin: Option<String>,
        /// The SQL that places in the error refer to.
        sql: String,
    },
    /// It has been reported already.
    Reported {
        /// The exit status.
        exit_code: u8,
    },
    /// The reader of stdout has closed it: not an error.
    ReaderLeft,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error { error, origin: None, sql: String::new() }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderLeft,
            _ => {
                let message = format!("cannot write results: {e}");
                Error::new(ErrorKind::Unavailable, message).with_source(e).into()
            }
        }
    }
}

impl Failure {
    /// The text for the user; `None` for a reader that left.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::ReaderLeft | Self::Reported { .. } => None,
            Self::Error { error, origin, sql } => {
                let origin = origin.as_ref().map(|o| format!("{o}: ")).unwrap_or_default();
                Some(format!("error: {origin}{}", error.render(sql)))
            }
        }
    }

    /// The exit status.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderLeft => 0,
            Self::Reported { exit_code } => *exit_code,
            Self::Error { error, .. } => error.kind().exit_code(),
        }
    }

    /// Writes the text to stderr and returns the exit status.
    #[expect(clippy::print_stderr, reason = "errors of the command line go there")]
    pub(crate) fn report(&self) -> ExitCode {
        if let Some(text) = self.text() {
            eprintln!("{text}");
        }
        ExitCode::from(self.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use windrow_core::Place;

    use super::*;

    #[test]
    fn errors_name_file_and_line() {
        let failure = Failure::Error {
            error: Error::sql("unknown column \"x\"").with_place(Place::at(2, 8)),
            origin: Some("a.sql:2".into()),
            sql: "SELECT 1;\nSELECT x".into(),
        };
        assert_eq!(
            failure.text().unwrap(),
            "error: a.sql:2: unknown column \"x\"\n  line 2: SELECT x\n                 ^"
        );
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn a_reader_that_leaves_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.text(), failure.exit_code()), (None, 0));
        assert_eq!(Failure::from(io::Error::other("disk full")).exit_code(), 4);
    }
}
