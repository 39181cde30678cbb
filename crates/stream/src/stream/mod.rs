//! Stream tables: a name with columns, offsets and a watermark, and how it is read.

mod feed;
pub mod table;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use windrow_core::{Clock, Source, StreamSchema};
use windrow_sql::plan::{EventTime, StreamRelation};

use crate::checks::Checks;
use crate::followers::ReadBy;
use crate::history::History;
use crate::intake::Intake;
use crate::kept::BadRows;
use crate::log::StreamLog;
use crate::log_reader::LogSource;
use crate::push::PushStream;
use crate::receiver::Receiver;
use crate::retention::Retention;
use crate::stream::table::{LeftOut, LogContents, SourceContents, Table};

/// How far the event time of a row of an unbounded source may be ahead of the wall clock, by default: 5 minutes, in µs.
pub const MAX_FUTURE_SKEW_MICROS: i64 = 5 * 60 * 1_000_000;

/// A stream, or a materialized view as its readers see it.
#[derive(Debug)]
pub struct Stream {
    /// Its name in SQL.
    pub name: String,
    /// Its columns and its event time.
    pub schema: StreamSchema,
    /// Where its rows come from.
    pub feed: Feed,
    /// The retained rows of a connector, if any.
    pub history: Option<Arc<History>>,
    /// Stores the rows of a connector that forgets them, which are then read like pushed ones.
    pub receiver: Option<Receiver>,
    /// When its partitions are idle, and what its watermark does then.
    pub when_idle: Option<WhenIdle>,
    /// The maximum skew that the user has set, in µs; `None`: [`MAX_FUTURE_SKEW_MICROS`] for unbounded sources.
    pub max_future_skew_micros: Option<i64>,
    /// The name of its connector, for listings.
    pub connector: String,
    /// Whether reading it after a restart returns the same rows.
    pub replayable: bool,
    /// The checks that the rows of its connector must satisfy; those of pushed rows are in the [push stream](PushStream::checks).
    pub checks: Checks,
    /// Drops its old and its truncated rows; `None`: the stream retains no rows, or the view all.
    pub retention: Option<Arc<Retention>>,
    /// The store for its bad rows.
    pub bad_rows: Arc<BadRows>,
    /// The clock by which its partitions are idle.
    pub clock: Arc<dyn Clock>,
}

/// When a partition is idle by the clock, and what its watermark does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhenIdle {
    /// The time without a row after which a partition is idle, in µs.
    pub after_micros: i64,
    /// Whether its watermark then follows the clock; otherwise it stays, and is ignored.
    pub by_clock: bool,
}

/// The origin of a stream's rows.
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
    /// Returns a source for a new reading of the stream, from offset `from` on where it has a log (`None`: from its
    /// first row). `bounded`: only of the rows that it has now; otherwise `read_by` determines how long writers of its
    /// log wait for the reader.
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

    /// Returns a source of the current rows for a replay: the history of a connector, where there is one.
    pub(crate) fn replayed(&self, from: Option<u64>) -> Arc<dyn Source> {
        match &self.history {
            Some(history) => {
                Arc::new(LogSource::snapshot(Arc::clone(&history.push.log), from, false))
            }
            None => self.source(true, ReadBy::Client, from),
        }
    }

    /// The checks that its rows pass.
    pub fn intake(&self) -> Intake {
        let max_future_skew_micros = match (&self.feed, self.max_future_skew_micros) {
            (_, Some(micros)) => Some(micros),
            (Feed::Source(source), None) if source.is_bounded() => None,
            (Feed::View(_), None) => None,
            // Pushed rows were checked when they entered.
            (Feed::Push(_), None) => None,
            (Feed::Source(_), None) => Some(MAX_FUTURE_SKEW_MICROS),
        };
        Intake {
            time: self.schema.event_time().map(|e| e.index),
            valid: i64::MIN..=i64::MAX,
            max_future_skew_micros,
        }
    }

    /// Returns the stream as the planner sees it. `event_times`: those of a view, from its plan.
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

    /// Returns the rows of the stream at the time of a scan, without some, as a table.
    pub fn contents(self: &Arc<Self>, left_out: LeftOut) -> Arc<dyn TableProvider> {
        match &self.feed {
            Feed::Push(push) => Arc::new(Table(LogContents::new(Arc::clone(&push.log), left_out))),
            Feed::View(log) => Arc::new(Table(LogContents::new(Arc::clone(log), left_out))),
            Feed::Source(source) => match &self.history {
                // Single rows are identified by the partitions of the source, which the history does not have.
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

    /// The log with its rows: the pushed ones, or the history of a connector.
    pub fn kept(&self) -> Option<&Arc<PushStream>> {
        match &self.feed {
            Feed::Push(push) => Some(push),
            Feed::Source(_) => self.history.as_ref().map(|history| &history.push),
            Feed::View(_) => None,
        }
    }
}
