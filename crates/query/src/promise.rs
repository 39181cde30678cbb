//! The watermark of the rows that a continuous query has returned to a client: they are complete up to it.
//!
//! Rows wait in a queue, so a watermark holds only for a reader of all rows sent before it. It is not queued itself: a
//! watermark that advances without rows wakes no reader and takes no memory.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use windrow_core::Watermark;

/// The newest watermark, and the number of rows that it covers.
#[derive(Debug)]
pub struct Promise {
    /// The number of rows sent.
    given: AtomicU64,
    /// The number of rows sent before the newest watermark, and that watermark.
    newest: Mutex<(u64, Watermark)>,
}

impl Default for Promise {
    fn default() -> Self {
        Self { given: AtomicU64::new(0), newest: Mutex::new((0, Watermark::NONE)) }
    }
}

impl Promise {
    /// Records that rows are about to be sent.
    pub fn count(&self, rows: usize) {
        self.given.fetch_add(rows as u64, Ordering::AcqRel);
    }

    /// Records that the rows sent so far are complete up to `watermark`.
    pub fn advance(&self, watermark: Watermark) {
        let mut newest = self.newest.lock();
        *newest = (self.given.load(Ordering::Acquire), newest.1.advance(watermark));
    }

    /// Returns the watermark for a reader of the first `rows` rows; `None`: it covers rows that the reader has not read
    /// yet.
    pub fn after(&self, rows: u64) -> Option<Watermark> {
        let (given, watermark) = *self.newest.lock();
        (given <= rows).then_some(watermark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_does_not_overtake_its_rows() {
        let promise = Promise::default();
        promise.count(3);
        promise.advance(Watermark::at(10));
        assert_eq!(promise.after(2), None);
        assert_eq!(promise.after(3), Some(Watermark::at(10)));
        promise.count(1);
        assert_eq!(promise.after(3), Some(Watermark::at(10)));
        promise.advance(Watermark::at(20));
        assert_eq!(promise.after(3), None);
        assert_eq!(promise.after(4), Some(Watermark::at(20)));
    }
}
