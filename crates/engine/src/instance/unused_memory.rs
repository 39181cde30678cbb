//! Returns memory that the allocator retains for reuse to the system.
//!
//! Acquiring pages again takes time, so it is not done while memory is used and freed in turns, but at intervals, when what
//! is retained is a good part of what the process has.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windrow_core::{Clock, budget};

use super::machine::resident_bytes;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Retained memory is returned when it is more than what is held, divided by this, …
const RETAINED_PART: u64 = 4;
/// … and than this many bytes: code, stacks and buffers of the system are resident as well.
const RETAINED_BYTES: u64 = 96 << 20;

/// Asks an allocator to return what it retains.
pub(crate) type GiveBack = fn();

/// Counts the times at which all threads were to return memory.
static ROUND: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The last of these times at which this thread did.
    static RETURNED: Cell<u64> = const { Cell::new(0) };
}

/// Looks until the runtime ends.
pub(crate) async fn run(give_back: fn(), clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(INTERVAL).await;
        if let (Some(held), Some(resident)) = (budget::held_bytes(), resident_bytes())
            && is_much(held, resident)
        {
            ROUND.fetch_add(1, Ordering::Relaxed);
            give_back();
        }
    }
}

/// Returns to the system, by `give_back`, what the allocator retains for this thread, if that is due. For threads of the
/// program's own runtimes to call when they have nothing to do: what a thread has freed is otherwise its own until it works
/// again.
pub fn thread_rests(give_back: fn()) {
    let round = ROUND.load(Ordering::Relaxed);
    if RETURNED.replace(round) != round {
        give_back();
    }
}

/// Whether what is `resident` and not `held`, in bytes, is worth returning.
fn is_much(held: u64, resident: u64) -> bool {
    resident.saturating_sub(held) > held / RETAINED_PART + RETAINED_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_is_retained() {
        assert!(!is_much(0, 90 << 20));
        assert!(!is_much(1 << 30, (1 << 30) + (300 << 20)));
        assert!(is_much(1 << 30, (1 << 30) + (400 << 20)));
        assert!(!is_much(10, 0));
    }
}
