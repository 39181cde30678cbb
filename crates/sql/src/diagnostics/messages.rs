//! Rewords the engine's messages: each names the object and has a hint that the user can act on. Texts that are not
//! recognised are tidied and shown as they are.
//!
//! DataFusion and Arrow identify their errors by text only. `tests/src/messages.rs` runs statements that cause them, so
//! that a release that changes these texts is noticed.

use windrow_core::ErrorKind;

use super::did_you_mean;
use super::words::in_sql;

/// A message with its hint.
pub(super) struct Reworded {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// The kind of the error, where it differs from the engine's.
    pub(super) kind: Option<ErrorKind>,
}

impl Reworded {
    fn of_kind(self, kind: ErrorKind) -> Self {
        Self { kind: Some(kind), ..self }
    }
}

/// Types that can be declared, for near matches.
const TYPE_NAMES: [&str; 24] = [
    "BIGINT",
    "BOOLEAN",
    "BYTEA",
    "CHAR",
    "DATE",
    "DECIMAL",
    "DOUBLE",
    "FLOAT",
    "INT",
    "INTEGER",
    "INTERVAL",
    "NUMERIC",
    "REAL",
    "SMALLINT",
    "STRING",
    "STRUCT",
    "TEXT",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TINYINT",
    "UNSIGNED",
    "VARCHAR",
    "VARBINARY",
];
/// Table functions, which may follow FROM.
const TABLE_FUNCTIONS: [&str; 6] =
    ["tumble", "hop", "cumulate", "session", "generate_series", "range"];

const CAST: &str = "CAST one side to the type of the other.";
const TRY_CAST: &str = "Use TRY_CAST to get NULL where a value does not fit.";

/// The text reworded, if it is recognised; `text` no longer has the prefix of its kind.
pub(super) fn reworded(text: &str) -> Option<Reworded> {
    // Values quote the user's text, which must not be matched below.
    if let Some(of_value) = value(text) {
        return Some(of_value);
    }
    let known = [function, operator, types, names, clauses];
    let known = known.iter().find_map(|known| known(text))?;
    Some(Reworded { message: in_sql(&known.message), ..known })
}

fn said(message: String, hint: &str) -> Reworded {
    hinted(message, Some(hint.to_owned()).filter(|hint| !hint.is_empty()))
}

fn hinted(message: String, hint: Option<String>) -> Reworded {
    Reworded { message, hint, kind: None }
}

/// The part of a text between two others.
pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// Function calls with arguments that the function does not take.
fn function(text: &str) -> Option<Reworded> {
    let takes = |name: &str, what: String| {
        let hint = format!("SHOW FUNCTIONS LIKE '{name}' shows what it takes.");
        hinted(format!("function \"{name}\" {what}"), Some(hint))
    };
    let count = |name: &str, wanted: &str, given: &str| {
        let arguments = if wanted == "1" { "argument" } else { "arguments" };
        let are = if given == "1" { "is" } else { "are" };
        takes(name, format!("takes {wanted} {arguments}, and {given} {are} given"))
    };
    let call = between(text, "given name and argument types '", "'. You might");
    let (name, arguments) = match call.and_then(|call| call.strip_suffix(')')?.split_once('(')) {
        Some((name, arguments)) => (name, Some(arguments)),
        None => (between(text, "unction '", "'")?, None),
    };
    let numbers = between(text, " expects ", " arguments but received ")
        .zip(text.split_once(" arguments but received ").map(|(_, given)| given));
    if let Some((wanted, given)) = numbers.filter(|_| !text.contains("to match any signature"))
        && wanted.chars().all(|c| c.is_ascii_digit())
    {
        let end = given.find(|c: char| !c.is_ascii_digit()).unwrap_or(given.len());
        return Some(count(name, wanted, given.get(..end).unwrap_or(given)));
    }
    if let Some(arguments) = arguments {
        return Some(takes(name, format!("does not take ({arguments})")));
    }
    if text.contains("failed to match any signature") {
        let given =
            between(text, "(DataType: ", ")").or_else(|| between(text, "but received ", ","));
        let mut wanted: Vec<&str> = vec![];
        for part in text.split("expects ").skip(1) {
            let number = part.split(' ').next().unwrap_or_default();
            if number.chars().all(|c| c.is_ascii_digit()) && !wanted.contains(&number) {
                wanted.push(number);
            }
        }
        let received = text.rsplit_once("arguments but received ").map(|(_, given)| given);
        if let (false, Some(received)) = (wanted.is_empty(), received) {
            return Some(count(name, &wanted.join(" or "), received.trim_end_matches('.')));
        }
        return Some(takes(
            name,
            format!("does not take ({})", given.unwrap_or("these arguments")),
        ));
    }
    None
}

/// Values that do not fit.
fn value(text: &str) -> Option<Reworded> {
    if let Some(value) = between(text, "annot cast string '", "' to value of ") {
        let to = text.rsplit_once("' to value of ")?.1.trim_end_matches(" type");
        return Some(said(format!("cannot cast '{value}' to {}", in_sql(to)), TRY_CAST));
    }
    if let Some(value) = between(text, "annot cast value '", "' to value of ") {
        let to = text.rsplit_once("' to value of ")?.1.trim_end_matches(" type");
        return Some(said(format!("cannot cast '{value}' to {}", in_sql(to)), TRY_CAST));
    }
    if let Some(value) = between(text, "an't cast value ", " to type ") {
        let to = text.rsplit_once(" to type ")?.1;
        return Some(said(format!("cannot cast {value} to {}", in_sql(to)), TRY_CAST));
    }
    if text.to_lowercase().starts_with("unsupported cast from ") {
        let (from, to) = text.get("unsupported cast from ".len()..)?.split_once(" to ")?;
        let message = format!("cannot cast {} to {}", in_sql(from), in_sql(to));
        return Some(said(message, "CAST it by way of another type."));
    }
    if let Some(rest) = text.strip_prefix("Unable to cast to ") {
        let to = in_sql(rest.split(' ').next()?);
        return Some(said(format!("the value is out of range for {to}"), TRY_CAST));
    }
    if let Some(rest) = text.strip_prefix("regex parse error:") {
        let why = rest.rsplit_once("error: ").map_or(rest, |(_, why)| why).trim();
        let pattern = rest.trim_start().lines().next().unwrap_or_default().trim();
        let message = format!("'{pattern}' is not a regular expression: {why}");
        return Some(said(message, "").of_kind(ErrorKind::Data));
    }
    None
}

fn operator(text: &str) -> Option<Reworded> {
    let operands = |operation: &str| {
        // Types contain no blanks except after commas.
        let operation = operation.replace(", ", ",");
        let mut words = operation.split(' ');
        let (left, right) = (words.next()?, words.next_back()?);
        let operator: Vec<&str> = words.collect();
        let (left, right) = (left.replace(',', ", "), right.replace(',', ", "));
        Some(format!("operator {} does not take {left} and {right}", operator.join(" ")))
    };
    if let Some(operation) = between(text, "annot coerce arithmetic expression ", " to valid types")
    {
        return Some(said(
            operands(operation)?,
            "CAST the operands to numbers, or to a time and an INTERVAL.",
        ));
    }
    if let Some((_, operation)) = text.split_once("annot infer common argument type for ") {
        let (_, operation) = operation.split_once(" operation ")?;
        return Some(said(operands(operation)?, CAST));
    }
    if let Some(types) = between(text, "common type to coerce ", " expression") {
        let (types, operator) = types.rsplit_once(" in ")?;
        let (left, right) = types.split_once(" and ")?;
        return Some(said(
            format!("operator {operator} does not take {left} and {right}"),
            "CAST both sides to VARCHAR.",
        ));
    }
    if let Some(rest) = text.strip_prefix("Divide by zero") {
        return Some(said(
            format!(
                "divide by zero{}",
                rest.trim_end_matches(" error").trim_end_matches("error").trim_end()
            ),
            "",
        ));
    }
    None
}

fn types(text: &str) -> Option<Reworded> {
    if let Some(name) = text.strip_prefix("Unable to find factory for ") {
        let hint = did_you_mean(name, ["PARQUET", "CSV", "JSON", "ARROW"], "formats");
        return Some(hinted(format!("unknown format \"{name}\""), Some(hint)));
    }
    if let Some(name) = text.strip_prefix("Unsupported SQL type ") {
        let name = name.trim_end_matches('.');
        let hint = did_you_mean(name, TYPE_NAMES, "types");
        return Some(hinted(format!("unknown type \"{name}\""), Some(hint)));
    }
    if let Some((then, otherwise)) = between(text, "ailed to coerce then (", ") to common types")
        .and_then(|types| types.split_once(") and else ("))
    {
        let message = format!("the results of CASE have no common type: {then} and {otherwise}");
        return Some(said(message, "CAST them to one type."));
    }
    if let Some((before, rest)) = text
        .strip_prefix("Incompatible inputs for Union: Previous inputs were of type ")
        .and_then(|rest| rest.split_once(", but got incompatible type "))
    {
        let (now, column) = rest.split_once(" on column ")?;
        let column = column.trim_matches('\'');
        let message = format!("column \"{column}\" of a UNION is {before} before and {now} here");
        return Some(said(message, "CAST it to one type in all of its queries."));
    }
    if let Some(of) = text.strip_prefix("Cannot create filter with non-boolean predicate '") {
        let (condition, of) = of.split_once("' returning ")?;
        return Some(said(
            format!("the condition {condition} is {of}, not BOOLEAN"),
            "Compare it with something.",
        ));
    }
    for clause in ["LIMIT", "OFFSET"] {
        let before = format!("Expected {clause} to be an integer or null, but got ");
        if let Some(of) = text.strip_prefix(&before) {
            return Some(said(format!("{clause} takes an integer, not {of}"), ""));
        }
    }
    None
}

fn names(text: &str) -> Option<Reworded> {
    if let Some(name) = between(text, "able function '", "' not found") {
        let name = name.to_lowercase();
        let hint = did_you_mean(&name, TABLE_FUNCTIONS, "table functions");
        let message = format!("unknown table function \"{name}\"");
        return Some(hinted(message, Some(hint)));
    }
    if text.to_lowercase().starts_with("dot access not supported for non-string expr") {
        let message = "a field of this expression cannot be read with a dot".to_owned();
        return Some(said(message, "Read it with brackets: (…)['field']."));
    }
    if text.contains("is not Struct, Map, or Null") {
        let of = between(text, ": type ", " is not Struct")?;
        let known = said(format!("{of} has no fields"), "Only a STRUCT or a MAP has them.");
        return Some(known.of_kind(ErrorKind::Sql));
    }
    if let Some(field) = between(text, "ield ", " not found in struct") {
        let message = format!("the STRUCT has no field \"{field}\"");
        return Some(said(message, "DESCRIBE shows the type of a column.").of_kind(ErrorKind::Sql));
    }
    if let Some(name) = text.strip_prefix("Invalid qualifier ") {
        return Some(said(
            format!("no table \"{name}\" in FROM"),
            "Write a name or an alias that is in FROM.",
        ));
    }
    if let Some(name) = between(text, "able '", "' already exists") {
        let hint = "Use IF NOT EXISTS or OR REPLACE, or another name.";
        return Some(said(format!("\"{name}\" exists already"), hint).of_kind(ErrorKind::Exists));
    }
    let setting = between(text, "ould not find config namespace for key \"", "\"")
        .or_else(|| between(text, "'", "' is not a variable which can be viewed with 'SHOW'"));
    if let Some(name) = setting {
        return Some(said(format!("unknown setting \"{name}\""), "SHOW ALL lists the settings."));
    }
    if let Some(of) = text.strip_suffix(" not supported for Base table") {
        let message = format!("{of} of existing rows is not supported");
        return Some(said(
            message,
            "INSERT new rows, or replace the object. Rows change in streams with a primary key.",
        ));
    }
    None
}

fn clauses(text: &str) -> Option<Reworded> {
    if text.contains("OuterReferenceColumn(") {
        let message = "this correlated subquery cannot be written as a join";
        let hint = "Join with a query instead; the first rows of each key have row_number() \
                    OVER (PARTITION BY key ORDER BY …) <= n.";
        return Some(said(message.to_owned(), hint));
    }
    if let Some((argument, _)) = between(text, "rgument #", ", got Column(")
        .and_then(|argument| argument.split_once(" must be "))
    {
        let message = format!("argument {argument} of a function in FROM must be a constant");
        return Some(said(message, "Where it reads columns, write LATERAL after one relation."));
    }
    if let Some(rest) = text.strip_prefix("Column in ") {
        let clause = rest.split(" must be in GROUP BY").next()?;
        let column = between(rest, "column \"", "\" must appear")?;
        let message =
            format!("column \"{column}\" in {clause} must be in GROUP BY or in an aggregate");
        let hint = format!(
            "Add it to GROUP BY, or choose one of its values: min({column}), first_value({column})."
        );
        return Some(hinted(message, Some(hint)));
    }
    if let Some(expression) = between(text, "HAVING clause references: ", " must appear") {
        let message =
            format!("HAVING uses {expression}, which must be in GROUP BY or in an aggregate");
        return Some(said(message, "Without aggregates the condition belongs in WHERE."));
    }
    if let Some(columns) =
        text.strip_prefix("Too many columns! The subquery should only return one column: ").or_else(
            || text.strip_prefix("Too many columns! The subquery should only return one column"),
        )
    {
        let columns = columns.trim_end_matches('.');
        return Some(said(
            format!("the subquery has more than one column: {columns}"),
            "Select one column in it.",
        ));
    }
    if let Some(row) = between(text, "data length across values list: got ", " but expected ") {
        let (given, row) = row.split_once(" values in row ")?;
        let wanted = text.rsplit_once(" but expected ")?.1;
        let row = row.parse::<usize>().ok()? + 1;
        if row == 1 {
            return Some(said(
                format!("VALUES has rows of {given}, and {wanted} are expected"),
                "",
            ));
        }
        return Some(said(
            format!("row {row} of VALUES has {given} values, and the first has {wanted}"),
            "",
        ));
    }
    if text == "Column count doesn't match insert query!" {
        let message = "the query has a different number of columns than the INSERT".to_owned();
        return Some(said(message, "Name the columns: INSERT INTO t (a, b) SELECT …."));
    }
    if let Some((position, rest)) = text
        .strip_prefix("Cannot find column with position ")
        .and_then(|rest| rest.split_once(" in SELECT clause. Valid columns: 1 to "))
    {
        return Some(said(
            format!("there is no column {position} in SELECT"),
            &format!("It has {}.", counted(rest)),
        ));
    }
    if let Some((position, most)) = text
        .strip_prefix("Order by column out of bounds, specified: ")
        .and_then(|rest| rest.split_once(", max: "))
    {
        return Some(said(
            format!("there is no column {position} in SELECT"),
            &format!("It has {}.", counted(most)),
        ));
    }
    None
}

fn counted(columns: &str) -> String {
    let columns = columns.trim_end_matches('.');
    format!("{columns} {}", if columns == "1" { "column" } else { "columns" })
}
