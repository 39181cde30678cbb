//! `COPY name FROM 'file'`, and where `COPY … TO 'file'` may write.

use std::path::Path;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::dml::CopyTo;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::parse::{CopyFrom, Statement};

use crate::session::file_tables::FileTables;
use crate::session::{Done, Outcome, Session};

/// The option of a COPY by which all rows go to one file, whatever its name.
const ONE_FILE: &str = "single_file_output";

impl Session {
    /// Inserts the rows of files: by the names of columns, or in the order that the statement lists.
    pub(super) async fn copy_from(&self, copy: CopyFrom, text: &str) -> Result<Outcome> {
        let placed = |e: Error| if e.place().is_none() { e.with_place(copy.place) } else { e };
        let table = self.file(&copy.path, &copy.options).await.map_err(placed)?;
        let names: Vec<String> = match copy.columns.is_empty() {
            true => table.schema().fields().iter().map(|f| f.name().clone()).collect(),
            false => vec![],
        };
        let insert = copy.as_insert(&names)?;
        let session = self.knowing(FileTables::from([(copy.path.clone(), table)]));
        let statement = Statement::Insert(Box::new(insert.clone()));
        session.check_statement(&statement)?;
        match session.insert(insert, text).await? {
            Outcome::Done(Done { said, rows }) => {
                let said = match said.strip_prefix("INSERT 0 ") {
                    Some(count) => format!("COPY {count}"),
                    None => said,
                };
                Ok(Outcome::Done(Done { said, rows }))
            }
            rows => Ok(rows),
        }
    }
}

/// A COPY to files that makes no directory: what is not said to be one is one file, and the directory that it is
/// to be in exists.
///
/// # Errors
/// When the directory does not exist.
pub(super) fn without_directories(mut copy: CopyTo) -> Result<CopyTo> {
    let url = copy.output_url.clone();
    let is_directory = url.ends_with('/')
        || !copy.partition_by.is_empty()
        || copy.options.get(ONE_FILE).is_some_and(|said| said == "false");
    if !is_directory {
        copy.options.entry(ONE_FILE.to_owned()).or_insert_with(|| "true".to_owned());
    }
    let local = match url.split_once("://") {
        None => url.as_str(),
        Some(("file", path)) => path,
        Some(_) => return Ok(copy),
    };
    let path = Path::new(local);
    let directory = if is_directory { Some(path) } else { path.parent() };
    let Some(directory) = directory.filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(copy);
    };
    if !is_directory && path.is_dir() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("\"{local}\" is a directory, not a file"),
        )
        .with_hint(format!(
            "Name a file in it, or write '{local}/' for files with names of their own."
        )));
    }
    if !directory.is_dir() {
        let directory = directory.display();
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no directory \"{directory}\""),
        )
        .with_hint("COPY makes no directories: make it first, or copy to another place."));
    }
    Ok(copy)
}

/// What a statement that wrote rows says: `INSERT 0 3`, `COPY 3`.
pub(super) fn written(plan: &LogicalPlan, rows: u64) -> String {
    match plan {
        LogicalPlan::Copy(_) => format!("COPY {rows}"),
        LogicalPlan::Dml(dml) => match dml.op.name() {
            "Insert Into" | "Insert Overwrite" | "Replace Into" => format!("INSERT 0 {rows}"),
            op => format!("{} {rows}", op.to_uppercase()),
        },
        _ => format!("{rows} rows"),
    }
}

/// The number of rows that a statement says it wrote.
pub(super) fn count(rows: &[arrow::record_batch::RecordBatch]) -> Result<u64> {
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    let mut sum = 0;
    for batch in rows {
        let column = batch.columns().first().map(Arc::clone);
        let counts = column.as_ref().and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let counts =
            counts.ok_or_else(|| Error::internal("what writes rows does not count them"))?;
        sum += counts.iter().flatten().sum::<u64>();
    }
    Ok(sum)
}
