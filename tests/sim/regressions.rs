//! Seeds that broke a law once, each with what was wrong.

pub const SEEDS: &[u64] = &[
    // A drained runner took an end for known that was lost on its way; the actor was never heard of again.
    290,
];
