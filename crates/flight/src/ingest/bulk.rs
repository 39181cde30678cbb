//! `CommandStatementIngest`, the command of `adbc_ingest`: rows into a stream, which is created for them on request.
//!
//! Rows enter in pieces of up to [`PIECE_ROWS_MAX`] rows, each atomically. So a call with fewer rows is atomic, as an
//! INSERT is.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::sql::CommandStatementIngest;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{TableExistsOption, TableNotExistOption};
use futures::{TryFutureExt, TryStreamExt};
use tonic::Status;
use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::{Ingest, Session};

use super::declare::declaration;
use super::{PLACES, decoded, unreadable};
use crate::status::refused;

/// Rows that enter together at most.
const PIECE_ROWS_MAX: usize = 1 << 20;
/// Bytes of the messages with these rows; more enter in pieces.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// Ingests the rows; returns how many are in the stream now.
pub(crate) async fn bulk(
    session: &Session,
    command: CommandStatementIngest,
    data: PeekableFlightDataStream,
) -> Result<i64, Status> {
    let mut rows = Rows { data: decoded(data), taken: 0 };
    rows.ingest(session, &command).await.map_err(|error| {
        // Rows already in the stream are not rolled back.
        let said = match rows.taken {
            0 => error,
            taken => error.with_hint(format!("{taken} rows are in the stream already.")),
        };
        refused(said)
    })
}

struct Rows {
    data: FlightDataDecoder,
    /// Rows that are in the stream.
    taken: u64,
}

impl Rows {
    async fn ingest(&mut self, session: &Session, command: &CommandStatementIngest) -> Result<i64> {
        let mode = IngestMode::of(command)?;
        let Some(schema) = self.schema().await? else {
            return Err(Error::data("no columns were sent"));
        };
        let ingest = mode.open(session, &command.table, &schema).await?;
        let (mut piece, mut rows, mut bytes) = (vec![], 0, 0);
        while let Some(message) = self.data.try_next().map_err(unreadable).await? {
            let DecodedPayload::RecordBatch(batch) = message.payload else { continue };
            let more = message.inner.data_body.len();
            if rows + batch.num_rows() > PIECE_ROWS_MAX || bytes + more > PIECE_BYTES_MAX {
                self.enter(&ingest, std::mem::take(&mut piece)).await?;
                (rows, bytes) = (0, 0);
            }
            rows += batch.num_rows();
            bytes += more;
            piece.push(batch);
        }
        self.enter(&ingest, piece).await?;
        Ok(i64::try_from(self.taken).unwrap_or(i64::MAX))
    }

    /// The columns, which arrive first.
    async fn schema(&mut self) -> Result<Option<SchemaRef>> {
        while let Some(message) = self.data.try_next().map_err(unreadable).await? {
            if let DecodedPayload::Schema(schema) = message.payload {
                return Ok(Some(schema));
            }
        }
        Ok(None)
    }

    async fn enter(&mut self, ingest: &Ingest, piece: Vec<RecordBatch>) -> Result<()> {
        if !piece.is_empty() {
            self.taken += ingest.offer(piece, None).await?.settled().await?.rows;
        }
        Ok(())
    }
}

/// What the client requests about the stream itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IngestMode {
    /// It must exist.
    Append,
    /// It must not exist and is created.
    Create,
    /// It is created if it does not exist.
    CreateAppend,
    /// It is created, replacing any existing one.
    Replace,
}

impl IngestMode {
    fn of(command: &CommandStatementIngest) -> Result<Self> {
        if command.temporary {
            return Err(Error::config("streams are not temporary").with_hint(
                "Ingest without \"temporary\"; drop the stream when it is no longer needed.",
            ));
        }
        if command.transaction_id.is_some() {
            return Err(Error::config("there are no transactions").with_hint("Use autocommit."));
        }
        let [catalog, schema] = PLACES;
        for (given, known, what) in
            [(&command.catalog, catalog, "catalog"), (&command.schema, schema, "schema")]
        {
            if let Some(given) = given.as_ref().filter(|g| !g.is_empty() && *g != known) {
                let message = format!("there is no {what} \"{given}\"");
                return Err(Error::new(ErrorKind::NotFound, message)
                    .with_hint(format!("The one {what} is \"{known}\".")));
            }
        }
        // Without options the stream must exist.
        let Some(options) = &command.table_definition_options else { return Ok(Self::Append) };
        match (options.if_not_exist(), options.if_exists()) {
            (TableNotExistOption::Fail, TableExistsOption::Append) => Ok(Self::Append),
            (TableNotExistOption::Create, TableExistsOption::Fail) => Ok(Self::Create),
            (TableNotExistOption::Create, TableExistsOption::Append) => Ok(Self::CreateAppend),
            (TableNotExistOption::Create, TableExistsOption::Replace) => Ok(Self::Replace),
            (absent, there) => Err(Error::config(format!(
                "ingest cannot do this: {} and {}",
                absent.as_str_name(),
                there.as_str_name()
            ))
            .with_hint("Known modes: append, create, create_append, replace.")),
        }
    }

    /// Opens the stream for ingestion.
    async fn open(self, session: &Session, name: &str, schema: &SchemaRef) -> Result<Ingest> {
        let create = match self {
            Self::Append => return session.ingest(name, schema),
            Self::Create => "CREATE STREAM",
            Self::Replace => "CREATE OR REPLACE STREAM",
            Self::CreateAppend => match session.ingest(name, schema) {
                Err(error) if error.kind() == ErrorKind::NotFound => "CREATE STREAM IF NOT EXISTS",
                known => return known,
            },
        };
        session.run(&declaration(create, name, schema)?).await?;
        session.ingest(name, schema)
    }
}
