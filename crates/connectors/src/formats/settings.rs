//! The options that connectors with a format share: their documentation, and how they are read.

use arrow::datatypes::TimeUnit;
use windrow_core::Result;

use super::csv::CsvStyle;
use super::decode::OnBadRow;
use crate::options::{OptionDoc, StreamOptions, bad_value};

/// `delimiter`.
pub(crate) const DELIMITER: OptionDoc = OptionDoc {
    name: "delimiter",
    values: "one character",
    default: ",",
    doc: "The separator of fields in CSV.",
};
/// `quote`.
pub(crate) const QUOTE: OptionDoc = OptionDoc {
    name: "quote",
    values: "one character",
    default: "\"",
    doc: "Opens and closes a field of CSV.",
};
/// `escape`.
pub(crate) const ESCAPE: OptionDoc = OptionDoc {
    name: "escape",
    values: "one character",
    default: "",
    doc: "The escape character in quoted fields of CSV.",
};
/// `null`.
pub(crate) const NULL: OptionDoc = OptionDoc {
    name: "null",
    values: "a word",
    default: "",
    doc: "The text that means NULL in CSV, besides the empty field.",
};
/// `on_bad_row`.
pub(crate) const ON_BAD_ROW: OptionDoc = OptionDoc {
    name: "on_bad_row",
    values: "'dead_letter' | 'fail' | 'null'",
    default: "dead_letter",
    doc: "What happens to a row that cannot be decoded: it is set aside in windrow.bad_rows, the \
         query fails, or its bad fields become NULL.",
};
/// `on_bad_row` of a connector that returns its rows only once.
pub(crate) const ON_BAD_ROW_OF_FORGOTTEN: OptionDoc = OptionDoc {
    name: ON_BAD_ROW.name,
    values: "'dead_letter' | 'null'",
    default: "dead_letter",
    doc: "What happens to a row that cannot be decoded: it is set aside in windrow.bad_rows, or its bad fields become NULL.",
};
/// `epoch`.
pub(crate) const EPOCH: OptionDoc = OptionDoc {
    name: "epoch",
    values: "'s' | 'ms' | 'us' | 'ns'",
    default: "",
    doc: "The unit of numbers in TIMESTAMP columns, counted from 1970. Without it they have the unit of a declared \
         precision (TIMESTAMP(3): milliseconds), and are bad rows where there is none.",
};

const EPOCHS: &[(&str, TimeUnit)] = &[
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];

const ON_BAD_ROWS: &[(&str, OnBadRow)] =
    &[("dead_letter", OnBadRow::DeadLetter), ("fail", OnBadRow::Fail), ("null", OnBadRow::Null)];

/// Reads `on_bad_row`.
///
/// # Errors
/// For another word.
pub(crate) fn on_bad_row(options: &StreamOptions<'_>) -> Result<OnBadRow> {
    Ok(options.choice(ON_BAD_ROW.name, ON_BAD_ROWS)?.unwrap_or(OnBadRow::DeadLetter))
}

/// Checks that bad rows do not fail a stream whose rows are stored as they come in.
///
/// # Errors
/// When `on_bad_row` says so.
pub(crate) fn no_failing_row(options: &StreamOptions<'_>) -> Result<()> {
    match on_bad_row(options)? {
        OnBadRow::Fail => Err(bad_value(ON_BAD_ROW.name, "fail", "'dead_letter' or 'null'").with_hint(
            "The rows of this connector are stored as they come in, before any query reads them.",
        )),
        OnBadRow::DeadLetter | OnBadRow::Null => Ok(()),
    }
}

/// Reads `epoch`.
///
/// # Errors
/// For another word.
pub(crate) fn epoch(options: &StreamOptions<'_>) -> Result<Option<TimeUnit>> {
    options.choice(EPOCH.name, EPOCHS)
}

/// Reads the style of CSV; `header` is what the connector says of it.
///
/// # Errors
/// When a character is none, or not one.
pub(crate) fn csv_style(options: &StreamOptions<'_>, header: bool) -> Result<CsvStyle> {
    let is_tsv = options.get("format").is_some_and(|f| f.trim().eq_ignore_ascii_case("tsv"));
    Ok(CsvStyle {
        delimiter: options.ascii(DELIMITER.name)?.or(is_tsv.then_some(b'\t')),
        header,
        quote: options.ascii(QUOTE.name)?.unwrap_or(b'"'),
        escape: options.ascii(ESCAPE.name)?,
        null: options.get(NULL.name).map(str::to_owned),
    })
}
