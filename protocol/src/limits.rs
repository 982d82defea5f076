//! Limits of the wire, with their origin: what the Rivet engine 2.3.19 accepts.

/// The largest HTTP body, response chunk or socket message inside a tunnel message, in bytes, inclusive.
/// The engine closes the whole runner connection above it.
pub const PAYLOAD_MAX: usize = 20 * 1024 * 1024;

/// The largest encoded message, in bytes, that the engine and the TypeScript codec take.
pub const MESSAGE_MAX: usize = 32 * 1024 * 1024;

/// What our own sockets accept, in bytes: above [`MESSAGE_MAX`], so that the peer's mistake is seen as a message and
/// answered, instead of a bare connection error.
pub const FRAME_MAX: usize = 40 * 1024 * 1024;

/// The most items of one list or map in a message. An item takes tens of bytes of memory however short it is on the
/// wire: without this bound a frame of empty keys would take more than a gigabyte. The longest honest list, a
/// key-value list, has a few ten thousand.
pub const ITEMS_MAX: usize = 1 << 20;

/// The longest key, in bytes. The engine counts 2 bytes of overhead against 2048.
pub const KV_KEY_MAX: usize = 2046;

/// The longest value, in bytes.
pub const KV_VALUE_MAX: usize = 128 * 1024;

/// The most keys of a get or delete and the most entries of a put.
pub const KV_KEYS_MAX: usize = 128;

/// The most bytes of a put: the sum over `key + 2` and `value`.
pub const KV_PUT_MAX: usize = 976 * 1024;

/// The bytes a key costs above its own length in [`KV_PUT_MAX`].
pub const KV_KEY_OVERHEAD: usize = 2;

/// How many entries a list answers with when the request names no limit.
pub const KV_LIST_DEFAULT: u64 = 16_384;

/// The most storage of one actor, in bytes.
pub const KV_ACTOR_MAX: u64 = 10 * 1024 * 1024 * 1024;

/// The most slots a runner may offer: the engine multiplies by 1000 in 32 bits.
pub const SLOTS_MAX: u32 = 4_000_000;
