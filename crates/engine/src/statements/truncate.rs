//! `TRUNCATE`: removes all rows of a stream or of a reference table.
//!
//! Offsets of a stream go on, so that nobody mistakes a new row for an old one. What is recorded is the offset after the last
//! removed row, in the catalog, which is replaced as a whole: so after a crash either all of them are removed or none. Queries
//! and views that have begun still get the rows that they have not read, as with retention; views keep their results.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use sqlparser::ast::ObjectName;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_stream::Stream;

use super::keyed_stream::append_only;
use super::reference_tables::Change;
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object};
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;
use crate::instance::retention::pass_now;
use crate::names::{SCHEMA, plain_name};

/// `TRUNCATE [TABLE | STREAM] name`.
#[derive(Debug)]
pub(crate) struct Truncate {
    pub(super) name: ObjectName,
    pub(super) text: String,
}

impl Statement for Truncate {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("TRUNCATE", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.name)
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move {
            let name = plain_name(&self.name)?;
            match self.stream(cx.catalog(), &name)? {
                Some(stream) => accepts_truncate(&stream),
                None => Ok(()),
            }
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let name = plain_name(&self.name)?;
            let rows = match self.stream(cx.catalog(), &name)? {
                Some(stream) => truncate_stream(cx, &stream).await?,
                None => self.truncate_table(cx, &name).await?,
            };
            Ok(Outcome::Done(format!("TRUNCATE ({rows} rows)").into()))
        })
    }
}

impl Truncate {
    /// Returns the stream to truncate; `None`: it is a reference table.
    fn stream(&self, catalog: &Catalog, name: &str) -> Result<Option<Arc<Stream>>> {
        match catalog.get(name) {
            Some(Object::Stream(stream)) => Ok(Some(stream)),
            Some(other) => {
                let kind = other.kind();
                Err(Error::sql(format!(
                    "\"{name}\" is a {kind}, and only streams and tables are truncated"
                ))
                .with_hint(format!("CREATE OR REPLACE {} starts it afresh.", kind.to_uppercase())))
            }
            None if catalog.exists(name) => Ok(None),
            None => Err(catalog.missing("stream or table", name)),
        }
    }

    /// Removes the rows of a table in memory, and of its file.
    async fn truncate_table(&self, cx: &StatementContext, name: &str) -> Result<u64> {
        let table = cx.session.table_provider(TableReference::partial(SCHEMA, name)).await;
        let table = table.map_err(from_datafusion)?;
        let Some(memory) = table.downcast_ref::<MemTable>() else {
            return Err(Error::sql(format!("the rows of table \"{name}\" are in external files"))
                .with_hint("Delete the files, or drop the table."));
        };
        let mut removed = Vec::with_capacity(memory.batches.len());
        for partition in &memory.batches {
            removed.push(std::mem::take(&mut *partition.write().await));
        }
        let stored = Change::Rows(name.to_owned()).store(cx, &self.text).await;
        if stored.is_err() {
            for (partition, rows) in memory.batches.iter().zip(removed) {
                partition.write().await.splice(0..0, rows);
            }
            return stored.map(|()| 0);
        }
        Ok(removed.iter().flatten().map(|batch| batch.num_rows() as u64).sum())
    }
}

/// Refuses a stream whose rows are not Windrow's to remove.
fn accepts_truncate(stream: &Stream) -> Result<()> {
    append_only(
        stream,
        "TRUNCATE",
        "DELETE FROM {} deletes all rows, also for the queries over it.",
    )?;
    if stream.push().is_some() && stream.retention.is_some() {
        return Ok(());
    }
    let Stream { name, connector, .. } = stream;
    Err(Error::sql(format!("the rows of stream \"{name}\" are those of its connector \"{connector}\""))
        .with_hint(format!(
            "Remove them there, or read later ones only: CREATE MATERIALIZED VIEW v WITH (start = 'latest') AS SELECT … FROM {name}."
        )))
}

/// Removes all rows that a stream has now. Returns how many they were.
async fn truncate_stream(cx: &StatementContext, stream: &Stream) -> Result<u64> {
    accepts_truncate(stream)?;
    let Some(retention) = &stream.retention else { return Ok(0) };
    let instance = &cx.instance;
    let rows = retention.truncate(|rows| match &instance.store {
        // The rows of a stream in memory are gone at the next start, and their offsets too.
        Some(store) if retention.is_archived() => store.truncate(&stream.name, rows),
        _ => Ok(()),
    });
    let rows = rows.await?;
    pass_now(retention, &instance.parts, cx.catalog()).await;
    Ok(rows)
}
