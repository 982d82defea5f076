//! Key-value requests and answers.

mod check;

use bytes::Bytes;
use bytestring::ByteString;

pub use check::KvViolation;

/// An operation on the storage of one actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvRequest {
    /// Reads keys; missing ones are left out of the answer.
    Get {
        /// At most [`crate::limits::KV_KEYS_MAX`].
        keys: Vec<Bytes>,
    },
    /// Reads a range in unsigned byte order.
    List {
        /// Which keys.
        query: KvListQuery,
        /// Last key first.
        reverse: Option<bool>,
        /// At most this many entries.
        limit: Option<u64>,
    },
    /// Writes entries, all or none.
    Put {
        /// One per value.
        keys: Vec<Bytes>,
        /// One per key.
        values: Vec<Bytes>,
    },
    /// Removes keys; missing ones are fine.
    Delete {
        /// At most [`crate::limits::KV_KEYS_MAX`].
        keys: Vec<Bytes>,
    },
    /// Removes `[start, end)`; only in version 7.
    DeleteRange {
        /// Inclusive.
        start: Bytes,
        /// Exclusive.
        end: Bytes,
    },
    /// Removes everything.
    Drop,
}

/// Which keys a list answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvListQuery {
    /// All keys.
    All,
    /// From `start` to `end`.
    Range {
        /// Inclusive.
        start: Bytes,
        /// Inclusive unless `exclusive`.
        end: Bytes,
        /// Leaves `end` itself out.
        exclusive: bool,
    },
    /// Keys that begin with `key`.
    Prefix {
        /// The prefix.
        key: Bytes,
    },
}

/// The answer to a [`KvRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvResponse {
    /// The request was refused.
    Error {
        /// Why, for a person.
        message: ByteString,
    },
    /// Entries found by a get; the three lists run in parallel.
    Get {
        /// The keys found.
        keys: Vec<Bytes>,
        /// Their values.
        values: Vec<Bytes>,
        /// Their metadata.
        metadata: Vec<KvEntryMetadata>,
    },
    /// Entries found by a list; the three lists run in parallel.
    List {
        /// The keys found.
        keys: Vec<Bytes>,
        /// Their values.
        values: Vec<Bytes>,
        /// Their metadata.
        metadata: Vec<KvEntryMetadata>,
    },
    /// The put is durable.
    Put,
    /// The delete or delete range is durable.
    Delete,
    /// The drop is durable.
    Drop,
}

/// What the gateway knows about a stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEntryMetadata {
    /// The version of the software that wrote it, as text.
    pub version: Bytes,
    /// Milliseconds since the epoch of the last put.
    pub update_ts: i64,
}
