//! The key-value storage of an actor: its limits, and what each request means.
//!
//! [`answer`] checks a request and performs it on [`Entries`], the few primitive operations a store must offer, so
//! that every store refuses, orders and counts alike. The limits are those of the Rivet engine. The refusals are not:
//! each names the limit, the actual size and the key. Two faults of the engine are left out on purpose: a prefix list
//! here also finds keys whose next byte is `ff`, and a reverse list answers whole values.
//!
//! An answer must fit one message of the wire. A get always does; a list that does not is refused with the number of
//! entries that would have fit, instead of ending early: a list that ends early looks complete to whoever asked.

use std::ops::Bound;

use bytes::Bytes;
use greenroom_protocol::limits::{
    ITEMS_MAX, KV_ACTOR_MAX, KV_KEY_MAX, KV_KEY_OVERHEAD, KV_KEYS_MAX, KV_LIST_DEFAULT, KV_PUT_MAX, KV_VALUE_MAX,
    MESSAGE_MAX,
};
use greenroom_protocol::{KvEntryMetadata, KvListQuery, KvRequest, KvResponse};

/// The storage of one actor, as far as [`answer`] needs it. Keys order by their unsigned bytes.
pub(super) trait Entries {
    /// How the storage fails.
    type Error;

    /// The bytes that all entries cost together, as [`entry_cost`] counts them.
    fn used(&mut self) -> Result<u64, Self::Error>;

    /// Remembers what all entries cost together.
    fn set_used(&mut self, bytes: u64) -> Result<(), Self::Error>;

    /// The length of a value; none when the key is missing.
    fn value_len(&mut self, key: &[u8]) -> Result<Option<usize>, Self::Error>;

    /// One entry.
    fn get(&mut self, key: &[u8]) -> Result<Option<Entry>, Self::Error>;

    /// Visits entries in order until the visitor says it has seen enough.
    fn scan(
        &mut self,
        range: &KeyRange,
        reverse: bool,
        limit: u64,
        visit: &mut dyn FnMut(Entry) -> Next,
    ) -> Result<(), Self::Error>;

    /// Writes an entry; `exists` says whether the key has a value already.
    fn put(&mut self, key: &Bytes, value: &Bytes, now_ms: i64, exists: bool) -> Result<(), Self::Error>;

    /// Removes an entry that exists.
    fn delete(&mut self, key: &[u8]) -> Result<(), Self::Error>;

    /// Removes a range and says what its entries cost.
    fn delete_range(&mut self, range: &KeyRange) -> Result<u64, Self::Error>;

    /// Removes everything, the count of used bytes too.
    fn clear(&mut self) -> Result<(), Self::Error>;
}

/// A stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    pub update_ts: i64,
}

/// Whether a visitor wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    More,
    Enough,
}

/// A range of keys: from `start` on, up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRange {
    /// Inclusive.
    pub start: Bytes,
    /// Where it ends.
    pub end: Bound<Bytes>,
}

/// Checks a request and performs it. A refusal is an answer, and changes nothing.
pub(super) fn answer<E: Entries>(
    entries: &mut E,
    request: &KvRequest,
    now_ms: i64,
    quota: u64,
) -> Result<KvResponse, E::Error> {
    if let Err(refusal) = check(request) {
        return Ok(refused(refusal));
    }
    match request {
        KvRequest::Get { keys } => get(entries, keys),
        KvRequest::List { query, reverse, limit } => {
            let Some(range) = KeyRange::of(query) else { return Ok(List::new().answer()) };
            list(entries, &range, reverse.unwrap_or(false), limit.unwrap_or(KV_LIST_DEFAULT))
        }
        KvRequest::Put { keys, values } => put(entries, keys, values, now_ms, quota),
        KvRequest::Delete { keys } => delete(entries, keys),
        KvRequest::DeleteRange { start, end } => delete_range(entries, start, end),
        KvRequest::Drop => entries.clear().map(|()| KvResponse::Drop),
    }
}

/// What an entry counts against the quota of its actor.
pub(super) fn entry_cost(key_len: usize, value_len: usize) -> u64 {
    (key_len + KV_KEY_OVERHEAD + value_len) as u64
}

impl KeyRange {
    /// The keys of a list query; none when it cannot match.
    fn of(query: &KvListQuery) -> Option<Self> {
        match query {
            KvListQuery::All => Some(Self { start: Bytes::new(), end: Bound::Unbounded }),
            KvListQuery::Range { start, end, exclusive: true } => Self::half_open(start, end),
            KvListQuery::Range { start, end, exclusive: false } => {
                (start <= end).then(|| Self { start: start.clone(), end: Bound::Included(end.clone()) })
            }
            KvListQuery::Prefix { key } => Some(Self { start: key.clone(), end: after_prefix(key) }),
        }
    }

    /// `[start, end)`; none when it is empty.
    fn half_open(start: &Bytes, end: &Bytes) -> Option<Self> {
        (start < end).then(|| Self { start: start.clone(), end: Bound::Excluded(end.clone()) })
    }
}

/// The first key behind all that begin with the prefix: its last byte that is not `ff` counts one up.
fn after_prefix(prefix: &Bytes) -> Bound<Bytes> {
    let Some(last) = prefix.iter().rposition(|&byte| byte != 0xff) else { return Bound::Unbounded };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bound::Excluded(end.into())
}

fn get<E: Entries>(entries: &mut E, keys: &[Bytes]) -> Result<KvResponse, E::Error> {
    let mut found = List::new();
    let mut previous = None;
    for key in keys {
        // As on the engine: a key repeated back to back is answered once.
        if previous.replace(key) == Some(key) {
            continue;
        }
        let Some(entry) = entries.get(key)? else { continue };
        if found.push(entry) == Push::TooLarge {
            return Ok(refused(format!("the answer is larger than a message may be ({MESSAGE_MAX} bytes)")));
        }
    }
    let List { keys, values, metadata, .. } = found;
    Ok(KvResponse::Get { keys, values, metadata })
}

fn list<E: Entries>(entries: &mut E, range: &KeyRange, reverse: bool, limit: u64) -> Result<KvResponse, E::Error> {
    let mut found = List::new();
    let mut too_large = false;
    if limit > 0 {
        entries.scan(range, reverse, limit, &mut |entry| match found.push(entry) {
            Push::Taken => Next::More,
            Push::TooLarge => {
                too_large = true;
                Next::Enough
            }
        })?;
    }
    if too_large {
        let fit = found.keys.len();
        return Ok(refused(format!(
            "the list is larger than a message may be ({MESSAGE_MAX} bytes, {ITEMS_MAX} entries): ask for less with `limit` \
             (the first {fit} entries fit) and continue with a range after the last key"
        )));
    }
    Ok(found.answer())
}

fn put<E: Entries>(
    entries: &mut E,
    keys: &[Bytes],
    values: &[Bytes],
    now_ms: i64,
    quota: u64,
) -> Result<KvResponse, E::Error> {
    let before = entries.used()?;
    let mut used = before;
    let mut writes: Vec<(&Bytes, &Bytes, bool)> = Vec::with_capacity(keys.len());
    for (index, (key, value)) in keys.iter().zip(values).enumerate() {
        // Of two equal keys the later wins, so the earlier is not written at all.
        if keys[index + 1..].contains(key) {
            continue;
        }
        let old = entries.value_len(key)?;
        used = used - old.map_or(0, |len| entry_cost(key.len(), len)) + entry_cost(key.len(), value.len());
        writes.push((key, value, old.is_some()));
    }
    if used > quota && used > before {
        return Ok(refused(format!(
            "kv_storage_quota_exceeded: the actor would use {used} bytes, the limit is {quota} bytes"
        )));
    }
    for (key, value, exists) in writes {
        entries.put(key, value, now_ms, exists)?;
    }
    if used != before {
        entries.set_used(used)?;
    }
    Ok(KvResponse::Put)
}

fn delete<E: Entries>(entries: &mut E, keys: &[Bytes]) -> Result<KvResponse, E::Error> {
    let mut freed = 0;
    for key in keys {
        if let Some(len) = entries.value_len(key)? {
            entries.delete(key)?;
            freed += entry_cost(key.len(), len);
        }
    }
    give_back(entries, freed)?;
    Ok(KvResponse::Delete)
}

fn delete_range<E: Entries>(entries: &mut E, start: &Bytes, end: &Bytes) -> Result<KvResponse, E::Error> {
    if let Some(range) = KeyRange::half_open(start, end) {
        let freed = entries.delete_range(&range)?;
        give_back(entries, freed)?;
    }
    Ok(KvResponse::Delete)
}

fn give_back<E: Entries>(entries: &mut E, freed: u64) -> Result<(), E::Error> {
    if freed == 0 {
        return Ok(());
    }
    let used = entries.used()?;
    entries.set_used(used.saturating_sub(freed))
}

/// The limits that need no look at the storage.
fn check(request: &KvRequest) -> Result<(), String> {
    match request {
        KvRequest::Get { keys } | KvRequest::Delete { keys } => check_keys(keys),
        KvRequest::List { query, .. } => match query {
            KvListQuery::All => Ok(()),
            KvListQuery::Range { start, end, .. } => {
                check_key("start key", start)?;
                check_key("end key", end)
            }
            KvListQuery::Prefix { key } => check_key("prefix key", key),
        },
        KvRequest::Put { keys, values } => check_put(keys, values),
        KvRequest::DeleteRange { start, end } => {
            check_key("start key", start)?;
            check_key("end key", end)
        }
        KvRequest::Drop => Ok(()),
    }
}

fn check_put(keys: &[Bytes], values: &[Bytes]) -> Result<(), String> {
    if keys.len() != values.len() {
        return Err(format!("a put needs one value for each key: it has {} keys, {} values", keys.len(), values.len()));
    }
    if keys.len() > KV_KEYS_MAX {
        return Err(format!("a maximum of {KV_KEYS_MAX} entries is allowed: the put has {}", keys.len()));
    }
    check_keys(keys)?;
    for (index, (key, value)) in keys.iter().zip(values).enumerate() {
        if value.len() > KV_VALUE_MAX {
            return Err(format!(
                "value is too long (max {KV_VALUE_MAX} bytes): the value of key {} of {}, \"{}\", has {} bytes",
                index + 1,
                keys.len(),
                shown(key),
                value.len()
            ));
        }
    }
    let total: u64 = keys.iter().zip(values).map(|(key, value)| entry_cost(key.len(), value.len())).sum();
    if total > KV_PUT_MAX as u64 {
        return Err(format!(
            "put is too large (max {KV_PUT_MAX} bytes over all keys, values and {KV_KEY_OVERHEAD} bytes per entry): \
             it has {total} bytes"
        ));
    }
    Ok(())
}

fn check_keys(keys: &[Bytes]) -> Result<(), String> {
    if keys.len() > KV_KEYS_MAX {
        return Err(format!("a maximum of {KV_KEYS_MAX} keys is allowed: the request has {}", keys.len()));
    }
    for (index, key) in keys.iter().enumerate() {
        if key.len() > KV_KEY_MAX {
            let which = format!("key {} of {}", index + 1, keys.len());
            return Err(too_long("key", &which, key));
        }
    }
    Ok(())
}

fn check_key(what: &str, key: &Bytes) -> Result<(), String> {
    if key.len() > KV_KEY_MAX { Err(too_long(what, "it", key)) } else { Ok(()) }
}

fn too_long(what: &str, which: &str, key: &Bytes) -> String {
    format!(
        "{what} is too long (max {KV_KEY_MAX} bytes): {which} has {} bytes and begins with \"{}\"",
        key.len(),
        shown(key)
    )
}

/// The first bytes of a key, for a person.
fn shown(key: &Bytes) -> String {
    key[..key.len().min(KEY_SHOWN)].escape_ascii().to_string()
}

fn refused(message: String) -> KvResponse {
    KvResponse::Error { message: message.into() }
}

/// An answer under construction, together with the bytes its message takes.
struct List {
    keys: Vec<Bytes>,
    values: Vec<Bytes>,
    metadata: Vec<KvEntryMetadata>,
    bytes: usize,
}

impl List {
    fn new() -> Self {
        Self { keys: Vec::new(), values: Vec::new(), metadata: Vec::new(), bytes: ANSWER_OVERHEAD }
    }

    /// Takes an entry, unless the message would become too large.
    fn push(&mut self, entry: Entry) -> Push {
        let bytes = self.bytes + entry.key.len() + entry.value.len() + WRITTEN_BY.len() + ENTRY_OVERHEAD;
        if bytes > MESSAGE_MAX || self.keys.len() >= ITEMS_MAX {
            return Push::TooLarge;
        }
        self.bytes = bytes;
        self.keys.push(entry.key);
        self.values.push(entry.value);
        let version = Bytes::from_static(WRITTEN_BY.as_bytes());
        self.metadata.push(KvEntryMetadata { version, update_ts: entry.update_ts });
        Push::Taken
    }

    fn answer(self) -> KvResponse {
        let Self { keys, values, metadata, .. } = self;
        KvResponse::List { keys, values, metadata }
    }
}

#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Push {
    Taken,
    TooLarge,
}

/// What the metadata of an entry names as its writer.
const WRITTEN_BY: &str = env!("CARGO_PKG_VERSION");

/// What the message around an answer takes at most: two tags, the request id and three counts of up to ten bytes.
const ANSWER_OVERHEAD: usize = 2 + 4 + 3 * 10;

/// What an entry takes at most besides its bytes: the lengths of key, value and version, and the time.
const ENTRY_OVERHEAD: usize = 2 + 3 + 1 + 8;

/// How much of a key an error shows, in bytes.
const KEY_SHOWN: usize = 48;

/// The most storage of one actor unless a store is told otherwise.
pub(super) const QUOTA: u64 = KV_ACTOR_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_every_key_that_begins_with_it() {
        assert_eq!(after_prefix(&Bytes::from_static(b"a")), Bound::Excluded(Bytes::from_static(b"b")));
        assert_eq!(after_prefix(&Bytes::from_static(b"a\xff\xff")), Bound::Excluded(Bytes::from_static(b"b")));
        assert_eq!(after_prefix(&Bytes::from_static(b"\xff\xff")), Bound::Unbounded);
        assert_eq!(after_prefix(&Bytes::new()), Bound::Unbounded);
    }
    #[test]
    fn a_list_has_no_more_entries_than_a_message_may_have() {
        let mut list = List::new();
        let empty = Entry { key: Bytes::new(), value: Bytes::new(), update_ts: 0 };
        for _ in 0..ITEMS_MAX {
            assert_eq!(list.push(empty.clone()), Push::Taken);
        }
        assert_eq!(list.push(empty), Push::TooLarge);
    }
}
