//! `partition_by`: which directory a row belongs to, as Hive names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use windrow_core::{Error, Result, sql_type};

/// The value of NULL in the name of a directory.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// The longest name of a directory that file systems allow, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The columns by which rows are divided.
#[derive(Debug, Clone)]
pub(super) struct Partitioning {
    by: Vec<usize>,
    rest: Vec<usize>,
}

impl Partitioning {
    /// Divides rows of these columns by some of them.
    ///
    /// # Errors
    /// When a column does not exist or has no value that fits into a name, and when no column remains.
    pub(super) fn new(schema: &Schema, names: &[String]) -> Result<Self> {
        let mut by = vec![];
        for name in names {
            let known = || schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>();
            let Ok(at) = schema.index_of(name) else {
                return Err(Error::config(format!(
                    "option \"partition_by\": there is no column \"{name}\""
                ))
                .with_hint(format!("Known columns: {}.", known().join(", "))));
            };
            let kind = schema.field(at).data_type();
            if !fits(kind) {
                let kind = sql_type(kind);
                return Err(Error::config(format!(
                    "option \"partition_by\": column \"{name}\" has the type {kind}"
                ))
                .with_hint(
                    "Texts, whole numbers, dates, timestamps and booleans name directories.",
                ));
            }
            if by.contains(&at) {
                return Err(Error::config(format!("option \"partition_by\" has \"{name}\" twice")));
            }
            by.push(at);
        }
        let rest: Vec<usize> = (0..schema.fields().len()).filter(|at| !by.contains(at)).collect();
        if rest.is_empty() {
            return Err(Error::config("option \"partition_by\" leaves no column for the files"));
        }
        Ok(Self { by, rest })
    }

    /// How many directories are below one another.
    pub(super) fn depth(&self) -> usize {
        self.by.len()
    }

    /// The columns of the files.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn files(&self, schema: &Schema) -> Result<SchemaRef> {
        Ok(Arc::new(schema.project(&self.rest)?))
    }

    /// Divides rows by directory, in order within each.
    ///
    /// # Errors
    /// When a value is too long for a name.
    pub(super) fn divide(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        let schema = rows.schema();
        let options = FormatOptions::default();
        let mut columns = vec![];
        for at in &self.by {
            let column = rows.column(*at);
            columns.push((
                schema.field(*at).name(),
                column,
                ArrayFormatter::try_new(column, &options)?,
            ));
        }
        let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for row in 0..rows.num_rows() {
            let mut dir = String::new();
            for (name, column, values) in &columns {
                let value = match column.is_null(row) {
                    true => NULL.to_owned(),
                    false => escaped(&values.value(row).try_to_string()?),
                };
                let part = format!("{}={value}", escaped(name));
                if part.len() > NAME_BYTES_MAX {
                    return Err(Error::data(format!(
                        "a value of column \"{name}\" is too long for the name of a directory ({} bytes)",
                        part.len()
                    )));
                }
                dir.push_str(&part);
                dir.push('/');
            }
            groups.entry(dir).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        let rest = rows.project(&self.rest)?;
        let divided = groups
            .into_iter()
            .map(|(dir, rows)| Ok((dir, take_record_batch(&rest, &UInt32Array::from(rows))?)));
        divided.collect()
    }
}

/// Whether values of this type name directories. Floats are not: equal values have different texts.
fn fits(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => fits(values),
        DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Date32
        | DataType::Timestamp(..) => true,
        kind => kind.is_integer(),
    }
}

/// Escapes the characters that Hive escapes, and all that have a meaning in paths.
fn escaped(text: &str) -> String {
    let special = |c: char| c.is_control() || "\"#%'*/:=?\\{[]^}~`<>|".contains(c);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if special(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn rows_go_to_the_directory_of_their_values() {
        let rows = RecordBatch::try_from_iter_with_nullable(vec![
            (
                "s",
                Arc::new(StringArray::from(vec![Some("a/../b"), None, Some("a/../b"), Some("")]))
                    as ArrayRef,
                true,
            ),
            ("d", Arc::new(Date32Array::from(vec![0, 0, 0, 1])), true),
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3, 4])), true),
        ])
        .unwrap();
        let by = ["s".to_owned(), "d".to_owned()];
        let partitioning = Partitioning::new(&rows.schema(), &by).unwrap();
        assert_eq!(partitioning.files(&rows.schema()).unwrap().fields().len(), 1);
        let divided = partitioning.divide(&rows).unwrap();
        let shown: Vec<(&str, usize)> =
            divided.iter().map(|(dir, rows)| (dir.as_str(), rows.num_rows())).collect();
        assert_eq!(
            shown,
            [
                ("s=/d=1970-01-02/", 1),
                ("s=__HIVE_DEFAULT_PARTITION__/d=1970-01-01/", 1),
                ("s=a%2F..%2Fb/d=1970-01-01/", 2),
            ]
        );
    }

    #[test]
    fn what_names_no_directory_is_refused() {
        let list = DataType::new_list(DataType::Int64, true);
        let schema = Schema::new(vec![
            arrow::datatypes::Field::new("l", list, true),
            arrow::datatypes::Field::new("x", DataType::Float64, true),
            arrow::datatypes::Field::new("k", DataType::Int32, true),
        ]);
        for by in [vec!["l"], vec!["x"], vec!["nope"], vec!["k", "k"]] {
            let by: Vec<String> = by.into_iter().map(str::to_owned).collect();
            assert!(Partitioning::new(&schema, &by).is_err(), "{by:?}");
        }
        let one = schema.project(&[2]).unwrap();
        assert!(Partitioning::new(&one, &["k".to_owned()]).is_err());
        let rows = RecordBatch::try_from_iter(vec![
            ("s", Arc::new(StringArray::from(vec!["x".repeat(300)])) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![1]))),
        ])
        .unwrap();
        let partitioning = Partitioning::new(&rows.schema(), &["s".to_owned()]).unwrap();
        assert_eq!(partitioning.divide(&rows).unwrap_err().kind(), windrow_core::ErrorKind::Data);
    }
}
