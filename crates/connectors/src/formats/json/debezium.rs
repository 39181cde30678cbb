//! Changes of rows as Debezium writes them: an envelope with the operation and the row before and after it.
//!
//! ```text
//! {"op": "u", "before": {"id": 1, "n": 1}, "after": {"id": 1, "n": 2}, "source": …, "ts_ms": …}
//! ```
//! The envelope may be the `payload` of another one, next to a `schema`. An insert (`c`), an update (`u`) and a row of a
//! snapshot (`r`) have the row in `after`; a delete (`d`) has it in `before`, where Debezium may only know the key.
//!
//! Invariant: a record of another operation is a bad row, since what it does to the rows is not known.

use arrow::datatypes::{DataType, Field, Schema};

use super::tokens::{Cursor, Value, Wrong};

/// The metadata of the column that says whether a row is deleted.
const ENVELOPE: &str = "windrow.envelope";

/// Returns the column of a stream of changes that says whether a row is deleted; with it, the records of a format are
/// envelopes.
pub fn deletes_column(name: &str) -> Field {
    let metadata = [(ENVELOPE.to_owned(), "debezium".to_owned())];
    Field::new(name, DataType::Boolean, false).with_metadata(metadata.into())
}

/// The index of the column that says whether a row is deleted; `None`: records are not envelopes.
pub(super) fn deletes(declared: &Schema) -> Option<usize> {
    declared.fields().iter().position(|field| field.metadata().contains_key(ENVELOPE))
}

/// Returns the object of a row, and whether it is deleted.
///
/// # Errors
/// When the record is not an envelope with a row.
pub(super) fn opened(record: &str) -> Result<(&str, bool), Wrong> {
    let parts = Parts::of(record)?;
    match (parts.op, parts.payload) {
        (None, Some(Value::Object(payload))) => Parts::of(payload)?.row(),
        _ => parts.row(),
    }
}

/// Whether a record is JSON, and only its envelope is wrong.
pub(super) fn is_about_changes(why: Wrong) -> bool {
    [NO_CHANGE, OTHER, NO_BEFORE, NO_AFTER].contains(&why)
}

const NO_CHANGE: Wrong = "the record is not a change event of Debezium: it has no \"op\"";
const OTHER: Wrong = "\"op\" of the change is not c, u, r or d";
const NO_BEFORE: Wrong = "the delete has no row in \"before\", so that its key is not known";
const NO_AFTER: Wrong = "the change has no row in \"after\"";

/// The relevant fields of an envelope.
#[derive(Default)]
struct Parts<'a> {
    op: Option<Value<'a>>,
    before: Option<Value<'a>>,
    after: Option<Value<'a>>,
    payload: Option<Value<'a>>,
}

impl<'a> Parts<'a> {
    fn of(record: &'a str) -> Result<Self, Wrong> {
        let mut parts = Self::default();
        let mut cursor = Cursor::new(record);
        cursor.object::<Wrong>(|key, value| {
            match key.as_ref() {
                "op" => parts.op = Some(value),
                "before" => parts.before = Some(value),
                "after" => parts.after = Some(value),
                "payload" => parts.payload = Some(value),
                _ => {}
            }
            Ok(())
        })?;
        if cursor.is_at_end() { Ok(parts) } else { Err("there is text after the object") }
    }

    fn row(self) -> Result<(&'a str, bool), Wrong> {
        let (row, deletes) = match self.op {
            Some(Value::Text("c" | "u" | "r")) => (self.after, false),
            Some(Value::Text("d")) => (self.before, true),
            Some(_) => return Err(OTHER),
            None => return Err(NO_CHANGE),
        };
        match row {
            Some(Value::Object(row)) => Ok((row, deletes)),
            _ if deletes => Err(NO_BEFORE),
            _ => Err(NO_AFTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_opened() {
        let row = r#"{"id":1}"#;
        for (record, expected) in [
            (r#"{"before":null,"after":{"id":1},"op":"c"}"#, Ok((row, false))),
            (r#"{"op":"r","after":{"id":1},"source":{"op":"x"}}"#, Ok((row, false))),
            (r#"{"op":"u","before":{"id":2},"after":{"id":1}}"#, Ok((row, false))),
            (r#"{"op":"d","before":{"id":1},"after":null}"#, Ok((row, true))),
            (r#"{"schema":{},"payload":{"op":"d","before":{"id":1}}}"#, Ok((row, true))),
            (r#"{"op":"d","before":null}"#, Err("key is not known")),
            (r#"{"op":"u","before":{"id":1},"after":null}"#, Err("no row in \"after\"")),
            (r#"{"op":"t"}"#, Err("not c, u, r or d")),
            (r#"{"id":1}"#, Err("not a change event of Debezium")),
            (r#"{"schema":{},"payload":null}"#, Err("not a change event of Debezium")),
            (r#"{"op":"c","after":{"id":1}} x"#, Err("after the object")),
        ] {
            match (opened(record), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{record}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{record}: {why}"),
                (found, _) => panic!("{record}: {found:?}"),
            }
        }
    }
}
