//! The columns `window_start`, `window_end`, `window_time` of a window's rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, PrimitiveArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes as t;
use arrow::datatypes::{ArrowTimestampType, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::Result;

use crate::OperatorSpec;

/// Three constant columns, built once per window in the greatest length needed.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    values: [i64; 3],
    time_type: (TimeUnit, Option<Arc<str>>),
    columns: Option<[ArrayRef; 3]>,
}

impl Bounds {
    pub(crate) fn new(spec: &OperatorSpec, start: i64, end: i64) -> Self {
        let values = [start, end, end.saturating_sub(1)];
        Self { values, time_type: spec.columns().time_type().clone(), columns: None }
    }

    /// Returns `columns` followed by the bounds.
    pub(crate) fn batch(
        &mut self,
        spec: &OperatorSpec,
        mut columns: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<RecordBatch> {
        columns.extend(self.columns(rows));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(spec.output_schema()), columns, &options)?)
    }

    fn columns(&mut self, rows: usize) -> [ArrayRef; 3] {
        match &self.columns {
            Some(columns) if columns.iter().all(|c| c.len() >= rows) => {
                columns.each_ref().map(|c| c.slice(0, rows))
            }
            _ => {
                let built = self.values.map(|value| constant(&self.time_type, value, rows));
                self.columns.insert(built).clone()
            }
        }
    }
}

fn constant(time_type: &(TimeUnit, Option<Arc<str>>), value: i64, rows: usize) -> ArrayRef {
    timestamps(time_type, vec![value; rows].into())
}

/// Builds a column of times.
pub(crate) fn timestamps(
    (unit, zone): &(TimeUnit, Option<Arc<str>>),
    values: ScalarBuffer<i64>,
) -> ArrayRef {
    fn typed<T>(values: ScalarBuffer<i64>, zone: Option<Arc<str>>) -> ArrayRef
    where
        T: ArrowTimestampType,
    {
        Arc::new(PrimitiveArray::<T>::new(values, None).with_timezone_opt(zone))
    }
    let zone = zone.clone();
    match unit {
        TimeUnit::Second => typed::<t::TimestampSecondType>(values, zone),
        TimeUnit::Millisecond => typed::<t::TimestampMillisecondType>(values, zone),
        TimeUnit::Microsecond => typed::<t::TimestampMicrosecondType>(values, zone),
        TimeUnit::Nanosecond => typed::<t::TimestampNanosecondType>(values, zone),
    }
}
