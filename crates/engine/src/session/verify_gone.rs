//! What retention keeps from being verified: windows some of whose rows have been dropped.

use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_core::{Error, Result};
use windrow_stream::Stream;

use crate::catalog::{Materialized, Object};
use crate::session::Session;
use crate::session::explain::display_time;
use crate::session::verify::Range;

/// What cannot be compared any more.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    /// Rows of the view with an event time before it, in µs.
    before_micros: i64,
    /// The stream or view whose rows were dropped.
    name: String,
}

impl Gone {
    /// In words.
    pub(super) fn note(&self) -> String {
        format!(
            "rows before {} are not compared: retention has dropped old rows of \"{}\"",
            display_time(self.before_micros),
            self.name
        )
    }

    /// The range without what cannot be compared.
    ///
    /// # Errors
    /// When no event time tells which rows those are.
    pub(super) fn leave_out(&self, view: &Materialized, mut range: Range) -> Result<Range> {
        if range.column.is_none() {
            return Err(Error::sql(format!(
                "view \"{}\" cannot be verified: retention has dropped rows of \"{}\", and the \
                 view has no event time that tells which of its rows they were in",
                view.name, self.name
            ))
            .with_hint("Select window_end or the event time in the view."));
        }
        range.from_micros = range.from_micros.max(Some(self.before_micros));
        Ok(range)
    }
}

impl Session {
    /// What of a view cannot be verified; `None`: everything can.
    pub(super) fn gone(&self, view: &Materialized) -> Result<Option<Gone>> {
        let catalog = &self.engine.catalog;
        let mut gone = dropped(&view.stream, 0)?;
        for name in &view.reads {
            let mut read = vec![name.clone()];
            if matches!(catalog.get(name), Some(Object::Stream(_))) {
                // A replay reads another one's history.
                read.extend(catalog.reads(name));
            }
            for name in read {
                let one = dropped(&*catalog.stream_to_read(&name)?, view.reach_ticks)?;
                gone = match (gone, one) {
                    (Some(a), Some(b)) if b.before_micros > a.before_micros => Some(b),
                    (Some(a), _) => Some(a),
                    (None, b) => b,
                };
            }
        }
        Ok(gone)
    }
}

/// From when on a window has all rows of a stream that it ever had; it begins up to `reach_ticks`
/// before the event time of its result.
fn dropped(stream: &Stream, reach_ticks: i64) -> Result<Option<Gone>> {
    let (Some(retention), Some(time)) = (&stream.retention, stream.schema.event_time()) else {
        return Ok(None);
    };
    let Some(before) = retention.dropped_before()? else { return Ok(None) };
    let unit = time_unit(stream.schema.schema().field(time.index).data_type());
    let before = before.saturating_add(reach_ticks);
    // A part of a microsecond counts as a whole one.
    let micros = unit.map_or(before, |unit| ticks_to_micros(before, unit)).saturating_add(1);
    Ok(Some(Gone { before_micros: micros, name: stream.name.clone() }))
}
