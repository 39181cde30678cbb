//! An allocator that counts, per thread, what it gives and takes back, for
//! [`windrow_core::budget`]. Only what must be `unsafe` may be here; what is done with the counts is decided elsewhere.
//!
//! A program makes it its own, around the allocator that it would have had:
//!
//! ```ignore
//! #[global_allocator]
//! static ALLOCATOR: windrow_metered::Metered<mimalloc::MiMalloc> =
//!     windrow_metered::Metered(mimalloc::MiMalloc);
//! ```
//! It is the only crate with `unsafe` code: allocators cannot be written without it. It adds nothing to what
//! the inner one promises, and counting neither allocates nor panics.

use std::alloc::{GlobalAlloc, Layout};

use windrow_core::budget::allocated;

/// An allocator whose use is counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metered<A>(pub A);

#[expect(clippy::cast_possible_wrap, reason = "no layout is larger than isize::MAX")]
fn signed(bytes: usize) -> i64 {
    bytes as i64
}

#[expect(unsafe_code, reason = "allocators cannot be written without it")]
// SAFETY: every call is handed on as it came to an allocator that keeps the contract; what is done beside it
// touches a thread-local number alone, which neither allocates nor unwinds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Metered<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let given = unsafe { self.0.alloc(layout) };
        if !given.is_null() {
            allocated(signed(layout.size()));
        }
        given
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let given = unsafe { self.0.alloc_zeroed(layout) };
        if !given.is_null() {
            allocated(signed(layout.size()));
        }
        given
    }

    unsafe fn dealloc(&self, given: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(given, layout) };
        allocated(-signed(layout.size()));
    }

    unsafe fn realloc(&self, given: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let moved = unsafe { self.0.realloc(given, layout, size) };
        if !moved.is_null() {
            allocated(signed(size) - signed(layout.size()));
        }
        moved
    }
}

/// Gives what mimalloc keeps for later, of all threads, back to the system. It keeps what was freed for some
/// tens of milliseconds, because taking pages anew costs more than half of the time of a query that decodes
/// much; so this is for when memory is short.
pub fn give_back() {
    // SAFETY: mimalloc allows it from any thread at any time; nothing that is in use is touched.
    #[expect(unsafe_code, reason = "a call into the allocator")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
