//! Windows that cannot be verified because retention or TRUNCATE has dropped some of their rows.

use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_core::{Error, Result};
use windrow_stream::Stream;

use super::range::Range;
use crate::catalog::{Catalog, Materialized, Object};
use crate::statements::timestamp::display_time;

/// The rows of a view that cannot be compared any more.
#[derive(Debug, Clone)]
pub(super) struct Dropped {
    /// Those with an event time before this one, in µs since the Unix epoch.
    before_micros: i64,
    /// The stream or view whose rows were dropped.
    name: String,
    /// What has dropped them.
    by: &'static str,
}

impl Dropped {
    /// Returns a remark for the answer.
    pub(super) fn note(&self) -> String {
        format!(
            "rows before {} are not compared: {} has dropped old rows of \"{}\"",
            display_time(self.before_micros),
            self.by,
            self.name
        )
    }

    /// Excludes the rows from a range.
    ///
    /// # Errors
    /// When the view has no event time that determines which rows those are.
    pub(super) fn exclude_from(&self, mut range: Range, view: &Materialized) -> Result<Range> {
        if range.column.is_none() {
            return Err(Error::sql(format!(
                "view \"{}\" cannot be verified: {} has dropped rows of \"{}\", and the \
                 view has no event time that determines which of its rows are affected",
                view.name, self.by, self.name
            ))
            .with_hint("Select window_end or the event time in the view."));
        }
        range.from_micros = range.from_micros.max(Some(self.before_micros));
        Ok(range)
    }
}

/// Returns the rows of a view that cannot be compared, because retention has dropped rows of it or of its inputs; `None`: all
/// rows can be.
///
/// # Errors
/// When the archive of a log cannot be read.
pub(super) fn dropped_rows(catalog: &Catalog, view: &Materialized) -> Result<Option<Dropped>> {
    let mut dropped = dropped_of(&view.stream, 0)?;
    for name in &view.reads {
        let mut read = vec![name.clone()];
        if matches!(catalog.get(name), Some(Object::Stream(_))) {
            // A replay reads the history of another stream.
            read.extend(catalog.reads(name));
        }
        for name in read {
            let one = dropped_of(&*catalog.stream_to_read(&name)?, view.reach_ticks)?;
            dropped = match (dropped, one) {
                (Some(a), Some(b)) if b.before_micros > a.before_micros => Some(b),
                (Some(a), _) => Some(a),
                (None, b) => b,
            };
        }
    }
    Ok(dropped)
}

/// Returns the windows that lack rows of a stream; a window begins up to `reach_ticks` before the event time of its result.
fn dropped_of(stream: &Stream, reach_ticks: i64) -> Result<Option<Dropped>> {
    let Some(retention) = &stream.retention else { return Ok(None) };
    let Some(time) = stream.schema.event_time() else {
        // Rows without event time can be in any result.
        let all = Dropped { before_micros: i64::MAX, name: stream.name.clone(), by: "TRUNCATE" };
        return Ok(retention.has_dropped_timeless().then_some(all));
    };
    let Some(before) = retention.dropped_before()? else { return Ok(None) };
    let unit = time_unit(stream.schema.schema().field(time.index).data_type());
    let before = before.saturating_add(reach_ticks);
    // A part of a microsecond is rounded up.
    let micros = unit.map_or(before, |unit| ticks_to_micros(before, unit)).saturating_add(1);
    let by = if retention.is_truncated() { "TRUNCATE" } else { "retention" };
    Ok(Some(Dropped { before_micros: micros, name: stream.name.clone(), by }))
}
