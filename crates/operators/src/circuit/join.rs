//! Joins of rows that come and go, without a bound in time: both sides are kept, by key.
//!
//! The changes of the left side meet the rows of the right one before its own changes; these then meet the left rows after
//! theirs. So each pair that appears or disappears is returned once. Where the result depends on whether a row matches
//! anything, each row has the number of its matches, and appears or disappears when that begins or ceases to be zero.
//!
//! Invariant: after each emission what has been returned, summed, is the join of the rows so far.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use windrow_core::{Error, Result};

use super::delta::{Codec, Delta, Encoded, added, paired, pick, types};
use super::kept::{Kept, check_weight};
use crate::interval::JoinFilter;

/// The pairs that are formed at a time.
const PAIRS: usize = 8192;

/// Which rows a join returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// The pairs, and the rows of these sides that match nothing, with NULL in place of the other side.
    Pairs {
        /// Whether it returns rows of the left and of the right side that match nothing.
        unmatched: [bool; 2],
    },
    /// The rows of one side that match something.
    Matching(usize),
    /// The rows of one side that match nothing.
    Unmatched(usize),
    /// The rows of one side, and whether they match something.
    Marked(usize),
    /// The left rows whose key is not among those of the right side, as `NOT IN` has it: if one of these is NULL, there are none.
    NotIn,
}

/// A join without a bound in time.
#[derive(Debug, Clone)]
pub struct PairSpec {
    /// Which rows it returns.
    pub returned: Returned,
    /// The columns of each side that must be equal.
    pub keys: [Vec<usize>; 2],
    /// The number of columns of each side that are returned, the first ones. Further ones are keys alone.
    pub widths: [usize; 2],
    /// Whether NULL equals NULL.
    pub null_equals: bool,
    /// What pairs must satisfy besides.
    pub filter: Option<JoinFilter>,
}

/// One side of a join.
#[derive(Debug)]
struct Side {
    keys: Vec<usize>,
    key: Codec,
    row: Codec,
    /// Of key and row, as they are kept.
    whole: Codec,
    width: usize,
    schema: SchemaRef,
    kept: Kept,
    /// The number of rows, and of those with a NULL in their key: for NOT IN.
    rows: i64,
    nulls: i64,
}

/// A running join.
#[derive(Debug)]
pub(super) struct Join {
    spec: PairSpec,
    sides: [Side; 2],
    output: SchemaRef,
    /// Of its rows.
    codec: Codec,
}

/// The rows that enter one side.
struct Entering<'a> {
    rows: &'a Delta,
    keys: Encoded,
    bytes: Encoded,
    /// Whether each row has a key that can match.
    can_match: Vec<bool>,
    /// The number of rows that each one matches.
    matches: Vec<i64>,
}

/// A row that enters, by its number, with the bytes of a row of the other side and the weight of that row.
type Pair = (u32, Box<[u8]>, i64);

/// Rows that appear or disappear because of a change of the other side: their bytes, weight, and whether they match now.
type Turned = Vec<(Box<[u8]>, i64, bool)>;

impl Side {
    fn new(keys: &[usize], width: usize, schema: &SchemaRef) -> Result<Self> {
        let whole = types(schema, keys)?.into_iter();
        let whole = whole.chain(schema.fields().iter().map(|field| field.data_type()));
        Ok(Self {
            whole: Codec::new(whole)?,
            keys: keys.to_vec(),
            key: Codec::new(types(schema, keys)?)?,
            row: Codec::of(schema)?,
            width,
            schema: Arc::clone(schema),
            kept: Kept::default(),
            rows: 0,
            nulls: 0,
        })
    }

    fn entering<'a>(&self, rows: &'a Delta, null_equals: bool) -> Result<Entering<'a>> {
        let keys = pick(&rows.columns, &self.keys)?;
        let is_null = |row: usize| keys.iter().any(|key| key.is_null(row));
        Ok(Entering {
            can_match: (0..rows.rows()).map(|row| null_equals || !is_null(row)).collect(),
            keys: self.key.encode(&keys, rows.rows())?,
            bytes: self.row.encode(&rows.columns, rows.rows())?,
            matches: vec![0; rows.rows()],
            rows,
        })
    }
}

impl Join {
    /// Without rows.
    ///
    /// # Errors
    /// When rows cannot be compared.
    pub(super) fn new(
        spec: &PairSpec,
        inputs: [&SchemaRef; 2],
        output: &SchemaRef,
    ) -> Result<Self> {
        let [left, right] = inputs;
        let ([left_keys, right_keys], [left_width, right_width]) = (&spec.keys, spec.widths);
        Ok(Self {
            sides: [
                Side::new(left_keys, left_width, left)?,
                Side::new(right_keys, right_width, right)?,
            ],
            spec: spec.clone(),
            output: Arc::clone(output),
            codec: Codec::of(output)?,
        })
    }

    /// Adds and removes rows of both sides, each consolidated; returns the changes of the result.
    ///
    /// # Errors
    /// When the condition fails; Limit when there are more rows than can be counted; Internal when a row is removed that does not
    /// exist.
    pub(super) fn run(&mut self, left: Delta, right: Delta) -> Result<Delta> {
        let left = left.consolidated(&self.sides[0].row)?;
        let right = right.consolidated(&self.sides[1].row)?;
        let mut out = vec![];
        if self.spec.returned == Returned::NotIn {
            self.not_in((&left, &right), &mut out)?;
        } else {
            self.enter(0, &left, &mut out)?;
            self.enter(1, &right, &mut out)?;
        }
        Delta::together(&self.output, out)?.consolidated(&self.codec)
    }

    /// Adds and removes rows of one side.
    fn enter(&mut self, side: usize, rows: &Delta, out: &mut Vec<Delta>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut entering = self.of(side).entering(rows, self.spec.null_equals)?;
        let mut turned = Turned::new();
        let mut pairs: Vec<Pair> = vec![];
        for row in 0..rows.rows() {
            if !entering.can_match.get(row).copied().unwrap_or(false) {
                continue;
            }
            let number = u32::try_from(row).map_err(|_| Error::internal("too many changes"))?;
            let mut after: Option<Box<[u8]>> = None;
            loop {
                let key = entering.keys.row(row);
                let others = self.of(1 - side).kept.after(key, after.as_deref());
                let room = PAIRS - pairs.len();
                let others = others.take(room);
                pairs.extend(others.map(|(other, held)| (number, other.clone(), held.weight)));
                if pairs.len() < PAIRS {
                    break;
                }
                after = pairs.last().map(|(_, other, _)| other.clone());
                self.pair(side, &mut entering, (&mut pairs, &mut turned), out)?;
            }
        }
        self.pair(side, &mut entering, (&mut pairs, &mut turned), out)?;
        self.turn(1 - side, &turned, out)?;
        self.alone(side, &entering, out)?;
        self.keep(side, &entering)
    }

    fn of(&self, side: usize) -> &Side {
        let [left, right] = &self.sides;
        if side == 0 { left } else { right }
    }

    fn of_mut(&mut self, side: usize) -> &mut Side {
        let [left, right] = &mut self.sides;
        if side == 0 { left } else { right }
    }

    /// Whether it matters whether rows of a side match anything.
    fn counts(&self, side: usize) -> bool {
        match self.spec.returned {
            Returned::Pairs { unmatched } => unmatched.get(side).copied().unwrap_or(false),
            Returned::Matching(of) | Returned::Unmatched(of) | Returned::Marked(of) => of == side,
            Returned::NotIn => side == 0,
        }
    }

    /// Forms pairs of entering rows and rows of the other side.
    fn pair(
        &mut self,
        side: usize,
        entering: &mut Entering<'_>,
        (pairs, turned): (&mut Vec<Pair>, &mut Turned),
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let mut pairs = std::mem::take(pairs);
        let is_paired = matches!(self.spec.returned, Returned::Pairs { .. });
        if pairs.is_empty() {
            return Ok(());
        }
        if is_paired || self.spec.filter.is_some() {
            let at: UInt32Array = pairs.iter().map(|(row, ..)| Some(*row)).collect();
            let own = entering.rows.columns.iter().map(|column| take(column, &at, None));
            let own: Vec<ArrayRef> = own.collect::<Result<_, _>>()?;
            let key = |row: u32| entering.keys.row(row as usize).len();
            let others = pairs.iter().map(|(row, other, _)| other.get(key(*row)..).unwrap_or(&[]));
            let others = self.of(1 - side).row.decode(others)?;
            let mut both = if side == 0 { [own, others] } else { [others, own] };
            if let Some(filter) = &self.spec.filter {
                let keeps = keeps(filter, &both, pairs.len())?;
                let kept: UInt32Array = (0_u32..)
                    .zip(&keeps)
                    .filter(|(_, k)| *k == Some(true))
                    .map(|(at, _)| Some(at))
                    .collect();
                if is_paired && kept.len() < pairs.len() {
                    for column in both.iter_mut().flatten() {
                        *column = take(column, &kept, None)?;
                    }
                }
                let mut keeps = keeps.iter();
                pairs.retain(|_| keeps.next().flatten() == Some(true));
            }
            if is_paired && !pairs.is_empty() {
                let weight = |row: u32| entering.rows.weights.get(row as usize).copied();
                let weights = pairs.iter().map(|(row, _, w)| paired(weight(*row).unwrap_or(0), *w));
                let weights = weights.collect::<Result<_>>()?;
                let widths = self.spec.widths;
                let columns = both.into_iter().zip(widths);
                let columns = columns.flat_map(|(columns, width)| columns.into_iter().take(width));
                out.push(Delta { columns: columns.collect(), weights });
            }
        }
        let (own_count, other_count) = (self.counts(side), self.counts(1 - side));
        for (row, other, weight) in pairs {
            if own_count && let Some(matches) = entering.matches.get_mut(row as usize) {
                *matches = added(*matches, weight)?;
            }
            if other_count && let Some(held) = self.of_mut(1 - side).kept.get_mut(&other) {
                let before = held.matches;
                let more = entering.rows.weights.get(row as usize).copied().unwrap_or(0);
                held.matches = added(before, more)?;
                if (before > 0) != (held.matches > 0) {
                    let turn = (held.weight, held.matches > 0);
                    let key = entering.keys.row(row as usize).len();
                    turned.push((other.get(key..).unwrap_or(&[]).into(), turn.0, turn.1));
                }
            }
        }
        Ok(())
    }

    /// Returns rows of a side that appear or disappear because they match something now, or nothing any more.
    fn turn(&self, side: usize, turned: &Turned, out: &mut Vec<Delta>) -> Result<()> {
        if turned.is_empty() {
            return Ok(());
        }
        let columns = self.of(side).row.decode(turned.iter().map(|(row, ..)| row.as_ref()))?;
        let now: Vec<bool> = turned.iter().map(|(.., now)| *now).collect();
        let before: Vec<bool> = now.iter().map(|now| !now).collect();
        let weights: Vec<i64> = turned.iter().map(|(_, weight, _)| *weight).collect();
        let less: Vec<i64> = weights.iter().map(|weight| -weight).collect();
        self.single(side, (&columns, &before, &less), out)?;
        self.single(side, (&columns, &now, &weights), out)
    }

    /// Returns entering rows for what they match, or because they match nothing.
    fn alone(&self, side: usize, entering: &Entering<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let matched: Vec<bool> = entering.matches.iter().map(|matches| *matches > 0).collect();
        self.single(side, (&entering.rows.columns, &matched, &entering.rows.weights), out)
    }

    /// Rows of one side, as the join returns them if they match something or not.
    fn single(
        &self,
        side: usize,
        (columns, matched, weights): (&[ArrayRef], &[bool], &[i64]),
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        if !self.counts(side) {
            return Ok(());
        }
        let shown = |matched: bool| match self.spec.returned {
            Returned::Pairs { .. } | Returned::Unmatched(_) | Returned::NotIn => !matched,
            Returned::Matching(_) => matched,
            Returned::Marked(_) => true,
        };
        let rows: Vec<u32> =
            (0_u32..).zip(matched).filter(|(_, m)| shown(**m)).map(|(row, _)| row).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let width = match self.spec.returned {
            Returned::NotIn => columns.len(),
            _ => self.of(side).width,
        };
        let whole = Delta {
            columns: columns.iter().take(width).cloned().collect(),
            weights: weights.to_vec(),
        };
        let mut delta = whole.take(&rows)?;
        match self.spec.returned {
            Returned::Pairs { .. } => {
                let other = self.of(1 - side);
                let fields = other.schema.fields().iter().take(other.width);
                let nulls = fields.map(|field| new_null_array(field.data_type(), rows.len()));
                match side {
                    0 => delta.columns.extend(nulls),
                    _ => delta.columns = nulls.chain(delta.columns).collect(),
                }
            }
            Returned::Marked(_) => {
                let mark = rows.iter().map(|row| matched.get(*row as usize).copied());
                delta.columns.push(Arc::new(mark.collect::<BooleanArray>()));
            }
            Returned::Matching(_) | Returned::Unmatched(_) | Returned::NotIn => {}
        }
        out.push(delta);
        Ok(())
    }

    /// Keeps entering rows that may match later.
    fn keep(&mut self, side: usize, entering: &Entering<'_>) -> Result<()> {
        let keeps_all = self.spec.returned == Returned::NotIn && side == 0;
        let side = self.of_mut(side);
        for (row, weight) in entering.rows.weights.iter().enumerate() {
            let can_match = entering.can_match.get(row).copied().unwrap_or(false);
            side.rows = added(side.rows, *weight)?;
            side.nulls = added(side.nulls, if can_match { 0 } else { *weight })?;
            if !can_match && !keeps_all {
                continue;
            }
            let whole = [entering.keys.row(row), entering.bytes.row(row)].concat();
            check_weight(side.kept.add(&whole, *weight)?.1)?;
            if let (Some(held), Some(matches)) =
                (side.kept.get_mut(&whole), entering.matches.get(row))
            {
                held.matches = *matches;
            }
        }
        Ok(())
    }

    /// `NOT IN`: whether rows of the left side are returned depends on the whole right side, too.
    fn not_in(&mut self, (left, right): (&Delta, &Delta), out: &mut Vec<Delta>) -> Result<()> {
        let before = self.gate();
        let after = {
            let side = self.of(1);
            let entering = side.entering(right, false)?;
            let null = entering.can_match.iter().zip(&right.weights);
            let nulls: i64 = null.filter(|(can, _)| !**can).map(|(_, weight)| *weight).sum();
            Gate::of(side.rows + right.weights.iter().sum::<i64>(), side.nulls + nulls)
        };
        let mut found = vec![];
        if before != after {
            found.extend(self.all(before, -1)?);
        }
        let mut unmatched = vec![];
        self.enter(0, left, &mut unmatched)?;
        self.enter(1, right, &mut unmatched)?;
        match (before == after, after) {
            (false, _) => found.extend(self.all(after, 1)?),
            (true, Gate::All) => found.push(left.clone()),
            (true, Gate::Unmatched) => {
                for delta in unmatched {
                    found.push(self.with_keys(&delta)?);
                }
            }
            (true, Gate::None) => {}
        }
        let width = self.of(0).width;
        out.extend(found.into_iter().map(|delta| {
            let Delta { mut columns, weights } = delta;
            columns.truncate(width);
            Delta { columns, weights }
        }));
        Ok(())
    }

    fn gate(&self) -> Gate {
        let right = self.of(1);
        Gate::of(right.rows, right.nulls)
    }

    /// All left rows that are returned with a gate, `sign` times.
    fn all(&self, gate: Gate, sign: i64) -> Result<Option<Delta>> {
        let side = self.of(0);
        let found = side.kept.after(&[], None).filter(|(_, held)| match gate {
            Gate::All => true,
            Gate::Unmatched => held.matches == 0,
            Gate::None => false,
        });
        let (rows, weights): (Vec<&[u8]>, Vec<i64>) =
            found.map(|(whole, held)| (whole.as_ref(), held.weight * sign)).unzip();
        if rows.is_empty() {
            return Ok(None);
        }
        let mut columns = side.whole.decode(rows.into_iter())?;
        let delta = Delta { columns: columns.split_off(side.keys.len()), weights };
        Ok(Some(if gate == Gate::All { delta } else { self.with_keys(&delta)? }))
    }

    /// Left rows whose key is not NULL.
    fn with_keys(&self, delta: &Delta) -> Result<Delta> {
        let keys = pick(&delta.columns, &self.of(0).keys)?;
        let is_null = |row: &u32| keys.iter().any(|key| key.is_null(*row as usize));
        let rows = u32::try_from(delta.rows()).unwrap_or(u32::MAX);
        let rows: Vec<u32> = (0..rows).filter(|row| !is_null(row)).collect();
        delta.take(&rows)
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.sides.iter().map(|side| side.kept.size_bytes()).sum()
    }

    pub(super) fn rows(&self) -> usize {
        self.sides.iter().map(|side| side.kept.len()).sum()
    }
}

/// Which left rows `NOT IN` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// All of them: the right side has no rows.
    All,
    /// None: the right side has a NULL.
    None,
    /// Those with a key that matches nothing.
    Unmatched,
}

impl Gate {
    fn of(rows: i64, nulls: i64) -> Self {
        match (rows, nulls) {
            (0, _) => Self::All,
            (_, 0) => Self::Unmatched,
            _ => Self::None,
        }
    }
}

/// Which pairs satisfy a condition.
fn keeps(filter: &JoinFilter, both: &[Vec<ArrayRef>; 2], rows: usize) -> Result<BooleanArray> {
    let mut columns = vec![];
    for (side, read) in both.iter().zip(&filter.columns) {
        columns.extend(pick(side, read)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&filter.schema), columns, &options)?;
    filter.keeps(&batch)
}
