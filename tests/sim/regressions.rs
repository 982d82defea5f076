//! Seeds that broke a law once, each with what was wrong.

pub const SEEDS: &[u64] = &[
    // A drained runner took an end for known that was lost on its way; the actor was never heard of again.
    290, // The same with the engine, which leaves ends without an acknowledgement.
    247, // Three questions after missing messages were asked before the first could be answered.
    551, // An eviction while the connection closed was taken for the answer to the close.
    5603,
];
