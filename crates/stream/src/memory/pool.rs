//! The memory pool that DataFusion's operators and stateful operators share.
//!
//! As in DataFusion's `FairSpillPool`, all consumers that can spill have the same share of the memory that is left by
//! those that cannot. Three things differ, so that consumers that can spill do so instead of failing: DataFusion's
//! sorts and groupings may fill three quarters of their share only, because they need more to merge what they hold
//! (which counts as memory that cannot spill); a consumer that is not a sort may take all free memory in one large
//! step, because groups that are being returned are counted with all of their buffers, and cannot spill any more; and
//! the memory that stateful operators hold beyond their shares, until they have spilled, is not taken from others.
//!
//! Each of DataFusion's operators may have [`BYTES_MIN`] in any case, because it cannot work with less.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use parking_lot::Mutex;

use super::{LARGE_PART, display};

/// The prefix of the names of consumers that are sorts.
const SORT: &str = "ExternalSorter";
/// A request for more than the memory of a consumer divided by this is a large step.
const STEP_PART: usize = 4;
/// Unused memory is returned to the system each time that the pool divided by this has been taken.
const GIVE_BACK_PART: usize = 32;
/// Bytes that each of DataFusion's operators may have in any case.
const BYTES_MIN: usize = 4 << 20;

/// A part of the limit, divided into even shares.
#[derive(Debug)]
pub(crate) struct SharedPool {
    size: usize,
    taken: Mutex<Taken>,
    /// Bytes taken since unused memory was last returned to the system.
    news: AtomicUsize,
    give_back: Option<fn()>,
}

#[derive(Debug, Default)]
struct Taken {
    /// DataFusion's consumers that can spill, and their bytes.
    spillers: usize,
    spillable: usize,
    /// Bytes of consumers that cannot, and of stateful operators with little state.
    fixed: usize,
    /// Stateful operators with much state, and their bytes.
    operators: usize,
    windows: usize,
}

/// The part of the pool that a stateful operator holds.
#[derive(Debug, Default)]
pub(super) struct Share {
    bytes: usize,
    large: bool,
}

impl Taken {
    fn all(&self) -> usize {
        self.spillable + self.fixed + self.windows
    }

    /// The bytes that are free; stateful operators count with at most their shares.
    fn free(&self, size: usize) -> usize {
        let windows = self.windows.min(self.share(size).saturating_mul(self.operators));
        size.saturating_sub(self.fixed + self.spillable + windows)
    }

    /// The share, in bytes, of each consumer that can spill.
    fn share(&self, size: usize) -> usize {
        size.saturating_sub(self.fixed) / (self.spillers + self.operators).max(1)
    }
}

impl SharedPool {
    /// Returns a pool of `size` bytes. `give_back` makes the allocator return unused memory to the system.
    pub(super) fn new(size: usize, give_back: Option<fn()>) -> Self {
        Self { size, taken: Mutex::default(), news: AtomicUsize::new(0), give_back }
    }

    /// Records that `bytes` were taken, from the pool or beside it. Growing data is copied into larger buffers again
    /// and again; allocators retain the old ones for a while, which would come on top of the limit.
    pub(super) fn passed(&self, bytes: usize) {
        let Some(give_back) = self.give_back else { return };
        let news = self.news.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if news > self.size / GIVE_BACK_PART {
            self.news.store(0, Ordering::Relaxed);
            give_back();
        }
    }

    /// Records that a stateful operator holds `bytes` now; with more than `small` it takes a share. Returns whether it
    /// may hold them; they are counted in any case.
    pub(super) fn resize(&self, share: &mut Share, bytes: usize, small: usize) -> bool {
        self.passed(bytes.saturating_sub(share.bytes));
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

    /// Takes bytes for a consumer with a bound of its own, whatever is free.
    pub(super) fn take(&self, bytes: usize) {
        self.taken.lock().fixed += bytes;
        self.passed(bytes);
    }

    /// Returns bytes that were [taken](Self::take).
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
        self.passed(additional);
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
        self.passed(additional);
        let mut taken = self.taken.lock();
        let (held, free) = (reservation.size(), taken.free(self.size));
        let consumer = reservation.consumer();
        let left = if !consumer.can_spill()
            || (additional > held / STEP_PART && !consumer.name().starts_with(SORT))
        {
            free
        } else {
            (taken.share(self.size) / 4 * 3).saturating_sub(held)
        };
        if additional > left && held.saturating_add(additional) > BYTES_MIN {
            let name = consumer.name();
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} needs {} more memory and may have {} beside the {} that it holds: the queries \
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

    const MIB: usize = 1 << 20;

    #[test]
    fn who_can_go_to_disk_leaves_room_for_who_cannot() {
        let pool = Arc::new(SharedPool::new(1000 * MIB, None));
        let shared: Arc<dyn MemoryPool> = Arc::clone(&pool) as _;
        let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&shared);
        let merge = MemoryConsumer::new("merge").register(&shared);
        sort.try_grow(750 * MIB).unwrap();
        let small = MemoryConsumer::new("small").register(&shared);
        small.try_grow(4 * MIB).unwrap();
        drop(small);
        let error = sort.try_grow(1).unwrap_err().to_string();
        assert!(
            error.contains("ExternalSorter[0] needs 1 B") && error.contains("1000 MiB"),
            "{error}"
        );
        // An operator that is far over its share takes nothing from others.
        let mut share = Share::default();
        assert!(!pool.resize(&mut share, 5000 * MIB, 10 * MIB));
        merge.try_grow(251 * MIB).unwrap_err();
        sort.free();
        merge.try_grow(500 * MIB).unwrap();
        assert!(merge.try_grow(300 * MIB).is_err());
        assert!(pool.resize(&mut share, 200 * MIB, 10 * MIB), "it has gone to disk");
        assert!(pool.resize(&mut share, 5 * MIB, 10 * MIB));
        assert_eq!(pool.reserved(), 505 * MIB);
        assert!(pool.resize(&mut share, 0, 10 * MIB));
        drop((sort, merge));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn groups_that_are_given_out_may_take_what_is_free() {
        let shared: Arc<dyn MemoryPool> = Arc::new(SharedPool::new(1000 * MIB, None));
        let [some, others] = ["hash[0]", "hash[1]"]
            .map(|name| MemoryConsumer::new(name).with_can_spill(true).register(&shared));
        // Groups that are being collected spill at three quarters of 500.
        for groups in [&some, &others] {
            groups.try_grow(300 * MIB).unwrap();
            groups.try_grow(75 * MIB).unwrap();
            groups.try_grow(1).unwrap_err();
        }
        others.free();
        // They are being returned.
        some.try_resize(900 * MIB).unwrap();
        others.try_resize(101 * MIB).unwrap_err();
    }
}
