//! Reference tables in a data directory: external ones by their definition, tables in memory by
//! their rows, which are written anew at each change. Reference tables are small.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;

use crate::durable::definitions::{Definition, Kind};
use crate::durable::store::Store;
use crate::engine::SCHEMA;
use crate::session::Session;

/// What a statement of DataFusion's changes that has to be durable.
#[derive(Debug)]
pub(super) enum Change {
    /// A table was made.
    Made(String),
    /// Rows were inserted, updated or deleted.
    Rows(String),
}

impl Change {
    /// What `plan` changes, if anything.
    pub(super) fn of(plan: &LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                Some(Self::Made(table.name.table().to_owned()))
            }
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
                Some(Self::Made(table.name.table().to_owned()))
            }
            LogicalPlan::Dml(dml) => Some(Self::Rows(dml.table_name.table().to_owned())),
            _ => None,
        }
    }
}

impl Session {
    /// Makes a change durable, where there is a data directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn keep_change(&self, change: Change, text: &str) -> Result<()> {
        let Some(store) = self.engine.store.as_ref().filter(|_| self.restoring.is_none()) else {
            return Ok(());
        };
        let definition = match &change {
            Change::Made(name) => Some(store.record(name, Kind::Table, text)?),
            Change::Rows(name) => {
                store.definitions().into_iter().find(|d| d.name == *name && d.kind == Kind::Table)
            }
        };
        match definition {
            Some(definition) => self.keep_rows(store, &definition).await,
            None => Ok(()),
        }
    }

    /// Writes the rows of a table that lives in memory.
    async fn keep_rows(&self, store: &Store, definition: &Definition) -> Result<()> {
        let name = definition.name.as_str();
        let table = self.context.table_provider(format!("{SCHEMA}.\"{name}\"")).await;
        let table = table.map_err(from_datafusion)?;
        if table.downcast_ref::<MemTable>().is_none() {
            return Ok(());
        }
        let schema = table.schema();
        let frame = self.context.read_table(table).map_err(from_datafusion)?;
        let rows = frame.collect().await.map_err(from_datafusion)?;
        let mut bytes = Vec::new();
        let mut writer = FileWriter::try_new(&mut bytes, &schema)?;
        rows.iter().try_for_each(|batch| writer.write(batch))?;
        writer.finish()?;
        drop(writer);
        store.write_table(definition, &bytes)
    }

    /// A reference table is there again: from its rows, or by its definition.
    ///
    /// # Errors
    /// When the rows are damaged, or the definition cannot be made again.
    pub(super) async fn restore_table(&self, definition: &Definition) -> Result<bool> {
        let Some(store) = &self.engine.store else { return Ok(false) };
        let Some((path, bytes)) = store.read_table(definition)? else { return Ok(false) };
        let table = read_rows(&path, &bytes)?;
        let name = format!("{SCHEMA}.\"{}\"", definition.name);
        self.context.register_table(name, Arc::new(table)).map_err(from_datafusion)?;
        Ok(true)
    }
}

/// The rows in the bytes of a table's file.
fn read_rows(path: &Path, bytes: &[u8]) -> Result<MemTable> {
    let damaged = |e: arrow::error::ArrowError| {
        Error::new(ErrorKind::Corrupt, format!("\"{}\" is damaged: {e}", path.display()))
            .with_hint("Restore the file from a backup; nothing has been overwritten.")
            .with_source(e)
    };
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(damaged)?;
    let schema = reader.schema();
    let rows: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(damaged)?;
    MemTable::try_new(schema, vec![rows]).map_err(from_datafusion)
}
