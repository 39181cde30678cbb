//! What a continuous query promises the reader of its rows: up to which event time they are
//! complete.
//!
//! Rows wait in a queue, so a promise holds from a number of rows on. It is not queued itself:
//! a watermark that moves without rows wakes no reader and takes no memory.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use windrow_core::Watermark;

/// See the module.
#[derive(Debug)]
pub struct Promise {
    /// Rows given to the reader.
    given: AtomicU64,
    /// The newest watermark, and the rows that had been given before.
    told: Mutex<(u64, Watermark)>,
}

impl Default for Promise {
    fn default() -> Self {
        Self { given: AtomicU64::new(0), told: Mutex::new((0, Watermark::NONE)) }
    }
}

impl Promise {
    /// Rows are about to be given.
    pub fn count(&self, rows: usize) {
        self.given.fetch_add(rows as u64, Ordering::AcqRel);
    }

    /// What has been given is complete up to `watermark`.
    pub fn tell(&self, watermark: Watermark) {
        let mut told = self.told.lock();
        *told = (self.given.load(Ordering::Acquire), told.1.advance(watermark));
    }

    /// The watermark that a reader of the first `rows` rows may rely on; `None`: no newer one.
    pub fn after(&self, rows: u64) -> Option<Watermark> {
        let (given, watermark) = *self.told.lock();
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
        promise.tell(Watermark::at(10));
        assert_eq!(promise.after(2), None);
        assert_eq!(promise.after(3), Some(Watermark::at(10)));
        promise.count(1);
        assert_eq!(promise.after(3), Some(Watermark::at(10)));
        promise.tell(Watermark::at(20));
        assert_eq!(promise.after(3), None);
        assert_eq!(promise.after(4), Some(Watermark::at(20)));
    }
}
