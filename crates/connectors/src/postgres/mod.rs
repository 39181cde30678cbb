//! Sinks with `connector = 'postgres'`: rows as rows of a table, each exactly once.
//!
//! ```text
//! write ─► rows, in memory ─ commit ─► one transaction: rows by COPY, the sequence in windrow_sinks
//! ```
//! `types` decides which columns a table may have, `binary` encodes values, `session` has the statements.
//!
//! Invariant: after a connection error it is unknown whether a transaction was committed; so each attempt first reads the
//! sequence, and writes only rows after it.

mod binary;
mod connection;
mod options;
mod session;
mod table;
mod tls;
mod types;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::runtime::Handle;
use windrow_core::{Clock, Error, ErrorKind, Guarantee, OffsetRange, Result, Sink};

use self::connection::in_time;
pub(crate) use self::options::OPTIONS;
use self::options::{Encryption, PostgresOptions};
use self::session::{Failure, Rows, Session};
use self::table::Table;
use crate::env::{ConnectorEnv, SinkSpec};

/// The maximum size of the rows of one commit, in bytes, unless a single batch is larger.
const BYTES_MAX: usize = 32 << 20;

/// A sink that writes to a table.
#[derive(Debug)]
struct PostgresSink {
    /// Its id, unique among all sinks that write to the database.
    id: String,
    name: String,
    options: Arc<PostgresOptions>,
    table: Table,
    io: Handle,
    clock: Arc<dyn Clock>,
    session: Option<Session>,
    /// The rows that are not committed yet.
    rows: Option<Rows>,
    /// Their size, in bytes.
    bytes: usize,
    refused: Option<u64>,
}

/// Returns a sink of the options of `CREATE SINK … WITH (connector = 'postgres', …)`. Nothing is sent yet.
///
/// # Errors
/// For invalid options, column types that PostgreSQL does not have, and a server that the user may not write to.
pub(crate) fn open(
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    let mut options = PostgresOptions::read(options)?;
    if env.files.is_confined() {
        let place = options.place();
        let shown = place.clone().unwrap_or_else(|| options.server.to_string());
        let allowed = place.is_some_and(|place| env.files.to_write(&place).is_ok());
        if !allowed {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("\"{shown}\" may not be written to by remote users"),
            )
            .with_hint(
                "An administrator allows the server, the database or the schema (--allow-path).",
            ));
        }
    }
    if let Encryption::Verified(Some(file)) = &mut options.encryption {
        *file = env.files.to_read(&file.to_string_lossy())?.into();
    }
    Ok(Box::new(PostgresSink {
        id: spec.origin.clone(),
        name: spec.name.clone(),
        table: Table::new(&spec.schema, spec.changes.as_ref(), &options)?,
        options: Arc::new(options),
        io: env.io.clone(),
        clock: Arc::clone(&env.clock),
        session: None,
        rows: None,
        bytes: 0,
        refused: None,
    }))
}

impl PostgresSink {
    /// Returns a session, and the sequence that is committed.
    async fn connect(&self) -> Result<(Session, Option<u64>)> {
        let (options, table) = (Arc::clone(&self.options), self.table.clone());
        let (io, id, clock) = (self.io.clone(), self.id.clone(), Arc::clone(&self.clock));
        let connected = self.io.spawn(async move {
            let what = format!("connecting to \"{}\"", options.server);
            let connecting = async {
                let mut session = Session::open(&options, &table, &io).await?;
                let has = session.sequence(&id, &options).await?;
                Ok((session, has))
            };
            in_time(&clock, options.timeout, &what, connecting).await
        });
        connected.await.map_err(|end| Error::internal("connecting has stopped").with_source(end))?
    }

    /// Writes rows in one transaction.
    async fn transact(&mut self, rows: &Rows) -> Result<()> {
        // Once more if the table has been altered meanwhile.
        for _ in 0..2 {
            if self.session.is_none() {
                self.session = Some(self.connect().await?.0);
            }
            let Some(session) = &mut self.session else { break };
            match session.write((&self.id, &self.name), rows, &self.options).await {
                Ok(()) => return Ok(()),
                Err(Failure::Changed) => self.session = None,
                Err(Failure::Error(error, row)) => {
                    self.refused = row;
                    return Err(error);
                }
            }
        }
        let table = self.options.shown_table();
        Err(Error::new(ErrorKind::Unavailable, format!("table \"{table}\" is being altered")))
    }
}

#[async_trait]
impl Sink for PostgresSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn wait_max(&self) -> Duration {
        self.options.batch_interval
    }

    async fn open(&mut self, known: Option<u64>) -> Result<Option<u64>> {
        let (session, has) = self.connect().await?;
        self.session = Some(session);
        if let (Some(has), Some(known)) = (has, known)
            && has < known
        {
            let has = i64::try_from(has).unwrap_or(i64::MAX);
            return Err(session::elsewhere(&self.name, has, known, &self.options));
        }
        Ok(has)
    }

    fn room(&self) -> usize {
        let taken = self.rows.as_ref().map_or(0, |rows| rows.to - rows.from);
        let left =
            self.options.batch_rows.saturating_sub(usize::try_from(taken).unwrap_or(usize::MAX));
        if self.bytes >= BYTES_MAX { 0 } else { left }
    }

    async fn write(&mut self, rows: &RecordBatch, range: OffsetRange) -> Result<()> {
        let taken =
            self.rows.get_or_insert_with(|| Rows { from: range.start(), ..Rows::default() });
        taken.to = range.end();
        if rows.num_rows() > 0 {
            self.bytes += session::size_of(rows);
            taken.batches.push((range.start(), rows.clone()));
        }
        Ok(())
    }

    async fn commit(&mut self, _: u64) -> Result<()> {
        self.refused = None;
        let Some(rows) = self.rows.take() else { return Ok(()) };
        let (clock, time) = (Arc::clone(&self.clock), self.options.timeout);
        let what = format!("writing to table \"{}\"", self.options.shown_table());
        let written = in_time(&clock, time, &what, self.transact(&rows)).await;
        match written {
            Ok(()) => self.bytes = 0,
            Err(error) => {
                if error.kind() == ErrorKind::Unavailable {
                    // Closing the connection also aborts a running statement.
                    self.session = None;
                }
                self.rows = Some(rows);
                return Err(error);
            }
        }
        Ok(())
    }

    fn refused(&self) -> Option<u64> {
        self.refused
    }

    async fn rewind(&mut self) -> Result<()> {
        (self.rows, self.bytes) = (None, 0);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        (self.rows, self.bytes, self.session) = (None, 0, None);
        Ok(())
    }
}
