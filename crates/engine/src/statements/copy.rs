//! `COPY name FROM 'file'`.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, Result};
use windrow_sql::parse;

use super::create_stream::file_table;
use super::insert::Insert;
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::file_tables::FileTables;
use crate::execution::outcome::{Done, Outcome};
use crate::names::plain_name;

/// `COPY target [(columns)] FROM 'file' [(options)]`: inserts the rows of files, by the names of columns, or in the order
/// that the statement lists.
#[derive(Debug)]
pub(crate) struct CopyFrom {
    pub(super) copy: parse::CopyFrom,
    pub(super) text: String,
}

impl CopyFrom {
    fn insert(&self, names: &[String]) -> Result<Insert> {
        Ok(Insert { insert: self.copy.as_insert(names)?, text: self.text.clone() })
    }
}

impl Statement for CopyFrom {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("COPY", Some(Weight::Query))
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Write, &self.copy.target)
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { self.check(cx).await.map(|()| None) })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move {
            self.insert(&[])?;
            let name = plain_name(&self.copy.target)?;
            match cx.catalog().exists(&name) {
                true => Ok(()),
                false => Err(cx.catalog().missing("stream", &name)),
            }
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let copy = &self.copy;
            let placed = |e: Error| if e.place().is_none() { e.with_place(copy.place) } else { e };
            let table = file_table(cx, &copy.path, &copy.options).await.map_err(placed)?;
            let names: Vec<String> = match copy.columns.is_empty() {
                true => table.schema().fields().iter().map(|f| f.name().clone()).collect(),
                false => vec![],
            };
            let files = FileTables::from([(copy.path.clone(), table)]);
            let cx = StatementContext { file_tables: Some(Arc::new(files)), ..cx.clone() };
            let outcome = self.insert(&names)?.execute(&cx).await?;
            let Outcome::Done(Done { said, rows }) = outcome else { return Ok(outcome) };
            let said = match said.strip_prefix("INSERT 0 ") {
                Some(count) => format!("COPY {count}"),
                None => said,
            };
            Ok(Outcome::Done(Done { said, rows }))
        })
    }
}

/// Returns the message of a statement that wrote rows: `INSERT 0 3`, `COPY 3`.
pub(super) fn write_tag(plan: &LogicalPlan, rows: u64) -> String {
    match plan {
        LogicalPlan::Copy(_) => format!("COPY {rows}"),
        LogicalPlan::Dml(dml) => match dml.op.name() {
            "Insert Into" | "Insert Overwrite" | "Replace Into" => format!("INSERT 0 {rows}"),
            op => format!("{} {rows}", op.to_uppercase()),
        },
        _ => format!("{rows} rows"),
    }
}

/// Returns the number of rows that a statement reports as written.
///
/// # Errors
/// Internal when it does not report any.
pub(super) fn rows_written(rows: &[RecordBatch]) -> Result<u64> {
    let mut sum = 0;
    for batch in rows {
        let column = batch.columns().first().map(Arc::clone);
        let counts = column.as_ref().and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let counts = counts
            .ok_or_else(|| Error::internal("a statement that writes rows does not count them"))?;
        sum += counts.iter().flatten().sum::<u64>();
    }
    Ok(sum)
}
