//! Ended sessions that have not been returned, in order of their end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Fields;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use windrow_core::{Error, Result};

use super::chain::Sessions;
use super::large::Runs;
use crate::bounds::timestamps;
use crate::spec::Columns;
use crate::table::arrays_bytes;

/// A queue of sessions.
pub(super) struct Closed {
    columns: Arc<Columns>,
    whole: VecDeque<Ended>,
    /// Those of a slice that does not fit in memory; they precede all that are added later.
    runs: Option<Runs>,
    /// Sessions with the same end are ordered by their keys, and rows of a session by all their columns.
    order: Option<Order>,
}

/// A comparison of keys, and of whole rows if those are held.
struct Order {
    keys: RowConverter,
    rows: Option<RowConverter>,
}

/// Sessions with their bounds; those before `at` have been returned.
struct Ended {
    columns: Vec<ArrayRef>,
    bounds: [ArrayRef; 3],
    ends: Vec<i64>,
    at: usize,
}

/// Sessions that are returned together.
pub(super) struct Given {
    pub(super) rows: RecordBatch,
    pub(super) sessions: u64,
    /// The last end.
    pub(super) end: i64,
}

impl fmt::Debug for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions: usize = self.whole.iter().map(|ended| ended.ends.len() - ended.at).sum();
        f.debug_struct("Closed").field("sessions", &sessions).finish_non_exhaustive()
    }
}

impl Closed {
    pub(super) fn new(columns: &Arc<Columns>) -> Self {
        Self { columns: Arc::clone(columns), whole: VecDeque::new(), runs: None, order: None }
    }

    /// Whether all sessions have been returned.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.runs.is_none()
    }

    /// From now on returns all rows in a deterministic order; false if some cannot be compared.
    pub(super) fn keep_order(&mut self) -> bool {
        let converter = |fields: &Fields| {
            let fields = fields.iter().map(|field| SortField::new(field.data_type().clone()));
            RowConverter::new(fields.collect()).ok()
        };
        let packed = self.columns.layout().packed.as_ref();
        // Without keys, all rows belong to the same session.
        let fields = self.columns.key_schema().fields();
        let (keys, rows) = (converter(fields), packed.map(converter));
        self.order = match (keys, rows) {
            (Some(keys), None) => Some(Order { keys, rows: None }),
            (Some(keys), Some(Some(rows))) => Some(Order { keys, rows: Some(rows) }),
            _ => None,
        };
        self.order.is_some()
    }

    /// Adds sessions that end after all others.
    pub(super) fn push(&mut self, sessions: Sessions) -> Result<()> {
        let Sessions { columns, starts, ends } = match &self.order {
            Some(order) => order.put(sessions, self.columns.key_schema().fields().len())?,
            None => sessions,
        };
        let times: Vec<i64> = ends.iter().map(|end| end.saturating_sub(1)).collect();
        let bounds = [starts, ends.clone(), times]
            .map(|values| timestamps(self.columns.time_type(), values.into()));
        self.whole.push_back(Ended { columns, bounds, ends, at: 0 });
        Ok(())
    }

    /// Adds sessions on disk, which end after all others.
    ///
    /// # Errors
    /// Internal when there are some on disk already.
    pub(super) fn push_runs(&mut self, runs: Runs) -> Result<()> {
        if !self.is_empty() {
            return Err(Error::internal("two slices of sessions are given out at once"));
        }
        self.runs = Some(runs);
        self.load()
    }

    /// Loads the next sessions from disk.
    fn load(&mut self) -> Result<()> {
        if !self.whole.is_empty() {
            return Ok(());
        }
        if let Some(runs) = &mut self.runs {
            match runs.next_sessions()? {
                Some(sessions) => self.push(sessions)?,
                None => self.runs = None,
            }
        }
        Ok(())
    }

    /// The end of the first session.
    pub(super) fn first_end(&self) -> Option<i64> {
        self.whole.front().and_then(|ended| ended.ends.get(ended.at).copied())
    }

    /// Returns the sessions of the first end, and of further ends up to `to` until there are `rows_max` rows.
    ///
    /// # Errors
    /// When they cannot be read back.
    pub(super) fn give(&mut self, to: i64, rows_max: usize) -> Result<Option<Given>> {
        let Some(first) = self.whole.front_mut() else { return Ok(None) };
        let begin = first.at;
        let rows = |to: usize| match &self.columns.layout().packed {
            Some(_) => {
                let offsets = first.columns.last().and_then(|c| c.as_list_opt::<i32>());
                let offset = |at: usize| offsets.and_then(|list| list.value_offsets().get(at));
                match (offset(begin), offset(to)) {
                    (Some(a), Some(b)) => usize::try_from(b - a).unwrap_or(0),
                    _ => 0,
                }
            }
            None => to - begin,
        };
        let mut at = begin;
        while let Some(&end) = first.ends.get(at).filter(|end| **end <= to) {
            while first.ends.get(at) == Some(&end) {
                at += 1;
            }
            if rows(at) >= rows_max {
                break;
            }
        }
        let Some(&end) = at.checked_sub(1).and_then(|last| first.ends.get(last)) else {
            return Ok(None);
        };
        if at == begin {
            return Ok(None);
        }
        let order = self.order.as_ref().and_then(|order| order.rows.as_ref());
        let rows = first.batch(&self.columns, (begin, at), order)?;
        first.at = at;
        if first.at == first.ends.len() {
            self.whole.pop_front();
            self.load()?;
        }
        Ok(Some(Given { rows, sessions: (at - begin) as u64, end }))
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.whole.iter().map(|ended| arrays_bytes(&ended.columns)).sum()
    }
}

impl Order {
    /// Sorts sessions by their end, and then by their keys, the first `keys` columns.
    fn put(&self, sessions: Sessions, keys: usize) -> Result<Sessions> {
        let Sessions { columns, starts, ends } = sessions;
        let distinct = ends.is_sorted_by(|a, b| a < b);
        if distinct || keys == 0 {
            return Ok(Sessions { columns, starts, ends });
        }
        let rows = self.keys.convert_columns(columns.get(..keys).unwrap_or_default())?;
        let end = |at: u32| ends.get(at as usize).copied();
        let mut places: Vec<u32> = (0_u32..).take(ends.len()).collect();
        places.sort_unstable_by(|a, b| {
            let key = |at: u32| rows.row(at as usize);
            end(*a).cmp(&end(*b)).then_with(|| key(*a).cmp(&key(*b)))
        });
        let pick = |values: &[i64]| {
            places.iter().filter_map(|at| values.get(*at as usize).copied()).collect()
        };
        let (starts, ends) = (pick(&starts), pick(&ends));
        let places = UInt32Array::from(places);
        let columns = columns.iter().map(|column| take(column, &places, None));
        Ok(Sessions { columns: columns.collect::<Result<_, _>>()?, starts, ends })
    }
}

impl Ended {
    /// Returns some of the sessions as rows of the output.
    fn batch(
        &self,
        spec: &Columns,
        (from, to): (usize, usize),
        order: Option<&RowConverter>,
    ) -> Result<RecordBatch> {
        let (len, mut rows) = (to - from, to - from);
        let bounds = self.bounds.each_ref().map(|bound| bound.slice(from, len));
        let mut columns: Vec<ArrayRef>;
        if spec.layout().packed.is_some() {
            // The lists of rows are the only aggregate.
            let lists = self.columns.last().and_then(|c| c.as_list_opt::<i32>());
            let lists = lists.ok_or_else(|| Error::internal("the rows of a session are lost"))?;
            let offsets = lists.value_offsets().get(from..=to).unwrap_or_default();
            let (Some(&begin), Some(&end)) = (offsets.first(), offsets.last()) else {
                return Err(Error::internal("the rows of a session are lost"));
            };
            let place = |offset: i32| usize::try_from(offset).unwrap_or(0);
            rows = place(end) - place(begin);
            let values = lists.values().slice(place(begin), rows);
            let values = values
                .as_struct_opt()
                .ok_or_else(|| Error::internal("the rows of a session are no rows"))?;
            columns = values.columns().to_vec();
            let lengths = offsets.windows(2).map(|pair| match pair {
                [a, b] => place(*b) - place(*a),
                _ => 0,
            });
            let session = lengths.zip(0_u32..).flat_map(|(len, at)| std::iter::repeat_n(at, len));
            let mut session: Vec<u32> = session.collect();
            if let Some(order) = order {
                let comparable = order.convert_columns(&columns)?;
                let mut places: Vec<usize> = (0..rows).collect();
                let of = |at: usize| session.get(at).copied();
                places.sort_by(|a, b| {
                    of(*a).cmp(&of(*b)).then_with(|| comparable.row(*a).cmp(&comparable.row(*b)))
                });
                session = places.iter().filter_map(|at| of(*at)).collect();
                let places: UInt32Array =
                    places.iter().filter_map(|at| u32::try_from(*at).ok()).collect();
                columns =
                    columns.iter().map(|c| take(c, &places, None)).collect::<Result<_, _>>()?;
            }
            let session = UInt32Array::from(session);
            for bound in &bounds {
                columns.push(take(bound, &session, None)?);
            }
        } else {
            columns = self.columns.iter().map(|column| column.slice(from, len)).collect();
            columns.extend(bounds);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(spec.output_schema());
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}
