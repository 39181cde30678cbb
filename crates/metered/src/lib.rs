//! An allocator that counts, per thread, the bytes that it allocates and frees, for [`windrow_core::budget`]. Only what
//! must be `unsafe` belongs here; the use of the counts is decided elsewhere.
//!
//! A program installs it around the allocator that it would otherwise use:
//!
//! ```ignore
//! #[global_allocator]
//! static ALLOCATOR: windrow_metered::Metered<mimalloc::MiMalloc> =
//!     windrow_metered::Metered(mimalloc::MiMalloc);
//! ```
//! This is the only crate with `unsafe` code: allocators cannot be written without it. It adds no requirements to those
//! of the inner allocator, and counting neither allocates nor panics.

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
// SAFETY: every call is forwarded unchanged to an allocator that upholds the contract; the counting touches only a
// thread-local number and neither allocates nor unwinds.
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

/// Returns the memory that mimalloc retains for reuse, of all threads, to the system. It retains freed pages for some
/// tens of milliseconds, because acquiring pages again costs more than half of the time of a query that decodes much;
/// so this is for when memory is short.
pub fn give_back() {
    // SAFETY: mimalloc allows it from any thread at any time; nothing in use is touched.
    #[expect(unsafe_code, reason = "a call into the allocator")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
