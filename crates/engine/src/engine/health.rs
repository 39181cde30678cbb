//! Metrics of an engine, for monitoring.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use windrow_query::latency::LatencySnapshot;
use windrow_query::shared::{Shared, Status};
use windrow_query::survey::OperatorSize;
use windrow_stream::spill::Spiller;

use super::Engine;
use crate::catalog::Object;

/// Metrics of an engine at some moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// The running continuous queries, and those of all materialized views.
    pub queries: Vec<QueryHealth>,
    /// The streams without connector, and the materialized views.
    pub logs: Vec<LogHealth>,
    /// How far streams are behind the clock, for each query that reads them.
    pub lags: Vec<Lag>,
}

/// One continuous query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryHealth {
    /// Its name: that of the view, or `query_` and its number.
    pub name: String,
    /// Whether it ended with an error.
    pub failed: bool,
    /// Whether it is running.
    pub running: bool,
    /// Rows read from its streams.
    pub rows_in: u64,
    /// Rows produced.
    pub rows_out: u64,
    /// Rows that were late: their windows had closed.
    pub rows_late: u64,
    /// Rows that could not be read or computed.
    pub rows_bad: u64,
    /// Windows that have rows and are not closed yet.
    pub windows_open: u64,
    /// Windows closed so far.
    pub windows_closed: u64,
    /// State of its windows in memory, in bytes.
    pub state_bytes: u64,
    /// State of its windows that has been spilled to disk, in bytes.
    pub spilled_bytes: u64,
    /// What each of its operators keeps.
    pub operators: Vec<OperatorHealth>,
    /// The latencies of its micro-batches.
    pub latency: LatencySnapshot,
}

/// What one operator of a query keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorHealth {
    /// What it is, and the leaf that reads it, as EXPLAIN shows them.
    pub operator: Arc<str>,
    /// Bytes of memory.
    pub bytes: u64,
    /// Open windows or sessions; rows where an operator keeps rows.
    pub open: u64,
    /// Rows, alone or as part of an aggregate.
    pub rows: u64,
}

/// The log of a stream or view.
#[derive(Debug, Clone, PartialEq)]
pub struct LogHealth {
    /// Its name.
    pub name: String,
    /// Rows appended, those that retention has dropped included.
    pub rows: u64,
    /// Number of files of the archive, and their bytes; `None`: it has no archive.
    pub files: Option<(u64, u64)>,
    /// Why rows cannot be archived.
    pub archive_error: Option<String>,
    /// When the newest checkpoint was taken (µs since the Unix epoch), and its bytes.
    pub checkpoint: Option<(i64, u64)>,
}

/// How far a stream is behind the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// The query.
    pub query: String,
    /// The stream that it reads.
    pub stream: String,
    /// The time from the lowest watermark of its partitions to now, in µs; negative when the watermark is ahead.
    pub micros: i64,
}

impl OperatorHealth {
    fn of(size: &OperatorSize) -> Self {
        Self {
            operator: Arc::clone(&size.operator),
            bytes: size.bytes as u64,
            open: size.open as u64,
            rows: size.rows,
        }
    }
}

impl Engine {
    /// Returns the current metrics.
    pub fn health(&self) -> Health {
        Health { queries: self.query_health(), logs: self.log_health(), lags: self.lags() }
    }

    fn query_health(&self) -> Vec<QueryHealth> {
        let (parts, catalog) = (self.parts(), self.catalog());
        let all: Vec<_> = parts.queries.lock().values().cloned().collect();
        let of_view = |q: &Arc<Shared>| {
            let view = catalog.materialized(&q.name).ok();
            view.is_some_and(|view| Arc::ptr_eq(&view.query, q))
        };
        let listed = all.into_iter().filter(|q| !q.is_over() || of_view(q));
        listed
            .map(|q| {
                let (state, total) = (q.state.lock().clone(), q.ledger.total());
                QueryHealth {
                    name: q.name.clone(),
                    failed: matches!(q.status(), Status::Failed(_)),
                    running: !q.is_over(),
                    rows_in: total.rows_in,
                    rows_out: q.ledger.rows_out(),
                    rows_late: total.late,
                    rows_bad: total.bad,
                    windows_open: state.windows_open as u64,
                    windows_closed: state.windows_closed,
                    state_bytes: state.state_bytes as u64,
                    spilled_bytes: q.spilled_bytes.load(Relaxed),
                    operators: state.operators.iter().map(OperatorHealth::of).collect(),
                    latency: q.latency.snapshot(),
                }
            })
            .collect()
    }

    fn log_health(&self) -> Vec<LogHealth> {
        let catalog = self.catalog();
        let mut logs = vec![];
        for (name, object, _) in catalog.definitions() {
            let (log, spiller, checkpoints) = match &object {
                Object::Materialized(view) => {
                    (&view.log, view.spiller.as_deref(), view.checkpoints.as_ref())
                }
                Object::Stream(stream) => match stream.push() {
                    Some(push) => (&push.log, push.spiller.as_deref(), None),
                    None => continue,
                },
                Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_) => continue,
            };
            let newest = checkpoints.and_then(|c| c.shown().pop());
            logs.push(LogHealth {
                rows: log.state().rows,
                files: spiller.map(|s| {
                    let files = s.files();
                    (files.len() as u64, files.iter().map(|f| f.bytes).sum())
                }),
                archive_error: spiller.and_then(Spiller::error),
                checkpoint: newest.map(|c| (c.taken_micros, c.bytes)),
                name,
            });
        }
        logs
    }

    fn lags(&self) -> Vec<Lag> {
        let parts = self.parts();
        let now = parts.clock.now_micros();
        let notes = parts.scans.lock().clone();
        let mut lags = vec![];
        for note in notes.iter().filter(|note| note.progress.strong_count() > 0) {
            for query in note.queries.iter().filter(|q| !q.is_over()) {
                let at = query.tap_of(&note.stream).and_then(|tap| tap.watermark_micros());
                lags.extend(at.map(|at| Lag {
                    query: query.name.clone(),
                    stream: note.stream.clone(),
                    micros: now.saturating_sub(at),
                }));
            }
        }
        lags
    }
}
