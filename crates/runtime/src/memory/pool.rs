//! The pool that DataFusion's operators and the state of windows share.
//!
//! As in DataFusion's own fair pool, everybody who can go to disk has the same share of what those
//! who cannot leave. Two things are otherwise, so that what can go to disk does so and is not
//! refused: DataFusion's sorts and groupings may fill three quarters of their share only, because they
//! need some more to merge what they hold (which counts as memory that cannot go to disk); and
//! what operators of windows hold beyond their shares, until they have gone to disk, takes nothing
//! from others.

use std::fmt;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use parking_lot::Mutex;

use super::{LARGE_PART, display};

/// A part of the limit, in even shares.
#[derive(Debug)]
pub(crate) struct SharedPool {
    size: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Consumers of DataFusion that can go to disk, and their bytes.
    spillers: usize,
    spillable: usize,
    /// Bytes of those that cannot.
    fixed: usize,
    /// Window operators with much state, and their bytes.
    operators: usize,
    windows: usize,
}

/// What a window operator has of the pool.
#[derive(Debug, Default)]
pub(super) struct Share {
    bytes: usize,
    large: bool,
}

impl Taken {
    fn all(&self) -> usize {
        self.spillable + self.fixed + self.windows
    }

    /// What each that can go to disk may take.
    fn share(&self, size: usize) -> usize {
        size.saturating_sub(self.fixed) / (self.spillers + self.operators).max(1)
    }
}

impl SharedPool {
    pub(super) fn new(size: usize) -> Self {
        Self { size, taken: Mutex::default() }
    }

    /// A window operator holds so many bytes now; from `small` on it takes a share. Whether there
    /// is so much for it: it is counted in any case.
    pub(super) fn resize(&self, share: &mut Share, bytes: usize, small: usize) -> bool {
        let mut taken = self.taken.lock();
        if share.large {
            taken.operators -= 1;
            taken.windows -= share.bytes;
        } else {
            taken.fixed -= share.bytes;
        }
        *share = Share { bytes, large: bytes > small };
        if !share.large {
            taken.fixed += bytes;
            return true;
        }
        taken.operators += 1;
        taken.windows += bytes;
        let tight = taken.all() > self.size / 4 * 3;
        bytes <= taken.share(self.size) && !(tight && bytes > self.size / LARGE_PART)
    }

    /// Takes bytes for what has a bound of its own, however many are left.
    pub(super) fn take(&self, bytes: usize) {
        self.taken.lock().fixed += bytes;
    }

    /// Gives them back.
    pub(super) fn give(&self, bytes: usize) {
        self.taken.lock().fixed -= bytes;
    }
}

impl fmt::Display for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), display(self.size))
    }
}

impl MemoryPool for SharedPool {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.taken.lock().spillers += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.taken.lock().spillers -= 1;
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut taken = self.taken.lock();
        if reservation.consumer().can_spill() {
            taken.spillable += additional;
        } else {
            taken.fixed += additional;
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut taken = self.taken.lock();
        if reservation.consumer().can_spill() {
            taken.spillable -= shrink;
        } else {
            taken.fixed -= shrink;
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut taken = self.taken.lock();
        let share = taken.share(self.size);
        let (held, left) = if reservation.consumer().can_spill() {
            (reservation.size(), (share / 4 * 3).saturating_sub(reservation.size()))
        } else {
            let windows = taken.windows.min(share.saturating_mul(taken.operators));
            let others = taken.fixed + taken.spillable + windows;
            (reservation.size(), self.size.saturating_sub(others))
        };
        if additional > left {
            let name = reservation.consumer().name();
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} needs {} of memory more, and may have {}, with the {} that it has: the queries \
                 share {}",
                display(additional),
                display(left),
                display(held),
                display(self.size)
            )));
        }
        if reservation.consumer().can_spill() {
            taken.spillable += additional;
        } else {
            taken.fixed += additional;
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.taken.lock().all()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.size)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_can_go_to_disk_leaves_room_for_who_cannot() {
        let pool = Arc::new(SharedPool::new(1000));
        let shared: Arc<dyn MemoryPool> = Arc::clone(&pool) as _;
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&shared);
        let merge = MemoryConsumer::new("merge").register(&shared);
        sort.try_grow(750).unwrap();
        let error = sort.try_grow(1).unwrap_err().to_string();
        assert!(error.contains("sort needs 1 B") && error.contains("1000 B"), "{error}");
        // An operator that is far over its share takes nothing from others.
        let mut share = Share::default();
        assert!(!pool.resize(&mut share, 5000, 10));
        merge.try_grow(1).unwrap_err();
        sort.free();
        merge.try_grow(500).unwrap();
        assert!(merge.try_grow(300).is_err());
        assert!(pool.resize(&mut share, 200, 10), "it has gone to disk");
        assert!(pool.resize(&mut share, 5, 10));
        assert_eq!(pool.reserved(), 505);
        assert!(pool.resize(&mut share, 0, 10));
        drop((sort, merge));
        assert_eq!(pool.reserved(), 0);
    }
}
