//! Materialized views: continuous queries whose results are stored.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, Result};
use windrow_query::shared::Shared;
use windrow_sql::plan::EventTime;
use windrow_storage::checkpoint::Checkpoints;
use windrow_stream::Stream;
use windrow_stream::answer::LiveAnswer;
use windrow_stream::log::StreamLog;
use windrow_stream::spill::Spiller;

use crate::instance::pump::Pump;

/// A materialized view.
#[derive(Debug)]
pub(crate) struct Materialized {
    pub(crate) name: String,
    /// Its rows.
    pub(crate) log: Arc<StreamLog>,
    /// The current rows of an updating result; the log contains its changes.
    pub(crate) answer: Option<Arc<LiveAnswer>>,
    /// The view as a stream, for queries that read it.
    pub(crate) stream: Arc<Stream>,
    /// Its continuous query.
    pub(crate) query: Arc<Shared>,
    /// Copies its rows to the stream that it exists for, if it does.
    pub(crate) pump: OnceLock<Arc<Pump>>,
    /// Moves its rows to the archive, in a data directory.
    pub(crate) spiller: Option<Arc<Spiller>>,
    /// The checkpoints of its query, if it can resume from some.
    pub(crate) checkpoints: Option<Arc<Checkpoints>>,
    /// Whether all its inputs end by themselves.
    pub(crate) bounded: bool,
    /// The streams and views that it reads.
    pub(crate) reads: Vec<String>,
    /// The bounded form of its query, which `VERIFY VIEW` runs.
    pub(crate) plan: LogicalPlan,
    /// The column that determines which of its rows are final.
    pub(crate) event_time: Option<EventTime>,
    /// Whether it is stateless: rows of streams pass one by one, without a window anywhere.
    pub(crate) is_stateless: bool,
    /// Two views with equal fingerprints have the same rows, whatever their text; `None`: unknown.
    pub(crate) fingerprint: Option<String>,
    /// The offsets from which it reads the streams and views that have a log, by name; others from their beginning.
    pub(crate) from: BTreeMap<String, u64>,
    /// How far before the end of a window a row of it may be, in ticks: the sum of the sizes of all windows of the query.
    pub(crate) reach_ticks: i64,
}

impl Materialized {
    /// Returns the offset up to which it has consumed a stream or view that has a log.
    pub(crate) fn consumed(&self, stream: &str) -> u64 {
        self.query.consumed(stream).max(self.from.get(stream).copied().unwrap_or(0))
    }

    /// Stops writing checkpoints of its query, before its files are deleted.
    pub(crate) async fn stop_checkpoints(&self) {
        let Some(checkpoints) = self.checkpoints.clone() else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || checkpoints.stop()).await {
            tracing::error!(name = self.name, %error, "checkpoints could not be stopped");
        }
    }

    /// The number of rows that a SELECT returns.
    pub(crate) fn rows(&self) -> u64 {
        self.answer.as_ref().map_or_else(|| self.log.held_rows(), |answer| answer.len())
    }

    /// Checks that the view has not failed.
    ///
    /// # Errors
    /// The error that its readers get.
    pub(crate) fn check(&self) -> Result<()> {
        self.log.failed().map_or(Ok(()), Err)
    }

    /// Checks that the view retains its rows.
    ///
    /// # Errors
    /// When it is in memory and feeds a stream, which then has them.
    pub(crate) fn check_retains(&self) -> Result<()> {
        if self.pump.get().is_none() || self.spiller.is_some() {
            return Ok(());
        }
        let name = &self.name;
        Err(Error::sql(format!(
            "view \"{name}\" does not retain its rows: they are in the stream that it feeds"
        ))
        .with_hint("Read the stream. With a data directory the view retains them, too."))
    }

    /// Refuses early results of windows for a consumer (`what`, such as `a sink`) that cannot take them.
    ///
    /// # Errors
    /// When the view has some.
    pub(crate) fn check_not_early(&self, what: &str) -> Result<()> {
        let columns = self.plan.schema().fields().len();
        // They have columns besides those of the query.
        let is_early = |answer: &Arc<LiveAnswer>| answer.schema().fields().len() > columns;
        if !self.answer.as_ref().is_some_and(is_early) {
            return Ok(());
        }
        let name = &self.name;
        Err(Error::sql(format!(
            "{what} needs append-only rows, and view \"{name}\" has an updating result"
        ))
        .with_hint("Use EMIT FINAL for the view: early results of its windows change."))
    }

    /// Waits for the end of its query.
    ///
    /// # Errors
    /// The error that its readers get when it fails; `Cancelled` when it is stopped.
    pub(crate) async fn ended(&self) -> Result<()> {
        let ended = self.query.ended().await;
        self.check().and(ended)
    }
}
