//! Seeds that broke a law once, each with what was wrong.

/// A seed and what it found.
pub const SEEDS: &[(u64, &str)] = &[
    (290, "a drained runner took an end for known that was lost on its way; the actor was never heard of again"),
    (247, "the same with the engine, which leaves ends without an acknowledgement"),
    (551, "three questions after missing messages were asked before the first could be answered"),
    (100_062, "a gateway that was killed forgot what it had told to stop, and the life went on for ever"),
    (
        3_020_715,
        "a start was given to the next process again, because its acknowledgement was lost with the last words",
    ),
    (5_003_558, "an alarm that was armed while the clock was wrong came as late as the clock had been"),
    (5603, "an eviction while the connection closed was taken for the answer to the close"),
    (
        9_006_247,
        "an opening that was lost, but not the answer to the one before, was taken for a message that is missing",
    ),
    (20_003_281, "the model: what was held until it was durable was checked though its connection was gone by then"),
    (20_032_235, "the model: a runner's close was answered by an engine that had closed the connection before"),
    (20_048_740, "the model: the start for an alarm that rang late was taken for a repeated one"),
];
