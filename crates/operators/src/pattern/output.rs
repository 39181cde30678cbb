//! The rows that matches return: measures and columns, collected match by match and computed together.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, StringArray, UInt32Array, new_empty_array,
};
use arrow::compute::take_record_batch;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::scalar::ScalarValue;
use windrow_core::{Error, Result};

use super::attempt::Label;
use super::formula::{Formula, Read, RowOf, Slot, total};
use super::program::bit;
use super::store::{NONE, Store};
use super::{Output, PatternSpec};
use crate::failure;
use crate::in_order::Evaluated;
use crate::spec::AggregateCall;

/// A match.
pub(super) struct Found<'a> {
    /// The rows of its key…
    pub(super) rows: &'a std::collections::VecDeque<u32>,
    /// … beginning with this index, one per label.
    pub(super) start: usize,
    pub(super) labels: &'a [Label],
    pub(super) number: i64,
    /// When it was decided.
    pub(super) end: i64,
}

impl Found<'_> {
    /// The row at an index in the match, or before or after it.
    fn row(&self, at: i64) -> u32 {
        let place = i64::try_from(self.start).ok().and_then(|start| start.checked_add(at));
        let place = place.and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.rows.get(place)).copied().unwrap_or(NONE)
    }

    /// The indexes of the rows of these variables among the first `rows`.
    fn places(
        &self,
        variables: Option<u64>,
        rows: usize,
    ) -> impl DoubleEndedIterator<Item = usize> {
        let labels = self.labels.get(..rows).unwrap_or_default().iter().enumerate();
        let of = move |label: &Label| {
            variables.is_none_or(|of| of & bit(usize::from(label.variable)) != 0)
        };
        labels.filter(move |(_, label)| of(label)).map(|(at, _)| at)
    }

    fn find(&self, row: RowOf, rows: usize) -> u32 {
        let mut places = self.places(row.variables, rows);
        let offset = row.offset as usize;
        let found = if row.first { places.nth(offset) } else { places.nth_back(offset) };
        found.map_or(NONE, |at| self.row(at as i64 + i64::from(row.shift)))
    }
}

/// The values of a slot.
#[derive(Debug)]
enum Values {
    /// The values of a column in these rows.
    Rows {
        column: usize,
        rows: Vec<u32>,
    },
    Any(Vec<ScalarValue>),
    Names(Vec<Option<u8>>),
    Numbers(Vec<i64>),
}

impl Values {
    fn of(read: &Read) -> Self {
        match &read.slot {
            Slot::Value { column, .. } => Self::Rows { column: *column, rows: vec![] },
            Slot::Aggregate { .. } => Self::Any(vec![]),
            Slot::Classifier(_) => Self::Names(vec![]),
            Slot::MatchNumber => Self::Numbers(vec![]),
        }
    }

    fn array(self, read: &Read, store: &Store, names: &[String]) -> Result<ArrayRef> {
        Ok(match self {
            Self::Rows { column, rows } => store.gather(column, &rows)?,
            Self::Any(values) if values.is_empty() => new_empty_array(&read.data_type),
            Self::Any(values) => ScalarValue::iter_to_array(values).map_err(failure::engine)?,
            Self::Names(values) => {
                let name = |variable: Option<u8>| names.get(usize::from(variable?));
                let values = values.into_iter().map(name);
                Arc::new(values.collect::<StringArray>())
            }
            Self::Numbers(values) => Arc::new(Int64Array::from(values)),
        })
    }
}

/// See the module.
pub(super) struct Matches<'a> {
    spec: &'a PatternSpec,
    /// The slots of each measure.
    measures: Vec<(&'a Formula, Vec<Values>)>,
    /// The row that each result stands for.
    rows: Vec<u32>,
    ends: Vec<i64>,
    /// For each result, the number of the first row of its match.
    pub(super) starts: Vec<u32>,
}

impl<'a> Matches<'a> {
    pub(super) fn new(spec: &'a PatternSpec) -> Self {
        let formulas = spec.plan.outputs.iter().filter_map(|output| match output {
            Output::Measure(formula) => Some(formula),
            Output::Column(_) => None,
        });
        let measures =
            formulas.map(|formula| (formula, formula.reads.iter().map(Values::of).collect()));
        Self { spec, measures: measures.collect(), rows: vec![], ends: vec![], starts: vec![] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds the results of a match.
    ///
    /// # Errors
    /// When an aggregate fails.
    pub(super) fn add(&mut self, store: &Store, found: &Found<'_>) -> Result<()> {
        let all = found.labels.len();
        let shown: Vec<usize> = if self.spec.plan.all_rows {
            let shown = found.labels.iter().enumerate().filter(|(_, label)| label.shown);
            shown.map(|(at, _)| at).collect()
        } else {
            vec![all - 1]
        };
        for at in &shown {
            self.rows.push(found.row(*at as i64));
            self.ends.push(found.end);
            self.starts.push(found.row(0));
        }
        for (formula, values) in &mut self.measures {
            for (read, values) in formula.reads.iter().zip(values) {
                let visible = |at: usize| if read.is_final { all } else { at + 1 };
                match (&read.slot, values) {
                    (Slot::Value { row, .. }, Values::Rows { rows, .. }) => {
                        rows.extend(shown.iter().map(|at| found.find(*row, visible(*at))));
                    }
                    (Slot::Aggregate { variables, call }, Values::Any(values)) => {
                        let ends: Vec<usize> = shown.iter().map(|at| visible(*at)).collect();
                        values.extend(aggregates(store, found, (*variables, call), &ends)?);
                    }
                    (Slot::Classifier(variables), Values::Names(names)) => {
                        let name = |at: &usize| {
                            let last = found.places(*variables, visible(*at)).next_back()?;
                            found.labels.get(last).map(|label| label.variable)
                        };
                        names.extend(shown.iter().map(name));
                    }
                    (Slot::MatchNumber, Values::Numbers(numbers)) => {
                        numbers.extend(shown.iter().map(|_| found.number));
                    }
                    _ => return Err(Error::internal("a measure has other values than it reads")),
                }
            }
        }
        Ok(())
    }

    /// The results, in order of their ends, with the numbers of the first rows of their matches; `None` when there are none.
    ///
    /// # Errors
    /// When a measure fails.
    pub(super) fn finish(self, store: &Store) -> Result<Option<(Evaluated, Vec<u32>)>> {
        let count = self.ends.len();
        if count == 0 {
            return Ok(None);
        }
        let mut measures = self.measures.into_iter();
        let names = &self.spec.plan.names;
        let mut columns = Vec::with_capacity(self.spec.plan.outputs.len());
        for output in &self.spec.plan.outputs {
            columns.push(match output {
                Output::Column(column) => store.gather(*column, &self.rows)?,
                Output::Measure(_) => {
                    let Some((formula, values)) = measures.next() else {
                        return Err(Error::internal("a measure is lost"));
                    };
                    let values = values.into_iter().zip(&formula.reads);
                    let values = values.map(|(values, read)| values.array(read, store, names));
                    formula.evaluate(values.collect::<Result<_>>()?, count)?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::clone(&self.spec.output_schema);
        let mut rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let (mut ends, mut starts) = (self.ends, self.starts);
        if !ends.is_sorted() {
            let mut order: Vec<u32> = (0..count as u32).collect();
            order.sort_by_key(|at| ends.get(*at as usize).copied());
            ends = order.iter().map(|at| ends[*at as usize]).collect();
            starts = order.iter().map(|at| starts[*at as usize]).collect();
            rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        }
        Ok(Some((Evaluated { rows, ends }, starts)))
    }
}

/// An aggregate over the rows of some variables, for each of `ends` (ascending) over the first rows of the match up to
/// it.
fn aggregates(
    store: &Store,
    found: &Found<'_>,
    (variables, call): (Option<u64>, &AggregateCall),
    ends: &[usize],
) -> Result<Vec<ScalarValue>> {
    let Some(last) = ends.last() else { return Ok(vec![]) };
    let mut places: Vec<usize> = found.places(variables, *last).collect();
    if let Some(filter) = call.filter {
        let rows: Vec<u32> = places.iter().map(|at| found.row(*at as i64)).collect();
        let passes = store.gather(filter, &rows)?;
        let passes = passes.as_boolean_opt();
        let passes = passes.ok_or_else(|| Error::internal("a filter is not boolean"))?;
        let mut row = 0..passes.len();
        places.retain(|_| row.next().is_some_and(|row| passes.is_valid(row) && passes.value(row)));
    }
    let rows: Vec<u32> = places.iter().map(|at| found.row(*at as i64)).collect();
    let arguments = call.arguments.iter().map(|column| store.gather(*column, &rows));
    let arguments: Vec<ArrayRef> = arguments.collect::<Result<_>>()?;
    if ends.first() == Some(last) {
        return Ok(vec![total(call, &arguments)?; ends.len()]);
    }
    let running = || {
        let mut accumulator = call.function.create_accumulator()?;
        let mut at = 0;
        let mut values = Vec::with_capacity(ends.len());
        for end in ends {
            let until = places.partition_point(|place| place < end);
            if until > at {
                let rows = arguments.iter().map(|column| column.slice(at, until - at));
                accumulator.update_batch(&rows.collect::<Vec<_>>())?;
                at = until;
            }
            values.push(accumulator.evaluate()?);
        }
        Ok(values)
    };
    running().map_err(failure::engine)
}
