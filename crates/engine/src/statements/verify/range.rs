//! Which rows of a view and of its recomputation are compared: final ones, in a range of event times.

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::execution::SessionState;
use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_core::{Error, Result, Watermark};
use windrow_sql::parse::Verify;
use windrow_stream::intake::ticks;

use crate::catalog::Materialized;
use crate::statements::timestamp::constant_micros;

/// The rows that are compared, by the event-time column of the view.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// The column; `None`: the view has none, all rows are compared.
    pub(super) column: Option<usize>,
    /// Only rows below this time, in ticks, are final; `None`: all are.
    finished: Option<i64>,
    /// The first event time, in µs since the Unix epoch.
    pub(super) from_micros: Option<i64>,
    /// The event time after the last, in µs since the Unix epoch.
    to_micros: Option<i64>,
}

impl Range {
    /// Determines which rows of a view are compared.
    ///
    /// # Errors
    /// When the range is empty, or the view has no event time to apply it to.
    pub(super) fn of(
        state: &SessionState,
        (view, watermark): (&Materialized, Watermark),
        verify: &Verify,
    ) -> Result<Self> {
        let micros = |literal, clause| match literal {
            Some(literal) => constant_micros(state, literal, clause).map(Some),
            None => Ok(None),
        };
        let from_micros = micros(verify.from.clone(), "VERIFY VIEW … FROM")?;
        let to_micros = micros(verify.to.clone(), "VERIFY VIEW … TO")?;
        if let (Some(from), Some(to)) = (from_micros, to_micros)
            && from >= to
        {
            return Err(Error::sql("the range of VERIFY VIEW is empty: FROM is not before TO")
                .with_place(verify.place)
                .with_hint("FROM is the first time that is compared, TO the first that is not."));
        }
        let Some(time) = view.event_time else {
            if from_micros.or(to_micros).is_some() {
                return Err(Error::sql(format!("view \"{}\" has no event time", view.name))
                    .with_place(verify.place)
                    .with_hint("Leave FROM and TO out, or select window_end in the view."));
            }
            let is_updating = view.answer.is_some();
            if !view.is_stateless && !is_updating && watermark != Watermark::END {
                return Err(Error::sql(format!(
                    "view \"{}\" has no event time that determines which of its windows are finished",
                    view.name
                ))
                .with_hint("Select window_end in the view."));
            }
            return Ok(Self { column: None, finished: None, from_micros, to_micros });
        };
        let below = watermark.delayed(time.lag_ticks).ticks();
        let finished = match watermark {
            Watermark::END => None,
            Watermark::NONE => Some(i64::MIN),
            _ => Some(below.saturating_add(i64::from(time.closes))),
        };
        Ok(Self { column: Some(time.column), finished, from_micros, to_micros })
    }

    /// Returns the rows of `batches` that are compared.
    ///
    /// # Errors
    /// When the event time is no timestamp (a bug).
    pub(super) fn of_batches(self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let Some(index) = self.column else { return Ok(batches.to_vec()) };
        let mut kept = vec![];
        for batch in batches {
            let column = batch.column(index);
            let times = ticks(column)?;
            let unit = time_unit(column.data_type());
            let all = self.finished.or(self.from_micros).or(self.to_micros).is_none();
            let keep = times.iter().enumerate().map(|(row, time)| {
                let finished = self.finished.is_none_or(|end| *time < end);
                let micros = unit.map_or(*time, |unit| ticks_to_micros(*time, unit));
                let inside = self.from_micros.is_none_or(|from| micros >= from)
                    && self.to_micros.is_none_or(|to| micros < to);
                Some(if column.is_null(row) { all } else { finished && inside })
            });
            let rows = filter_record_batch(batch, &BooleanArray::from_iter(keep))?;
            if rows.num_rows() > 0 {
                kept.push(rows);
            }
        }
        Ok(kept)
    }
}
