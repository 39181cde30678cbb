//! A connection that is ready to write: the table is checked, and statements are prepared.
//!
//! ```text
//! BEGIN ─► SELECT sequence … FOR UPDATE ─► COPY ─► [INSERT … ON CONFLICT] ─► UPDATE sequence, columns as before? ─► COMMIT
//! ```
//! The row of the sink in `windrow_sinks` is locked first: of two processes that write for one sink, the second sees what the
//! first has committed. The lock of COPY keeps the columns as they are until the end, so that they are compared after it.
//!
//! Invariant: rows and their sequence are committed together, and only after the sequence before them.

use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use futures::SinkExt;
use tokio::runtime::Handle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Statement, Transaction};
use windrow_core::{Error, ErrorKind, Result};

use super::binary::{HEADER, TRAILER, append};
use super::connection::{Connection, judged, refused_row};
use super::options::PostgresOptions;
use super::table::{Table, quoted};
use super::types::PgType;

/// Bytes of rows that are sent as one message.
const MESSAGE_BYTES: usize = 256 << 10;

/// The rows of one commit, with their numbers.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The sequence before them.
    pub(super) from: u64,
    /// The sequence after them.
    pub(super) to: u64,
    /// Rows, and the number of the first one of each batch.
    pub(super) batches: Vec<(u64, RecordBatch)>,
}

impl Rows {
    /// Returns the number of the row at a position in the batches.
    fn number(&self, place: u64) -> Option<u64> {
        let mut before = 0;
        for (first, rows) in &self.batches {
            let count = rows.num_rows() as u64;
            if place < before + count {
                return Some(first + (place - before));
            }
            before += count;
        }
        None
    }
}

/// Why rows were not written.
#[derive(Debug)]
pub(super) enum Failure {
    /// The table has been altered since the statements were prepared.
    Changed,
    /// An error, and the number of the refused row, if known.
    Error(Error, Option<u64>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error, None)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    columns: Vec<PgType>,
    /// Describes the columns of the table.
    signature: String,
    begin: Statement,
    lock: Statement,
    copy: Statement,
    /// Move rows from the temporary table, in order, where rows replace others.
    moves: Vec<Statement>,
    advance: Statement,
}

impl Session {
    /// Connects, checks the table and creates what is missing. Must be called on the runtime `io`.
    ///
    /// # Errors
    /// When the server does not respond, or the table cannot store the rows.
    pub(super) async fn open(
        options: &PostgresOptions,
        table: &Table,
        io: &Handle,
    ) -> Result<Self> {
        let connection = Connection::open(options, io).await?;
        let client = &connection.client;
        let failed = |error: tokio_postgres::Error| judged(&error, options);
        let (columns, signature) = table.prepare(client, options).await?;
        let ledger = format!("{}.windrow_sinks", quoted(&options.schema));
        let begin = format!(
            "INSERT INTO {ledger} (id, sink, sequence) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING"
        );
        let lock = format!("SELECT sequence FROM {ledger} WHERE id = $1 FOR UPDATE");
        let signed = table.signature_sql(options);
        let advance = format!(
            "UPDATE {ledger} SET sequence = $2, updated = now() WHERE id = $1 RETURNING ({signed})"
        );
        let mut moves = vec![];
        for sql in table.move_sql(options) {
            moves.push(client.prepare(&sql).await.map_err(failed)?);
        }
        Ok(Self {
            begin: client.prepare(&begin).await.map_err(failed)?,
            lock: client.prepare(&lock).await.map_err(failed)?,
            copy: client.prepare(&table.copy_sql(options)).await.map_err(failed)?,
            moves,
            advance: client.prepare(&advance).await.map_err(failed)?,
            columns,
            signature,
            connection,
        })
    }

    /// Returns the sequence that is committed for a sink.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn sequence(
        &mut self,
        id: &str,
        options: &PostgresOptions,
    ) -> Result<Option<u64>> {
        let client = &mut self.connection.client;
        // Once the row is locked, no other connection has a transaction open for this sink.
        let found = client.query_opt(&self.lock, &[&id]).await;
        let found = found.map_err(|e| judged(&e, options))?;
        let Some(row) = found else { return Ok(None) };
        let sequence = row.try_get(0).map_err(|e| judged(&e, options))?;
        unsigned(sequence).map(Some)
    }

    /// Writes rows and their sequence in one transaction. Rows that are there already are not written again.
    ///
    /// # Errors
    /// When they are not known to be committed.
    pub(super) async fn write(
        &mut self,
        (id, sink): (&str, &str),
        rows: &Rows,
        options: &PostgresOptions,
    ) -> Result<(), Failure> {
        let failed = |error: tokio_postgres::Error| Failure::from(judged(&error, options));
        let (from, to) = (signed(rows.from)?, signed(rows.to)?);
        let transaction = self.connection.client.transaction().await.map_err(failed)?;
        let mut found = transaction.query_opt(&self.lock, &[&id]).await.map_err(failed)?;
        if found.is_none() {
            transaction.execute(&self.begin, &[&id, &sink, &from]).await.map_err(failed)?;
            found = transaction.query_opt(&self.lock, &[&id]).await.map_err(failed)?;
        }
        let has = match found {
            Some(row) => row.try_get(0).map_err(failed)?,
            None => from,
        };
        if has == to {
            // The response to a commit was lost.
            return transaction.rollback().await.map_err(failed);
        }
        if has != from {
            return Err(Failure::from(elsewhere(sink, has, rows.from, options)));
        }
        if rows.batches.iter().any(|(_, rows)| rows.num_rows() > 0) {
            copy_in(
                &transaction,
                (&self.copy, &self.columns),
                !self.moves.is_empty(),
                rows,
                options,
            )
            .await?;
            for statement in &self.moves {
                transaction.execute(statement, &[]).await.map_err(failed)?;
            }
        }
        let now = transaction.query_one(&self.advance, &[&id, &to]).await.map_err(failed)?;
        let signature: Option<String> = now.get(0);
        if signature.as_deref() != Some(&self.signature) {
            transaction.rollback().await.map_err(failed)?;
            return Err(Failure::Changed);
        }
        // Deferred constraints are checked here.
        transaction.commit().await.map_err(failed)
    }
}

/// Sends rows by COPY, with their row numbers if `numbered`.
async fn copy_in(
    transaction: &Transaction<'_>,
    (copy, columns): (&Statement, &[PgType]),
    numbered: bool,
    rows: &Rows,
    options: &PostgresOptions,
) -> Result<(), Failure> {
    let failed = |error: tokio_postgres::Error| {
        let is_altered =
            [&SqlState::INVALID_BINARY_REPRESENTATION, &SqlState::BAD_COPY_FILE_FORMAT];
        if error.code().is_some_and(|code| is_altered.contains(&code)) {
            return Failure::Changed;
        }
        let row = refused_row(&error).and_then(|place| rows.number(place));
        Failure::Error(judged(&error, options), row)
    };
    let copy = transaction.copy_in::<_, Bytes>(copy).await.map_err(failed)?;
    let mut copy = std::pin::pin!(copy);
    let mut buffer = HEADER.to_vec();
    let mut sent = Ok(());
    'rows: for (first, batch) in &rows.batches {
        let number = numbered.then_some(*first);
        let bytes = size_of(batch).max(1);
        let step = (batch.num_rows() * MESSAGE_BYTES / bytes).clamp(1, 1_024);
        for at in (0..batch.num_rows()).step_by(step) {
            let part = batch.slice(at, step.min(batch.num_rows() - at));
            append(&part, columns, number.map(|n| n + at as u64), &mut buffer)?;
            if buffer.len() >= MESSAGE_BYTES {
                sent = copy.as_mut().send(Bytes::from(std::mem::take(&mut buffer))).await;
                if sent.is_err() {
                    break 'rows;
                }
            }
        }
    }
    if sent.is_ok() {
        buffer.extend_from_slice(TRAILER);
        sent = copy.as_mut().send(Bytes::from(buffer)).await;
    }
    // The server's error, if there is one, says more than the failure to send.
    match copy.finish().await {
        Ok(_) => sent.map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Returns the size of rows, in bytes.
pub(super) fn size_of(rows: &RecordBatch) -> usize {
    let sizes = rows.columns().iter().map(|c| c.to_data().get_slice_memory_size());
    sizes.map(|size| size.unwrap_or(0)).sum()
}

/// The error when another process writes for this sink, or the database was restored.
pub(super) fn elsewhere(sink: &str, has: i64, from: u64, options: &PostgresOptions) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "\"{}.windrow_sinks\" has {has} rows of sink \"{sink}\", and {from} were committed",
            options.schema
        ),
    )
    .with_detail("A copy of the data directory writes to it also, or one of the two was restored from a backup.")
    .with_hint(format!(
        "CREATE OR REPLACE SINK {sink} goes on after row {from}, if that is what the table needs."
    ))
}

fn signed(sequence: u64) -> Result<i64> {
    i64::try_from(sequence).map_err(|_| Error::internal("a sequence is too large"))
}

fn unsigned(sequence: i64) -> Result<u64> {
    u64::try_from(sequence).map_err(|_| {
        Error::new(ErrorKind::Corrupt, format!("\"windrow_sinks\" has the sequence {sequence}"))
    })
}
