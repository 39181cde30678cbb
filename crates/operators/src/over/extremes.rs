//! `min` and `max` of values that are held as integers or as floats; the latter are compared by their bits, in the
//! total order of IEEE 754: NaN is the greatest value.

use arrow::array::ArrayRef;
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use windrow_core::Result;

use super::frames::{ENTER, EVALUATE, event};
use super::functions::{Function, Source, column, kept};
use super::history::{History, Logged, NONE, Numbers, floats_array, ints_array};

/// The extreme of all rows from the beginning, per key.
#[derive(Debug)]
pub(super) struct Extreme {
    source: Source,
    least: bool,
    of: DataType,
    keys: Vec<Option<i64>>,
}

impl Extreme {
    pub(super) fn new(source: Source, least: bool, of: DataType) -> Self {
        Self { source, least, of, keys: vec![] }
    }

    fn array(&self, values: &[Option<i64>]) -> Result<ArrayRef> {
        let valid = BooleanBuffer::collect_bool(values.len(), |i| values[i].is_some());
        let nulls = Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0);
        let values = values.iter().map(|value| value.unwrap_or(0));
        if self.of.is_floating() {
            return Ok(floats_array(&self.of, values.map(float).collect(), nulls));
        }
        ints_array(&self.of, values.collect(), nulls)
    }

    fn follow(
        &mut self,
        events: &[u32],
        rows: &History,
        value: impl Fn(u32) -> i64,
        out: &mut Vec<Option<i64>>,
    ) {
        for (what, row) in events.iter().copied().map(event) {
            let best = &mut self.keys[rows.entries[row as usize].key as usize];
            if what == EVALUATE {
                out.push(*best);
            } else if self.source.has(rows, row) {
                let value = value(row);
                *best = Some(match *best {
                    None => value,
                    Some(best) if self.least => best.min(value),
                    Some(best) => best.max(value),
                });
            }
        }
    }
}

impl Function for Extreme {
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.keys.resize(keys.max(self.keys.len()), None);
        let column = &rows.columns[self.source.column];
        let (ints, floats) = (column.ints(), column.floats());
        let mut out = Vec::with_capacity(evaluated.len());
        match self.of.is_floating() {
            true => self.follow(events, rows, |row| ordered(floats[row as usize]), &mut out),
            false => self.follow(events, rows, |row| ints[row as usize], &mut out),
        }
        self.array(&out)
    }

    fn renumber(&mut self, _kept: &[u32], _numbers: &Numbers) {}

    fn keep_keys(&mut self, keys: &[u32]) {
        self.keys = kept(&self.keys, keys);
    }

    fn state(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.array(&kept(&self.keys, keys))?])
    }

    fn state_columns(&self) -> usize {
        1
    }

    fn restore(&mut self, keys: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.keys.resize(total.max(self.keys.len()), None);
        let column = column(state, 0, keys.len())?;
        if *column.data_type() != self.of {
            return Err(windrow_core::Error::internal("a state of OVER is of another type"));
        }
        let mut values = Logged::new(self.of.clone());
        values.append(column)?;
        let value = |row: usize| match self.of.is_floating() {
            true => ordered(values.floats()[row]),
            false => values.ints()[row],
        };
        for (row, key) in keys.iter().enumerate() {
            self.keys[*key] = values.is_valid(row as u32).then(|| value(row));
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Option<i64>>()
    }
}

/// An integer that compares with others as the floats do.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The float of such an integer.
fn float(ordered: i64) -> f64 {
    f64::from_bits((ordered ^ ((ordered >> 63) as u64 >> 1) as i64) as u64)
}

/// The extreme of a frame that rows leave: per key the rows of the frame that are better than all later ones, in order;
/// the first is the extreme.
#[derive(Debug)]
pub(super) struct SlidingExtreme {
    source: Source,
    least: bool,
    keys: Vec<Ends>,
    /// The next and the previous one, by row of the history.
    links: Vec<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    next: u32,
    before: u32,
}

const EMPTY: Ends = Ends { first: NONE, last: NONE };
const ALONE: Link = Link { next: NONE, before: NONE };

impl Default for Ends {
    fn default() -> Self {
        EMPTY
    }
}

impl SlidingExtreme {
    pub(super) fn new(source: Source, least: bool) -> Self {
        Self { source, least, keys: vec![], links: vec![] }
    }

    /// The rows with the results.
    fn follow(
        &mut self,
        events: &[u32],
        rows: &History,
        value: impl Fn(u32) -> i64,
        out: &mut Vec<u32>,
    ) {
        for (what, row) in events.iter().copied().map(event) {
            let ends = &mut self.keys[rows.entries[row as usize].key as usize];
            match what {
                EVALUATE => out.push(ends.first),
                ENTER => {
                    if !self.source.has(rows, row) {
                        continue;
                    }
                    let own = value(row);
                    let worse = |other: u32| {
                        if self.least { value(other) >= own } else { value(other) <= own }
                    };
                    while ends.last != NONE && worse(ends.last) {
                        ends.last = self.links[ends.last as usize].before;
                    }
                    self.links[row as usize] = Link { next: NONE, before: ends.last };
                    match self.links.get_mut(ends.last as usize) {
                        Some(before) => before.next = row,
                        None => ends.first = row,
                    }
                    ends.last = row;
                }
                _ if ends.first == row => {
                    ends.first = self.links[row as usize].next;
                    match self.links.get_mut(ends.first as usize) {
                        Some(first) => first.before = NONE,
                        None => ends.last = NONE,
                    }
                }
                _ => {}
            }
        }
    }
}

impl Function for SlidingExtreme {
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.keys.resize(keys.max(self.keys.len()), EMPTY);
        self.links.resize(rows.len(), ALONE);
        let column = &rows.columns[self.source.column];
        let (ints, floats) = (column.ints(), column.floats());
        let mut out = Vec::with_capacity(evaluated.len());
        match column.data_type().is_floating() {
            true => self.follow(events, rows, |row| ordered(floats[row as usize]), &mut out),
            false => self.follow(events, rows, |row| ints[row as usize], &mut out),
        }
        column.gather(&out)
    }

    fn renumber(&mut self, kept: &[u32], numbers: &Numbers) {
        for ends in &mut self.keys {
            *ends = Ends { first: numbers.of(ends.first), last: numbers.of(ends.last) };
        }
        let links = kept.iter().map(|row| self.links.get(*row as usize).copied().unwrap_or(ALONE));
        let links = links.map(|l| Link { next: numbers.of(l.next), before: numbers.of(l.before) });
        self.links = links.collect();
    }

    fn keep_keys(&mut self, keys: &[u32]) {
        self.keys = kept(&self.keys, keys);
    }

    fn size_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Ends>() + self.links.capacity() * size_of::<Link>()
    }
}
