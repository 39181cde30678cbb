//! Statements sent to a server, and their rows. A subscription whose connection is lost is resumed behind its last row.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use futures::FutureExt;
use futures::future::BoxFuture;
use windrow_core::{Clock, Error, ErrorKind, Place, Result};
use windrow_engine::{ReadProgress, UnusedRows};
use windrow_flight::client::{Client, RemoteRows, Reply};
use windrow_sql::parse::{Parsed, Statement};

use crate::clock::clock;
use crate::progress::{Live, micros};

/// How often, and after which pauses, a lost subscription is retried.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);

/// The result of a statement.
pub(super) enum Remote {
    /// Rows.
    Rows(Box<Subscribed>),
    /// The statement is done; a summary for people.
    Done(String),
}

/// Executes a statement on a server.
///
/// # Errors
/// As [`Client::execute`], with places in the text that was parsed.
pub(super) async fn execute(client: &Client, statement: &Parsed) -> Result<Remote> {
    let reply = client.execute(&statement.text).await.map_err(|e| placed(e, statement))?;
    Ok(match reply {
        Reply::Done(said) => Remote::Done(said),
        Reply::Rows(rows) => {
            let is_continuous = match &statement.statement {
                Statement::Query(query) => !query.tail.is_empty(),
                Statement::Subscribe { .. } => true,
                _ => false,
            };
            let resume = match &statement.statement {
                Statement::Subscribe { view, after, .. } => Some((view.to_string(), *after)),
                _ => None,
            };
            let client = client.clone();
            Remote::Rows(Box::new(Subscribed { client, rows, is_continuous, resume, again: None }))
        }
    })
}

/// Returns the views of a server that have failed or cannot be opened, with a message about each.
///
/// # Errors
/// As [`Client::execute`].
pub(super) async fn failed_views(client: &Client) -> Result<Vec<String>> {
    let sql = "SELECT CASE status WHEN 'failed' THEN 'view \"' || name || '\" has failed: ' || error ELSE error END \
               FROM windrow.views WHERE status IN ('failed', 'broken') ORDER BY name";
    let Reply::Rows(mut rows) = client.execute(sql).await? else { return Ok(vec![]) };
    let mut told = vec![];
    while let Some(batch) = rows.next().await.transpose()? {
        let Some(column) = batch.columns().first() else { continue };
        for row in 0..batch.num_rows() {
            told.push(array_value_to_string(column, row)?);
        }
    }
    Ok(told)
}

/// Translates the place of an error from the statement to the text that contained it.
fn placed(error: Error, statement: &Parsed) -> Error {
    let Some(place) = error.place() else { return error };
    let column = |line: usize, column: usize| match line {
        1 => column + statement.first_column - 1,
        _ => column,
    };
    let lines = statement.first_line - 1;
    error.with_place(Place {
        line: place.line + lines,
        column: column(place.line, place.column),
        end_line: place.end_line + lines,
        end_column: column(place.end_line, place.end_column),
    })
}

/// Rows of a server.
pub(crate) struct Subscribed {
    client: Client,
    rows: Box<RemoteRows>,
    is_continuous: bool,
    /// The view that is followed, and the number of the last row, where known.
    resume: Option<(String, Option<u64>)>,
    /// The attempt to reconnect after the connection was lost. It is stored because the future of [`next`](Self::next)
    /// is dropped whenever something else is to be shown.
    again: Option<BoxFuture<'static, Result<Box<RemoteRows>>>>,
}

impl Subscribed {
    pub(super) fn schema(&self) -> &SchemaRef {
        self.rows.schema()
    }

    pub(super) fn is_continuous(&self) -> bool {
        self.is_continuous
    }

    pub(super) fn live(&self) -> Live {
        let Some(position) = self.rows.position() else { return Live::default() };
        Live {
            watermark_micros: position.watermark.as_deref().and_then(micros),
            windows_open: position.open_windows,
            rows_in: position.rows_in,
        }
    }

    /// How much a bounded statement has read, as the server last reported.
    pub(super) fn read_progress(&self) -> Option<ReadProgress> {
        let position = self.rows.position()?;
        let (rows, bytes) = (position.rows_in?, position.bytes?);
        Some(ReadProgress { rows, bytes, bytes_total: position.bytes_total? })
    }

    /// As the server last reported.
    pub(super) fn unused_rows(&self) -> Option<UnusedRows> {
        let position = self.rows.position()?;
        Some(UnusedRows { late: position.late?, bad: position.bad? })
    }

    /// Returns the next rows; `None` when there are no more. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if let Some(again) = &mut self.again {
                let found = again.await;
                self.again = None;
                match found {
                    Ok(rows) => self.rows = rows,
                    Err(error) => return Some(Err(error)),
                }
            }
            let next = self.rows.next().await;
            if let (Some((_, last)), Some(sequence)) =
                (&mut self.resume, self.rows.position().and_then(|p| p.sequence))
            {
                *last = Some(sequence);
            }
            match next {
                Some(Err(error)) if error.kind() == ErrorKind::Unavailable => {
                    let Some((view, Some(sequence))) = self.resume.clone() else {
                        return Some(Err(error));
                    };
                    let again = again(self.client.clone(), view, sequence, error);
                    self.again = Some(again.boxed());
                }
                // A progress report only.
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                other => return other,
            }
        }
    }
}

/// Subscribes again behind a row.
async fn again(
    client: Client,
    view: String,
    sequence: u64,
    lost: Error,
) -> Result<Box<RemoteRows>> {
    let sql = format!("SUBSCRIBE TO {view} AFTER {sequence}");
    tell(&format!("notice: {}; trying again …", lost.message()));
    let mut last = lost;
    for attempt in 0..TRIES {
        clock().sleep(PAUSE * 2_u32.pow(attempt.min(5))).await;
        match client.execute(&sql).await {
            Ok(Reply::Rows(rows)) => {
                tell(&format!("notice: connected again, behind row {sequence}"));
                return Ok(rows);
            }
            Ok(Reply::Done(_)) => return Err(last),
            Err(error) if error.kind() == ErrorKind::Unavailable => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[expect(clippy::print_stderr, reason = "notices go there")]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use windrow_sql::parse::parse;

    use super::*;

    #[test]
    fn places_move_to_the_whole_text() {
        let statement = parse("SELECT 1;\n  SELECT x").unwrap().remove(1);
        let error = placed(Error::sql("no x").with_place(Place::at(1, 8)), &statement);
        assert_eq!(error.place(), Some(Place::at(2, 10)));
        assert_eq!(placed(Error::sql("no"), &statement).place(), None);
    }
}
