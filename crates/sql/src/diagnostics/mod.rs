//! Converts DataFusion's errors into Windrow's, and finds near matches for unknown names.
//!
//! Invariants: nothing here panics, whatever the error; a user's mistake is never reported as a bug; one of our own
//! errors that passed through DataFusion comes out unchanged.

mod messages;
mod near;
#[cfg(test)]
mod tests;
mod words;

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::{Column, Diagnostic, SchemaError, Span};
use datafusion::error::DataFusionError;
use tokio::task::JoinError;
use windrow_core::{Error, ErrorKind, Place};

use self::messages::{Reworded, between, reworded};
use self::words::in_sql;
pub use near::{did_you_mean, nearest};

/// How many layers are unwrapped in search of the cause.
const LAYERS_MAX: usize = 64;

/// Converts an error of DataFusion: with a kind that says who can act, the place in the SQL where DataFusion has it,
/// and near matches for unknown names.
pub fn from_datafusion(error: DataFusionError) -> Error {
    let mut outside = Outside::default();
    let converted = convert(error, &mut outside);
    let Outside { place, hints } = outside;
    let converted = match place {
        Some(place) if converted.place().is_none() => converted.with_place(place),
        _ => converted,
    };
    if converted.hints().is_empty() {
        hints.into_iter().fold(converted, Error::with_hint)
    } else {
        converted
    }
}

/// What the layers around the cause say.
#[derive(Default)]
struct Outside {
    place: Option<Place>,
    hints: Vec<String>,
}

impl Outside {
    fn add(&mut self, diagnostic: &Diagnostic) {
        self.place = self.place.or(diagnostic.span.and_then(place_of));
        if self.hints.is_empty() {
            self.hints = diagnostic.helps.iter().map(|h| sentence(&h.message)).collect();
        }
    }
}

/// Unwraps the layers one by one and converts the cause.
fn convert(mut error: DataFusionError, outside: &mut Outside) -> Error {
    for _ in 0..LAYERS_MAX {
        error = match error {
            DataFusionError::Context(_, inner) => *inner,
            DataFusionError::Diagnostic(diagnostic, inner) => {
                outside.add(&diagnostic);
                *inner
            }
            DataFusionError::Collection(mut errors) if !errors.is_empty() => errors.swap_remove(0),
            DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
                Ok(inner) => inner,
                Err(shared) => return from_shared(&shared, outside),
            },
            DataFusionError::ArrowError(arrow, _) => match *arrow {
                ArrowError::ExternalError(external) => match unwrap_external(external) {
                    Ok(inner) => inner,
                    Err(ours) => return ours,
                },
                arrow => return from_arrow(&arrow),
            },
            DataFusionError::External(external) => match unwrap_external(external) {
                Ok(inner) => inner,
                Err(ours) => return ours,
            },
            cause => return from_cause(cause),
        };
    }
    from_cause(error)
}

/// DataFusion's error in a box, or one of ours.
fn unwrap_external(external: Box<dyn StdError + Send + Sync>) -> Result<DataFusionError, Error> {
    let external = match external.downcast::<Error>() {
        Ok(ours) => return Err(*ours),
        Err(other) => other,
    };
    let external = match external.downcast::<DataFusionError>() {
        Ok(engine) => return Ok(*engine),
        Err(other) => other,
    };
    if let Some(ours) = ours_below(external.as_ref()) {
        return Err(copied(ours));
    }
    if let Some(end) = task_end(external.as_ref()) {
        return Err(end);
    }
    match external.downcast::<ArrowError>() {
        Ok(arrow) => Ok(DataFusionError::ArrowError(arrow, None)),
        Err(other) => {
            if let Some(error) = in_our_words(ErrorKind::Unavailable, &other.to_string()) {
                return Err(error.with_source(other));
            }
            let message = first_line(&other.to_string());
            Err(Error::new(ErrorKind::Unavailable, message).with_source(other))
        }
    }
}

/// One of our errors, wrapped in those of the libraries that it passed through.
fn ours_below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut at = Some(error);
    for _ in 0..LAYERS_MAX {
        let error = at?;
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        at = error.source();
    }
    None
}

/// An error that is shared: it cannot be taken apart, so what matters is copied.
fn from_shared(mut error: &DataFusionError, outside: &mut Outside) -> Error {
    for _ in 0..LAYERS_MAX {
        error = match error {
            DataFusionError::Context(_, inner) => inner,
            DataFusionError::Shared(inner) => inner,
            DataFusionError::Diagnostic(diagnostic, inner) => {
                outside.add(diagnostic);
                inner
            }
            DataFusionError::Collection(errors) => match errors.first() {
                Some(first) => first,
                None => break,
            },
            DataFusionError::External(external) => {
                if let Some(ours) = external.downcast_ref::<Error>() {
                    return copied(ours);
                }
                match external.downcast_ref::<DataFusionError>() {
                    Some(inner) => inner,
                    None => break,
                }
            }
            DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
                ArrowError::ExternalError(external) => {
                    if let Some(ours) = external.downcast_ref::<Error>() {
                        return copied(ours);
                    }
                    match external.downcast_ref::<DataFusionError>() {
                        Some(inner) => inner,
                        None => {
                            let end = task_end(external.as_ref());
                            return end.unwrap_or_else(|| plain(error));
                        }
                    }
                }
                arrow => return from_arrow(arrow),
            },
            _ => break,
        };
    }
    ours_below(error).map_or_else(|| plain(error), copied)
}

fn copied(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message());
    if let Some(detail) = error.detail() {
        copy = copy.with_detail(detail);
    }
    if let Some(place) = error.place() {
        copy = copy.with_place(place);
    }
    error.hints().iter().cloned().fold(copy, Error::with_hint)
}

fn from_cause(error: DataFusionError) -> Error {
    if let Some(ours) = ours_below(&error) {
        return copied(ours);
    }
    plain(&error).with_source(error)
}

/// Converts the cause itself, without any layers.
fn plain(error: &DataFusionError) -> Error {
    let new = |kind, text: &str| Error::new(kind, tidy(text));
    match error {
        DataFusionError::SchemaError(schema, _) => from_schema(schema),
        DataFusionError::Plan(text) => from_plan(text),
        DataFusionError::SQL(parser, _) => new(ErrorKind::Sql, &parser.to_string()),
        DataFusionError::NotImplemented(text) => match in_our_words(ErrorKind::Sql, text) {
            Some(error) => error,
            None => new(ErrorKind::Sql, text).with_hint("This is not supported; rewrite it."),
        },
        DataFusionError::Configuration(text) => new(ErrorKind::Config, text),
        DataFusionError::ResourcesExhausted(text) => new(ErrorKind::Limit, text).with_hint(
            "Raise the limit (--memory-limit), use shorter windows, or group by fewer keys.",
        ),
        DataFusionError::ObjectStore(store) => new(ErrorKind::Unavailable, &store.to_string()),
        DataFusionError::IoError(io) => {
            let kind = match io.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                    ErrorKind::Data
                }
                _ => ErrorKind::Unavailable,
            };
            new(kind, &io.to_string())
        }
        DataFusionError::ParquetError(parquet) => new(ErrorKind::Data, &parquet.to_string()),
        DataFusionError::ArrowError(arrow, _) => from_arrow(arrow),
        DataFusionError::Execution(text) => match panic_in(text) {
            Some(said) => Error::panicked("the statement", &said),
            None => from_execution(text),
        },
        DataFusionError::Internal(text) => new(ErrorKind::Internal, text)
            .with_hint("This is a bug in Windrow; please report it with the statement."),
        DataFusionError::External(external) => match task_end(external.as_ref()) {
            Some(end) => end,
            None => new(ErrorKind::Unavailable, &external.to_string()),
        },
        DataFusionError::ExecutionJoin(task) => from_task(task),
        DataFusionError::Substrait(text) | DataFusionError::Ffi(text) => {
            new(ErrorKind::Internal, text)
        }
        // Only layers without a cause are left; printing an empty collection would panic.
        _ => Error::internal("the engine failed without saying why"),
    }
}

/// The reason why a task ended early, if an error of the libraries contains one. It is shared where several readers
/// wait for the task, as the partitions behind a repartition do.
fn task_end(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut at = Some(error);
    for _ in 0..LAYERS_MAX {
        let Some(error) = at else { break };
        let shared = || error.downcast_ref::<Arc<JoinError>>().map(AsRef::as_ref);
        if let Some(end) = error.downcast_ref::<JoinError>().or_else(shared) {
            return Some(from_task(end));
        }
        at = error.source();
    }
    panic_in(&error.to_string()).map(|said| Error::panicked("the statement", &said))
}

/// The error for a task of a plan that ended early: it panicked, or it was aborted.
fn from_task(end: &JoinError) -> Error {
    if end.is_cancelled() {
        return Error::new(ErrorKind::Cancelled, "the statement was cancelled");
    }
    let text = end.to_string();
    Error::panicked("the statement", &panic_in(&text).unwrap_or(text))
}

/// The panic message inside the text of a `JoinError`, where it is quoted as Rust quotes a string.
fn panic_in(text: &str) -> Option<String> {
    let (_, written) = text.split_once("panicked with message \"")?;
    let mut said = String::new();
    let mut written = written.chars();
    while let Some(c) = written.next() {
        match c {
            '"' => break,
            '\\' => match written.next() {
                Some('n') => said.push('\n'),
                Some(escaped) => said.push(escaped),
                None => break,
            },
            c => said.push(c),
        }
    }
    Some(said)
}

fn from_arrow(error: &ArrowError) -> Error {
    let text = error.to_string();
    if matches!(error, ArrowError::OffsetOverflowError(_)) || overflows(&text) {
        return too_much_in_a_batch();
    }
    let kind = match error {
        ArrowError::NotYetImplemented(_) => ErrorKind::Sql,
        ArrowError::MemoryError(_) => ErrorKind::Limit,
        ArrowError::IoError(..) => ErrorKind::Unavailable,
        ArrowError::SchemaError(_) | ArrowError::InvalidArgumentError(_) => ErrorKind::Data,
        ArrowError::CDataInterface(_) => ErrorKind::Internal,
        _ => ErrorKind::Data,
    };
    if let Some(error) = in_our_words(kind, &text) {
        return error;
    }
    let error = Error::new(kind, tidy(&text));
    if text.starts_with("Cast error") || text.starts_with("Parser error") {
        return error.with_hint("Use TRY_CAST to get NULL where a value does not fit.");
    }
    error
}

/// Whether a library reports that a column exceeds what its offsets can address.
fn overflows(text: &str) -> bool {
    ["offset overflow", "string size overflow"].iter().any(|said| text.contains(said))
}

/// The error for a column that holds more in one batch than 32-bit offsets can address.
fn too_much_in_a_batch() -> Error {
    let max = i32::MAX;
    Error::new(
        ErrorKind::Limit,
        format!("a column has more than {max} bytes or elements in one batch of rows"),
    )
    .with_hint(
        "Make batches smaller (SET datafusion.execution.batch_size = 256), or cut long values.",
    )
}

fn from_execution(text: &str) -> Error {
    if overflows(text) {
        return too_much_in_a_batch();
    }
    // Functions report bad values as plain execution errors.
    in_our_words(ErrorKind::Data, text).unwrap_or_else(|| Error::new(ErrorKind::Data, tidy(text)))
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let qualified = |c: &Column| c.flat_name();
            let known: Vec<String> = if field.relation.is_some() {
                valid_fields.iter().map(qualified).collect()
            } else {
                // Two relations may have the same column; it is listed once.
                let mut names: Vec<String> = vec![];
                for c in valid_fields {
                    if !names.contains(&c.name) {
                        names.push(c.name.clone());
                    }
                }
                names
            };
            let name = qualified(field);
            let error = Error::sql(format!("unknown column \"{name}\""));
            let exact = known.iter().find(|k| k.eq_ignore_ascii_case(&name));
            let error = match exact {
                Some(k) => error.with_hint(format!("Write it in double quotes: \"{k}\".")),
                None if known.is_empty() => error,
                None => error.with_hint(did_you_mean(
                    &name,
                    known.iter().map(String::as_str),
                    "columns",
                )),
            };
            match field.spans().first().and_then(place_of) {
                Some(place) => error.with_place(place),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            let error = Error::sql(format!("column \"{}\" is ambiguous", field.name))
                .with_hint("Put the name or alias of its relation before it.");
            match field.spans().first().and_then(place_of) {
                Some(place) => error.with_place(place),
                None => error,
            }
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::sql(format!("two columns are named \"{name}\""))
                .with_hint("Give one of them another name with AS.")
        }
    }
}

fn from_plan(text: &str) -> Error {
    if let Some(name) = between(text, "table '", "' not found") {
        // The user wrote neither the catalog nor the schema; they are the engine's defaults.
        let short = name
            .strip_prefix("datafusion.public.")
            .or_else(|| name.strip_prefix("datafusion."))
            .unwrap_or(name);
        let error = Error::new(ErrorKind::NotFound, format!("unknown table \"{short}\""));
        return error.with_hint("SHOW TABLES lists what can be read.");
    }
    if let Some(error) = in_our_words(ErrorKind::Sql, text) {
        return error;
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        let error = Error::sql(format!("unknown function \"{name}\""));
        return match between(text, "Did you mean '", "'") {
            Some(near) if nearest(name, [near]).is_some() => {
                error.with_hint(format!("Did you mean \"{near}\"? SHOW FUNCTIONS lists all."))
            }
            _ => error.with_hint("SHOW FUNCTIONS lists all functions."),
        };
    }
    if text.contains("require unique expression names")
        && let Some(name) = between(text, "the expression \"", "\" at position")
    {
        return Error::sql(format!("two columns are named \"{name}\""))
            .with_hint("Give one of them another name with AS.");
    }
    let text = tidy(text);
    let (message, hint) = match text.split_once(". ") {
        Some((first, rest)) if !rest.is_empty() => (first.to_owned(), Some(sentence(rest))),
        _ => (text, None),
    };
    let error = Error::sql(message);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The reworded error, if its text is recognised.
fn in_our_words(kind: ErrorKind, text: &str) -> Option<Error> {
    let Reworded { message, hint, kind: known } = reworded(&stripped(text))?;
    let error = Error::new(known.unwrap_or(kind), message);
    Some(match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

/// The message of an Arrow error without a hint, for messages that begin with the column.
pub fn arrow_says(error: &ArrowError) -> String {
    from_arrow(error).message().to_owned()
}

/// Tidies a message: one line, lower case, no full stop, no terms internal to the engine.
fn tidy(text: &str) -> String {
    let text = stripped(text);
    let line: String = text.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
    in_sql(&lower_first(line.trim_end_matches('.')))
}

/// The text without the prefixes that name its kind.
fn stripped(text: &str) -> String {
    const PREFIXES: &[&str] = &[
        "Error during planning: ",
        "External error: ",
        "Arrow error: ",
        "Execution error: ",
        "Invalid or Unsupported Configuration: ",
        "Resources exhausted: ",
        "This feature is not implemented: ",
        "Internal error: ",
        "SQL error: ",
        "sql parser error: ",
        "Invalid argument error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Arithmetic overflow: ",
        "Object Store error: ",
        "IO error: ",
        "Parquet error: ",
    ];
    let mut text = text.split("\n\nbacktrace: ").next().unwrap_or(text);
    text = text.split("This issue was likely caused by a bug").next().unwrap_or(text).trim();
    while let Some(rest) = PREFIXES.iter().find_map(|p| text.strip_prefix(p)) {
        text = rest;
    }
    text.trim_end_matches('.').to_owned()
}

fn first_line(text: &str) -> String {
    tidy(text.lines().next().unwrap_or_default())
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let stop = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

/// Starts a message in lower case; an abbreviation or a keyword at the beginning keeps its capitals.
pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return String::new() };
    let second = chars.clone().next();
    if second.is_some_and(|c| c.is_uppercase() || !c.is_alphabetic()) {
        return text.to_owned();
    }
    format!("{}{}", first.to_lowercase(), chars.as_str())
}

/// The place of a planner's span, where it has one.
pub(crate) fn place_of(span: Span) -> Option<Place> {
    let at = |n: u64| usize::try_from(n).ok().filter(|n| *n > 0);
    let (line, column) = (at(span.start.line)?, at(span.start.column)?);
    let end_line = at(span.end.line).unwrap_or(line).max(line);
    let end_column = at(span.end.column).unwrap_or(column + 1);
    let end_column = if end_line == line { end_column.max(column + 1) } else { end_column };
    Some(Place { line, column, end_line, end_column })
}
