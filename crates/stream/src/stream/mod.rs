//! Stream tables: a name with columns, offsets and a watermark, and how it is read.

mod feed;
pub mod keyed;
pub mod table;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use windrow_core::{Clock, Source, StreamSchema};
use windrow_sql::plan::{EventTime, StreamRelation};

use crate::altered::Altered;
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
use crate::stream::keyed::{KeyedContents, Sequenced};
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
    /// The columns that identify a row, of a stream whose rows are changes: each replaces or deletes the row of its key.
    /// Then its last two columns are hidden ([`keyed`]).
    pub key: Option<Vec<usize>>,
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
    /// The stream before each addition of columns, oldest first: objects that were created then read it as it was.
    pub older: Vec<Arc<Self>>,
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
        let source = self.own_source(bounded, read_by, from);
        match &self.key {
            Some(_) => {
                let one_partition = self.connector.eq_ignore_ascii_case("file");
                Arc::new(Altered::new(source, Sequenced { one_partition }))
            }
            None => source,
        }
    }

    fn own_source(&self, bounded: bool, read_by: ReadBy, from: Option<u64>) -> Arc<dyn Source> {
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

    /// Returns the stream as it was when it had this number of columns: as an object sees it that was created then.
    pub fn as_of(self: &Arc<Self>, columns: usize) -> Arc<Self> {
        let had = |stream: &&Arc<Self>| stream.schema.schema().fields().len() == columns;
        Arc::clone(self.older.iter().rev().find(had).unwrap_or(self))
    }

    /// Returns the same stream with columns added at the end. `source`: the connector that reads them, if it has one.
    pub fn widened(
        self: &Arc<Self>,
        schema: StreamSchema,
        source: Option<Arc<dyn Source>>,
    ) -> Self {
        let older = self.older.iter().chain([self]).map(Arc::clone).collect();
        Self {
            name: self.name.clone(),
            schema,
            key: self.key.clone(),
            // It stays with the stream that it fills.
            receiver: None,
            feed: source.map_or_else(|| self.feed.clone(), Feed::Source),
            history: self.history.clone(),
            when_idle: self.when_idle,
            max_future_skew_micros: self.max_future_skew_micros,
            connector: self.connector.clone(),
            replayable: self.replayable,
            checks: self.checks.clone(),
            retention: self.retention.clone(),
            bad_rows: Arc::clone(&self.bad_rows),
            clock: Arc::clone(&self.clock),
            older,
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
        if self.key.is_some() {
            return Arc::new(Table(KeyedContents::new(self, left_out)));
        }
        match &self.feed {
            Feed::Push(push) => {
                let (log, schema) = (Arc::clone(&push.log), Arc::clone(self.schema.schema()));
                Arc::new(Table(LogContents::new(log, schema, left_out)))
            }
            Feed::View(log) => {
                let schema = Arc::clone(self.schema.schema());
                Arc::new(Table(LogContents::new(Arc::clone(log), schema, left_out)))
            }
            Feed::Source(source) => match &self.history {
                // Single rows are identified by the partitions of the source, which the history does not have.
                Some(history) if left_out.is_empty() => {
                    Arc::new(Table(LogContents::of_history(history)))
                }
                _ => Arc::new(Table(self.read_from(Arc::clone(source), Arc::new(left_out)))),
            },
        }
    }

    /// The rows of `source`, which are those of the stream, without some, as a bounded query reads them.
    fn read_from(&self, source: Arc<dyn Source>, left_out: Arc<LeftOut>) -> SourceContents {
        SourceContents {
            stream: self.name.as_str().into(),
            schema: self.schema.clone(),
            source,
            intake: self.intake(),
            bad_rows: Arc::clone(&self.bad_rows),
            clock: Arc::clone(&self.clock),
            left_out,
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
