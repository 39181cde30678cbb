//! The target of statements: the engine in this process, or a server. Everything that reads, runs and prints is the
//! same for both.

mod remote;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use windrow_core::{ErrorKind, Result};
use windrow_engine::{
    Engine, Outcome, ReadProgress, ResultStream, Session, SessionOptions, UnusedRows,
};
use windrow_flight::client::Client;
use windrow_sql::parse::{Parsed, parse};

use self::remote::{Remote, Subscribed};
use crate::progress::Live;

/// Rows that [`texts`] returns, about.
const TEXTS_MAX: usize = 20_000;

/// The target of statements.
#[derive(Debug, Clone)]
pub(crate) enum Connection {
    /// The engine in this process.
    Embedded {
        /// The engine.
        engine: Engine,
        /// The session of the user at the prompt, or of the script.
        session: Session,
        /// Nothing outlives the process.
        is_in_memory: bool,
    },
    /// A server.
    Remote(Client),
}

/// The result of a statement.
pub(crate) enum Answer {
    /// Rows, now or as windows close.
    Rows(Rows),
    /// The statement is done; a summary for people.
    Done(String),
}

/// Rows being received. Dropping them cancels their query.
pub(crate) enum Rows {
    /// From the engine in this process.
    Embedded {
        /// The engine that they come from.
        engine: Engine,
        /// The rows.
        rows: Box<ResultStream>,
    },
    /// From a server.
    Remote(Box<Subscribed>),
}

impl Connection {
    /// Opens a connection to the engine in this process, with a session of its own. In a REPL, others may feed streams
    /// while a query runs; in a script nothing else can, so a stream holds all that it will.
    ///
    /// # Errors
    /// When no session can be created (a bug in Windrow).
    pub(crate) fn embedded(engine: &Engine, is_repl: bool, is_in_memory: bool) -> Result<Self> {
        let options = SessionOptions { push_ends: !is_repl };
        let session = engine.session(options)?;
        Ok(Self::Embedded { engine: engine.clone(), session, is_in_memory })
    }

    /// The engine in this process, if it is the target.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Embedded { engine, .. } => Some(engine),
            Self::Remote(_) => None,
        }
    }

    /// Whether what is stored is lost with this process.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self, Self::Embedded { is_in_memory: true, .. })
    }

    /// Executes one statement. Dropping the future, or the returned rows, cancels it.
    ///
    /// # Errors
    /// What is wrong with it, with its place in the text that was parsed; what failed.
    pub(crate) async fn execute(&self, statement: &Parsed) -> Result<Answer> {
        match self {
            Self::Embedded { engine, session, .. } => {
                Ok(match session.execute(statement).await? {
                    Outcome::Rows(rows) => Answer::Rows(Rows::Embedded {
                        engine: engine.clone(),
                        rows: Box::new(rows),
                    }),
                    Outcome::Done(done) => Answer::Done(done.said),
                })
            }
            Self::Remote(client) => Ok(match remote::execute(client, statement).await? {
                Remote::Rows(rows) => Answer::Rows(Rows::Remote(rows)),
                Remote::Done(message) => Answer::Done(message),
            }),
        }
    }

    /// Returns the views of a server that have failed or cannot be opened, with a message about each.
    ///
    /// # Errors
    /// When the server does not respond.
    pub(crate) async fn failed_views(&self) -> Result<Vec<String>> {
        match self {
            Self::Embedded { .. } => Ok(vec![]),
            Self::Remote(client) => remote::failed_views(client).await,
        }
    }

    /// Waits for what was started: in this process all views that will finish by themselves, and those over pushed
    /// streams, until they have consumed what those hold; on a server, where views outlive the program, the `created`
    /// ones, until they have consumed what their inputs hold.
    ///
    /// # Errors
    /// That of a view that failed.
    pub(crate) async fn drain(&self, created: &[String]) -> Result<()> {
        match self {
            Self::Embedded { engine, .. } => engine.settle().await,
            Self::Remote(client) => {
                for view in created {
                    match client.execute(&format!("WAIT FOR {view}")).await {
                        // It was dropped meanwhile.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        done => done.map(drop)?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Rows {
    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Embedded { rows, .. } => rows.schema(),
            Self::Remote(rows) => rows.schema(),
        }
    }

    /// Whether rows arrive as windows close.
    pub(crate) fn is_continuous(&self) -> bool {
        match self {
            Self::Embedded { rows, .. } => rows.is_continuous(),
            Self::Remote(rows) => rows.is_continuous(),
        }
    }

    /// Returns the next rows; `None` when there are no more.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self {
            Self::Embedded { rows, .. } => rows.next().await,
            Self::Remote(rows) => rows.next().await,
        }
    }

    /// The numbers of late and bad input rows, as far as known.
    pub(crate) fn unused_rows(&self) -> Option<UnusedRows> {
        match self {
            Self::Embedded { rows, .. } => rows.unused_rows(),
            Self::Remote(rows) => rows.unused_rows(),
        }
    }

    /// How much a bounded statement has read, for the progress bar.
    pub(crate) fn read_progress(&self) -> Option<ReadProgress> {
        match self {
            Self::Embedded { rows, .. } => rows.read_progress(),
            Self::Remote(rows) => rows.read_progress(),
        }
    }

    /// The progress of the query, for the status line.
    pub(crate) fn live(&self) -> Live {
        match self {
            Self::Embedded { engine, rows } => {
                let status = rows.query_id().and_then(|id| engine.query_status(id));
                let watermark_micros = status.and_then(|s| s.watermark_micros);
                let windows_open = status.map(|s| s.windows_open);
                Live { watermark_micros, windows_open, rows_in: None }
            }
            Self::Remote(rows) => rows.live(),
        }
    }
}

/// Returns the first rows of a query, as texts.
///
/// # Errors
/// As [`Connection::execute`].
pub(crate) async fn texts(connection: &Connection, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut rows = vec![];
    for statement in parse(sql)? {
        let Answer::Rows(mut answer) = connection.execute(&statement).await? else { continue };
        while let Some(batch) = answer.next().await {
            let batch = batch?;
            rows.extend(rows_of(&batch)?);
            if rows.len() >= TEXTS_MAX {
                break;
            }
        }
    }
    Ok(rows)
}

fn rows_of(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| cast(column, &DataType::Utf8))
        .collect::<Result<Vec<_>, _>>()?;
    let row =
        |at: usize| columns.iter().map(|c| c.as_string::<i32>().value(at).to_owned()).collect();
    Ok((0..batch.num_rows()).map(row).collect())
}
