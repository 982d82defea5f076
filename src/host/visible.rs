//! What an actor sees of its own storage: everything but the daemon's notes.
//!
//! The daemon keeps sockets, alarms and the like among the actor's keys, under [`HIDDEN`]. For the actor they are not
//! there: reads leave them out, writes to them are refused, and what deletes a range or everything goes around them.
//! Requests that do not come near pass unchanged.

use std::ops::Bound;

use bytes::Bytes;
use greenroom_protocol::limits::{KV_KEY_MAX, KV_LIST_DEFAULT};
use greenroom_protocol::{KvListQuery, KvRequest, KvResponse};

use crate::kv::KvError;

/// How every key begins that is the daemon's, in any version of its layout.
pub(super) const HIDDEN: &[u8] = b"\0greenroom/";

/// The first key behind all that begin with [`HIDDEN`].
const BEHIND_HIDDEN: &[u8] = b"\0greenroom0";

/// How a request of an actor is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// By asking the gateway this.
    Ask(KvRequest),
    /// Without asking: there is nothing that the actor could see or change.
    Answer(KvResponse),
    /// By two lists, whose answers [`join`] puts together. What other requests change between the two may be half
    /// seen.
    Lists([KvRequest; 2]),
    /// By several requests, one behind the other.
    Deletes(Vec<KvRequest>),
    /// Like `Deletes`; where the wire knows no ranges, by lists and deletes of single keys.
    Clear(Vec<KvRequest>),
}

/// Whether the daemon keeps notes under this key.
pub(super) fn is_hidden(key: &[u8]) -> bool {
    key.starts_with(HIDDEN)
}

/// How to carry out a request of an actor.
///
/// # Errors
/// [`KvError::Reserved`] when it writes to a key of the daemon.
pub(super) fn plan(request: KvRequest) -> Result<Plan, KvError> {
    Ok(match request {
        KvRequest::Get { mut keys } => {
            let asked = keys.len();
            keys.retain(|key| !is_hidden(key));
            if keys.is_empty() && asked > 0 {
                Plan::Answer(KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] })
            } else {
                Plan::Ask(KvRequest::Get { keys })
            }
        }
        KvRequest::Put { keys, .. } | KvRequest::Delete { keys } if keys.iter().any(|key| is_hidden(key)) => {
            return Err(KvError::Reserved);
        }
        request @ (KvRequest::Put { .. } | KvRequest::Delete { .. }) => Plan::Ask(request),
        KvRequest::List { query, reverse, limit } => {
            let list = |query| KvRequest::List { query, reverse, limit };
            match &around(&query)[..] {
                _ if !touches(&query) => Plan::Ask(list(query)),
                [] => Plan::Answer(KvResponse::List { keys: vec![], values: vec![], metadata: vec![] }),
                [one] => Plan::Ask(list(one.clone())),
                [first, second, ..] if reverse == Some(true) => {
                    Plan::Lists([list(second.clone()), list(first.clone())])
                }
                [first, second, ..] => Plan::Lists([list(first.clone()), list(second.clone())]),
            }
        }
        KvRequest::DeleteRange { start, end } => {
            let behind = Bytes::from_static(BEHIND_HIDDEN);
            if start >= end || end <= HIDDEN || start >= behind {
                return Ok(Plan::Ask(KvRequest::DeleteRange { start, end }));
            }
            let mut parts = Vec::new();
            if start < HIDDEN {
                parts.push(KvRequest::DeleteRange { start, end: Bytes::from_static(HIDDEN) });
            }
            if end > behind {
                parts.push(KvRequest::DeleteRange { start: behind, end });
            }
            match (parts.pop(), parts.pop()) {
                (None, _) => Plan::Answer(KvResponse::Delete),
                (Some(only), None) => Plan::Ask(only),
                (Some(last), Some(first)) => Plan::Deletes(vec![first, last]),
            }
        }
        KvRequest::Drop => Plan::Clear(everything()),
    })
}

/// The answers of the two lists of [`Plan::Lists`] as one.
pub(super) fn join(first: KvResponse, second: KvResponse, limit: Option<u64>) -> KvResponse {
    let (
        KvResponse::List { mut keys, mut values, mut metadata },
        KvResponse::List { keys: more_keys, values: more_values, metadata: more_metadata },
    ) = (first, second)
    else {
        return KvResponse::Error { message: "the gateway answered a list with something else".into() };
    };
    keys.extend(more_keys);
    values.extend(more_values);
    metadata.extend(more_metadata);
    let limit = usize::try_from(limit.unwrap_or(KV_LIST_DEFAULT)).unwrap_or(usize::MAX);
    keys.truncate(limit);
    values.truncate(limit);
    metadata.truncate(limit);
    KvResponse::List { keys, values, metadata }
}

/// The parts of a query that hold no key of the daemon, in key order.
pub(super) fn around(query: &KvListQuery) -> Vec<KvListQuery> {
    let (start, end) = bounds(query);
    let mut parts = Vec::new();
    if start < HIDDEN {
        parts.push(range(start.clone(), Bound::Excluded(Bytes::from_static(HIDDEN))));
    }
    let behind = Bytes::from_static(BEHIND_HIDDEN);
    let reaches_behind = match &end {
        Bound::Included(end) => *end >= behind,
        Bound::Excluded(end) => *end > behind,
        Bound::Unbounded => true,
    };
    if reaches_behind {
        parts.push(range(start.max(behind), end));
    }
    parts
}

/// The requests that delete everything but the daemon's keys.
fn everything() -> Vec<KvRequest> {
    let (hidden, behind, last) = (Bytes::from_static(HIDDEN), Bytes::from_static(BEHIND_HIDDEN), last_key());
    vec![
        KvRequest::DeleteRange { start: Bytes::new(), end: hidden },
        KvRequest::DeleteRange { start: behind, end: last.clone() },
        // No range ends behind the longest and last key there can be.
        KvRequest::Delete { keys: vec![last] },
    ]
}

/// Whether there may be keys of the daemon in the answer.
fn touches(query: &KvListQuery) -> bool {
    let (start, end) = bounds(query);
    let begins_before = &start[..] < BEHIND_HIDDEN;
    let ends_behind = match &end {
        Bound::Included(end) => &end[..] >= HIDDEN,
        Bound::Excluded(end) => &end[..] > HIDDEN,
        Bound::Unbounded => true,
    };
    let empty = match &end {
        Bound::Included(end) => start > *end,
        Bound::Excluded(end) => start >= *end,
        Bound::Unbounded => false,
    };
    begins_before && ends_behind && !empty
}

fn bounds(query: &KvListQuery) -> (Bytes, Bound<Bytes>) {
    match query {
        KvListQuery::All => (Bytes::new(), Bound::Unbounded),
        KvListQuery::Range { start, end, exclusive: true } => (start.clone(), Bound::Excluded(end.clone())),
        KvListQuery::Range { start, end, exclusive: false } => (start.clone(), Bound::Included(end.clone())),
        KvListQuery::Prefix { key } => (key.clone(), successor(key).map_or(Bound::Unbounded, Bound::Excluded)),
    }
}

fn range(start: Bytes, end: Bound<Bytes>) -> KvListQuery {
    match end {
        Bound::Included(end) => KvListQuery::Range { start, end, exclusive: false },
        Bound::Excluded(end) => KvListQuery::Range { start, end, exclusive: true },
        Bound::Unbounded => KvListQuery::Range { start, end: last_key(), exclusive: false },
    }
}

/// The first key behind all those that begin with the prefix; none when the prefix is all 0xff.
fn successor(prefix: &Bytes) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next.into())
}

fn last_key() -> Bytes {
    vec![0xff; KV_KEY_MAX].into()
}

#[cfg(test)]
mod tests;
