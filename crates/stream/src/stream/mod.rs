//! Stream tables: what a name with offsets and a watermark is made of, and how it is read.

mod feed;
pub mod table;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use windrow_core::{Clock, Source, StreamSchema};
use windrow_sql::plan::{EventTime, StreamRelation};

use crate::followers::ReadBy;
use crate::history::History;
use crate::intake::Intake;
use crate::kept::BadRows;
use crate::log::StreamLog;
use crate::log_reader::LogSource;
use crate::push::PushStream;
use crate::retention::Retention;
use crate::stream::table::{LeftOut, LogContents, SourceContents, Table};

/// How far ahead of the wall clock a row of an endless source may be stamped: 5 minutes.
pub const MAX_FUTURE_SKEW_MICROS: i64 = 5 * 60 * 1_000_000;

/// A stream, or a materialized view as its readers see it.
#[derive(Debug)]
pub struct Stream {
    /// By which SQL knows it.
    pub name: String,
    /// Its columns, the event time among them.
    pub schema: StreamSchema,
    /// Where its rows come from.
    pub feed: Feed,
    /// What is kept of a connector's rows, if anything.
    pub history: Option<Arc<History>>,
    /// When its partitions are idle, and what its watermark does then.
    pub when_idle: Option<WhenIdle>,
    /// Set by the user; `None`: [`MAX_FUTURE_SKEW_MICROS`] for endless sources.
    pub max_future_skew_micros: Option<i64>,
    /// The name of its connector, for people.
    pub connector: String,
    /// Reading it after a restart gives the same rows.
    pub replayable: bool,
    /// What releases its old rows, if they are not retained for ever.
    pub retention: Option<Arc<Retention>>,
    /// Where its bad rows are kept.
    pub bad_rows: Arc<BadRows>,
    /// Tells when its partitions are idle.
    pub clock: Arc<dyn Clock>,
}

/// When a partition is idle by the clock, and what its watermark does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhenIdle {
    /// After so long without a row.
    pub after_micros: i64,
    /// Its watermark follows the clock; otherwise it stays, and holds no window back.
    pub by_clock: bool,
}

/// Where a stream's rows come from.
#[derive(Debug, Clone)]
pub enum Feed {
    /// INSERT.
    Push(Arc<PushStream>),
    /// A connector.
    Source(Arc<dyn Source>),
    /// The finished windows of a view.
    View(Arc<StreamLog>),
}

impl Stream {
    /// A new reading of the stream, from an offset on where it has a log (`None`: from its
    /// beginning). `bounded`: what is there now; otherwise `read_by` says for how long writers of
    /// its log wait for it.
    pub fn source(&self, bounded: bool, read_by: ReadBy, from: Option<u64>) -> Arc<dyn Source> {
        match &self.feed {
            Feed::Source(source) => Arc::clone(source),
            Feed::Push(push) if bounded => {
                Arc::new(LogSource::snapshot(Arc::clone(&push.log), from, false))
            }
            Feed::Push(push) => {
                Arc::new(LogSource::follow(Arc::clone(&push.log), from, false).at(read_by))
            }
            Feed::View(log) if bounded => {
                Arc::new(LogSource::snapshot(Arc::clone(log), from, true))
            }
            Feed::View(log) => Arc::new(LogSource::follow(Arc::clone(log), from, true).at(read_by)),
        }
    }

    /// What is there now for a replay: what was kept of a connector's rows, where some are.
    pub(crate) fn replayed(&self, from: Option<u64>) -> Arc<dyn Source> {
        match &self.history {
            Some(history) => {
                Arc::new(LogSource::snapshot(Arc::clone(&history.push.log), from, false))
            }
            None => self.source(true, ReadBy::Client, from),
        }
    }

    /// The checks on its rows.
    pub fn intake(&self) -> Intake {
        let max_future_skew_micros = match (&self.feed, self.max_future_skew_micros) {
            (_, Some(micros)) => Some(micros),
            (Feed::Source(source), None) if source.is_bounded() => None,
            (Feed::View(_), None) => None,
            // What was pushed has been checked when it was pushed.
            (Feed::Push(_), None) => None,
            (Feed::Source(_), None) => Some(MAX_FUTURE_SKEW_MICROS),
        };
        Intake {
            time: self.schema.event_time().map(|e| e.index),
            valid: i64::MIN..=i64::MAX,
            max_future_skew_micros,
        }
    }

    /// What the planner sees. `event_times` of a view come from its plan.
    pub fn relation(self: &Arc<Self>, event_times: Option<Vec<EventTime>>) -> StreamRelation {
        let event_times = event_times.unwrap_or_else(|| {
            let time = self.schema.event_time();
            let plain = |column| EventTime { column, lag_ticks: 0, closes: false, to_end: None };
            time.map(|e| plain(e.index)).into_iter().collect()
        });
        let bounded = self.contents(LeftOut::default());
        let schema = Arc::clone(self.schema.schema());
        StreamRelation::new(self.name.clone(), schema, event_times, bounded)
    }

    /// What the stream holds when it is scanned, but for some rows.
    pub fn contents(self: &Arc<Self>, left_out: LeftOut) -> Arc<dyn TableProvider> {
        match &self.feed {
            Feed::Push(push) => Arc::new(Table(LogContents::new(Arc::clone(&push.log), left_out))),
            Feed::View(log) => Arc::new(Table(LogContents::new(Arc::clone(log), left_out))),
            Feed::Source(source) => match &self.history {
                // Single rows are named by the partitions of the source.
                Some(history) if left_out.is_empty() => {
                    Arc::new(Table(LogContents::of_history(history)))
                }
                _ => Arc::new(Table(SourceContents {
                    stream: self.name.as_str().into(),
                    schema: self.schema.clone(),
                    source: Arc::clone(source),
                    intake: self.intake(),
                    bad_rows: Arc::clone(&self.bad_rows),
                    clock: Arc::clone(&self.clock),
                    left_out: Arc::new(left_out),
                })),
            },
        }
    }

    /// The log that holds its rows here: those that were pushed, or kept of a connector.
    pub fn kept(&self) -> Option<&Arc<PushStream>> {
        match &self.feed {
            Feed::Push(push) => Some(push),
            Feed::Source(_) => self.history.as_ref().map(|history| &history.push),
            Feed::View(_) => None,
        }
    }
}
