//! A histogram of the durations of micro-batches.

use std::sync::atomic::{AtomicU64, Ordering};

/// The upper bounds of the buckets, inclusive, in µs; one more bucket has all longer durations.
const ENDS_MICROS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// A histogram of durations. Adding one costs two atomic additions.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; ENDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// The contents of a histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencySnapshot {
    /// The upper bound in seconds (the last is infinite) and the count of each bucket, not cumulated.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all durations, in seconds.
    pub sum_seconds: f64,
}

impl LatencySnapshot {
    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }
}

impl Latency {
    /// Adds the duration of a micro-batch, in µs.
    pub(crate) fn add(&self, micros: u64) {
        let at = ENDS_MICROS.partition_point(|end| *end < micros);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns the current contents.
    pub fn snapshot(&self) -> LatencySnapshot {
        let ends = ENDS_MICROS.iter().map(|micros| seconds(*micros)).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|n| n.load(Ordering::Relaxed));
        LatencySnapshot {
            buckets: ends.zip(counts).collect(),
            sum_seconds: seconds(self.sum_micros.load(Ordering::Relaxed)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "µs of centuries are exact in a double")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_one_bucket() {
        let latency = Latency::default();
        for micros in [0, 100, 101, 30_000_000, 30_000_001] {
            latency.add(micros);
        }
        let snapshot = latency.snapshot();
        let counts: Vec<u64> = snapshot.buckets.iter().map(|b| b.1).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(snapshot.count(), 5);
        assert!((snapshot.sum_seconds - 60.000_202).abs() < 1e-9);
        assert_eq!(snapshot.buckets.last().unwrap().0, f64::INFINITY);
    }
}
