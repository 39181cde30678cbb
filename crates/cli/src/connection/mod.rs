//! Where statements go: the engine in this process, or a server. Everything that reads, runs and
//! prints is the same for both.

mod remote;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use windrow_core::{ErrorKind, Result};
use windrow_engine::{Engine, Outcome, ResultStream, Session, SessionOptions, UnusedRows};
use windrow_flight::client::Client;
use windrow_sql::parse::Parsed;

use self::remote::{Remote, Subscribed};
use crate::progress::Live;

/// Where statements go.
#[derive(Debug, Clone)]
pub(crate) enum Connection {
    /// The engine in this process.
    Embedded {
        /// The engine.
        engine: Engine,
        /// The session of whoever types, or of the script.
        session: Session,
    },
    /// A server.
    Remote(Client),
}

/// What a statement gives back.
pub(crate) enum Answer {
    /// Rows, now or as windows close.
    Rows(Rows),
    /// It is done; what was done, for people.
    Done(String),
}

/// Rows on their way. Dropping them stops their query.
pub(crate) enum Rows {
    /// From the engine in this process.
    Embedded {
        /// Whose they are.
        engine: Engine,
        /// The rows.
        rows: ResultStream,
    },
    /// From a server.
    Remote(Box<Subscribed>),
}

impl Connection {
    /// A connection to the engine in this process, with a session of its own. In a REPL, others may
    /// feed streams while a query runs; in a script nobody can, so what a stream holds is all.
    ///
    /// # Errors
    /// When there can be no session (our bug).
    pub(crate) fn embedded(engine: &Engine, is_repl: bool) -> Result<Self> {
        let options = SessionOptions { push_ends: !is_repl };
        Ok(Self::Embedded { engine: engine.clone(), session: engine.session(options)? })
    }

    /// The engine in this process, if statements go there.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Embedded { engine, .. } => Some(engine),
            Self::Remote(_) => None,
        }
    }

    /// Executes one statement. Dropping the future, or the rows it gives, stops it.
    ///
    /// # Errors
    /// What is wrong with it, with its place in the text that was parsed; what failed.
    pub(crate) async fn execute(&self, statement: &Parsed) -> Result<Answer> {
        match self {
            Self::Embedded { engine, session } => Ok(match session.execute(statement).await? {
                Outcome::Rows(rows) => {
                    Answer::Rows(Rows::Embedded { engine: engine.clone(), rows })
                }
                Outcome::Done(done) => Answer::Done(done.said),
            }),
            Self::Remote(client) => Ok(match remote::execute(client, statement).await? {
                Remote::Rows(rows) => Answer::Rows(Rows::Remote(rows)),
                Remote::Done(message) => Answer::Done(message),
            }),
        }
    }

    /// The views of a server that have failed or cannot be opened, with what people are told of them.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) async fn failed_views(&self) -> Result<Vec<String>> {
        match self {
            Self::Embedded { .. } => Ok(vec![]),
            Self::Remote(client) => remote::failed_views(client).await,
        }
    }

    /// Waits for what was started: in this process all views that will be done by themselves, and those over
    /// streams that are pushed, until they have taken in what those hold; on a server, where views outlive the program, `created` ones, until they have taken in what their
    /// inputs hold.
    ///
    /// # Errors
    /// What a view failed with.
    pub(crate) async fn drain(&self, created: &[String]) -> Result<()> {
        match self {
            Self::Embedded { engine, .. } => engine.settle().await,
            Self::Remote(client) => {
                for view in created {
                    match client.execute(&format!("WAIT FOR {view}")).await {
                        // It was dropped again.
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

    /// Whether rows come as windows close.
    pub(crate) fn is_continuous(&self) -> bool {
        match self {
            Self::Embedded { rows, .. } => rows.is_continuous(),
            Self::Remote(rows) => rows.is_continuous(),
        }
    }

    /// The next rows; `None` when there are no more.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self {
            Self::Embedded { rows, .. } => rows.next().await,
            Self::Remote(rows) => rows.next().await,
        }
    }

    /// What became of input rows that did not count, as far as that is known.
    pub(crate) fn unused_rows(&self) -> Option<UnusedRows> {
        match self {
            Self::Embedded { rows, .. } => rows.unused_rows(),
            Self::Remote(rows) => rows.unused_rows(),
        }
    }

    /// How far the query is, for the status line.
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
