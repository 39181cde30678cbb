//! Shared parts of simulations, here and in the crates above: seeds, random numbers, and a record of what appends
//! returned. Like the clock for tests it is always compiled, because `cfg(test)` ends at the border of a crate.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use windrow_core::Result;

use crate::wal::Wal;

/// Returns the seeds of a simulation that has `all` of them when the long rounds are enabled (`WINDROW_LONG_TESTS`),
/// and otherwise a quarter.
pub fn seeds(all: u64) -> Range<u64> {
    let long = std::env::var_os("WINDROW_LONG_TESTS").is_some_and(|v| !v.is_empty() && v != "0");
    0..if long { all } else { all.div_ceil(4) }
}

/// A random number generator, reproducible by its seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// Returns a schema with one column of numbers.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn batch(numbers: &[i64]) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    Ok(RecordBatch::try_new(schema(), vec![column])?)
}

/// Returns the numbers of such rows.
pub fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// A record of what appends returned.
#[derive(Debug, Default)]
pub struct Told {
    /// Offset and number of acknowledged rows.
    pub stored: Vec<(u64, i64)>,
    /// The next number; those of one append share all but the last two digits.
    next: i64,
}

impl Told {
    /// Returns the rows of the next append.
    fn rows(&mut self, chance: &mut Chance) -> Vec<i64> {
        self.next += 100;
        (self.next..).take(1 + chance.below(3) as usize).collect()
    }

    /// Appends a few rows; returns whether they were acknowledged.
    pub fn append(&mut self, wal: &Wal, chance: &mut Chance) -> bool {
        let rows = self.rows(chance);
        let answer = batch(&rows).and_then(|batch| wal.append_blocking(batch));
        if let Ok(first) = &answer {
            self.stored.extend((*first..).zip(rows));
        }
        answer.is_ok()
    }

    /// Compares all rows, from offset `first` on, with the record.
    ///
    /// # Panics
    /// When an acknowledged row is missing, a row is there twice, or an append was divided.
    pub fn check(&self, first: u64, found: &[i64], seed: u64) {
        let different: BTreeSet<_> = found.iter().collect();
        assert_eq!(different.len(), found.len(), "seed {seed}: a row is there twice: {found:?}");
        for (offset, n) in self.stored.iter().filter(|(offset, _)| *offset >= first) {
            let at = found.get((*offset - first) as usize);
            assert_eq!(at, Some(n), "seed {seed}, offset {offset}: {found:?}");
        }
        for pair in found.windows(2) {
            let together = pair[0] / 100 == pair[1] / 100;
            assert!(!together || pair[1] == pair[0] + 1, "seed {seed}: {found:?}");
        }
    }
}
