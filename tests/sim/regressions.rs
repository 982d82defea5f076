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
    (20_070_680, "the model: lives that a gateway forgot to stop when it was killed were counted as if they had slots"),
    (20_071_112, "a life that ended was forgotten a minute later, though the gateway was away, and given again"),
    (
        20_102_395,
        "an engine took an answer for that to a later opening, and a life that wanted to sleep was given more",
    ),
    (30_000_002, "in version 4 the acknowledgement of an older life's events was taken for one of the newest's"),
    (30_003_819, "a socket was closed for messages that came when its life wanted to sleep, and was given none"),
];
