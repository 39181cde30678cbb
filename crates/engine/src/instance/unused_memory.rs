//! Returns memory that the allocator retains for reuse to the system.
//!
//! Acquiring pages again takes time, so it is not done while memory is used and freed in turns, but at intervals, when what
//! is retained is a good part of what the process has.

use std::sync::Arc;
use std::time::Duration;

use windrow_core::{Clock, budget};

use super::machine::resident_bytes;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Retained memory is returned when it is more than what is held, divided by this, …
const RETAINED_PART: u64 = 4;
/// … and than this many bytes: code, stacks and buffers of the system are resident as well.
const RETAINED_BYTES: u64 = 96 << 20;

/// Looks until the runtime ends.
pub(crate) async fn run(give_back: fn(), clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(INTERVAL).await;
        if let (Some(held), Some(resident)) = (budget::held_bytes(), resident_bytes())
            && is_much(held, resident)
        {
            give_back();
        }
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
