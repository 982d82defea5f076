//! An allocator that counts for each thread, so that tests beside each other do not disturb the numbers.

#![expect(unsafe_code, reason = "an allocator cannot be written without; it only counts and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What an operation took from the allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// The most bytes held at once beyond those held before.
    pub peak: usize,
    /// How often memory was asked for.
    pub allocations: usize,
    held: isize,
}

/// Runs an operation and says what it took.
pub fn measured<T>(operation: impl FnOnce() -> T) -> (T, Usage) {
    USAGE.set(Usage::default());
    let result = operation();
    (result, USAGE.get())
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    static USAGE: Cell<Usage> = const { Cell::new(Usage { peak: 0, allocations: 0, held: 0 }) };
}

fn count(taken: usize, given_back: usize) {
    let mut usage = USAGE.get();
    usage.allocations += usize::from(taken > 0);
    // Memory that moves is held twice for a moment.
    usage.held += taken as isize;
    usage.peak = usage.peak.max(usage.held.max(0) as usize);
    usage.held -= given_back as isize;
    USAGE.set(usage);
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}
