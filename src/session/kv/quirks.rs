//! Two list bugs of the Rivet engine, and how a runner gets true answers all the same.
//!
//! A prefix list leaves out keys whose next byte after the prefix is ff; the same keys asked for as a range are all
//! there. A reverse list gives only the last 10,000-byte piece of longer values, without a sign that anything is
//! missing; so its keys are believed and all values are read again.

use bytes::{Bytes, BytesMut};
use greenroom_protocol::limits::{KV_KEY_MAX, KV_KEYS_MAX, MESSAGE_MAX};
use greenroom_protocol::{KvEntryMetadata, KvListQuery, KvRequest, KvResponse};

/// The same question in words that the engine answers in full.
pub(super) fn reworded(request: &KvRequest) -> KvRequest {
    match request {
        KvRequest::List { query: KvListQuery::Prefix { key }, reverse, limit } => {
            KvRequest::List { query: range_of(key), reverse: *reverse, limit: *limit }
        }
        KvRequest::List { query: KvListQuery::All | KvListQuery::Range { .. }, .. }
        | KvRequest::Get { .. }
        | KvRequest::Put { .. }
        | KvRequest::Delete { .. }
        | KvRequest::DeleteRange { .. }
        | KvRequest::Drop => request.clone(),
    }
}

/// Whether the engine may have cut the values of the answer.
pub(super) fn may_be_cut(request: &KvRequest) -> bool {
    match request {
        KvRequest::List { reverse, .. } => *reverse == Some(true),
        KvRequest::Get { .. }
        | KvRequest::Put { .. }
        | KvRequest::Delete { .. }
        | KvRequest::DeleteRange { .. }
        | KvRequest::Drop => false,
    }
}

/// The values of a list, read again in pieces.
#[derive(Debug)]
pub(super) struct Rereading {
    wanted: Vec<Bytes>,
    /// How many of the wanted keys were read.
    read: usize,
    keys: Vec<Bytes>,
    values: Vec<Bytes>,
    metadata: Vec<KvEntryMetadata>,
    bytes: usize,
}

/// What follows a piece.
#[derive(Debug)]
#[must_use]
pub(super) enum Next {
    /// There is more to read.
    Ask,
    /// This is the answer to the list.
    Answer(KvResponse),
    /// The entries do not fit into any answer of the protocol.
    TooLarge,
}

impl Rereading {
    pub(super) fn new(keys: Vec<Bytes>) -> Self {
        Rereading { wanted: keys, read: 0, keys: Vec::new(), values: Vec::new(), metadata: Vec::new(), bytes: 0 }
    }

    /// How much was read so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The question for the next piece.
    pub(super) fn request(&self) -> KvRequest {
        KvRequest::Get { keys: self.piece().to_vec() }
    }

    /// Takes a piece. Entries that were deleted since the list are in none, and so not in the answer either.
    pub(super) fn take(&mut self, response: KvResponse) -> Next {
        let KvResponse::Get { keys, values, metadata } = response else {
            // A refusal, which is then what the list is answered with.
            return Next::Answer(response);
        };
        self.read += self.piece().len();
        self.bytes += keys.iter().chain(&values).map(Bytes::len).sum::<usize>();
        if self.bytes > MESSAGE_MAX {
            return Next::TooLarge;
        }
        self.keys.extend(keys);
        self.values.extend(values);
        self.metadata.extend(metadata);
        if self.read < self.wanted.len() {
            return Next::Ask;
        }
        Next::Answer(KvResponse::List {
            keys: std::mem::take(&mut self.keys),
            values: std::mem::take(&mut self.values),
            metadata: std::mem::take(&mut self.metadata),
        })
    }

    fn piece(&self) -> &[Bytes] {
        let rest = &self.wanted[self.read..];
        &rest[..rest.len().min(KV_KEYS_MAX)]
    }
}

/// All keys with this prefix, as a range.
fn range_of(prefix: &Bytes) -> KvListQuery {
    match successor(prefix) {
        Some(end) => KvListQuery::Range { start: prefix.clone(), end, exclusive: true },
        None => {
            let last = Bytes::from(vec![u8::MAX; KV_KEY_MAX]);
            KvListQuery::Range { start: prefix.clone(), end: last, exclusive: false }
        }
    }
}

/// The first key after all keys with this prefix, unless they are the last of all.
fn successor(prefix: &Bytes) -> Option<Bytes> {
    let place = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = BytesMut::from(&prefix[..=place]);
    end[place] += 1;
    Some(end.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_range_holds_just_the_keys_with_the_prefix(
            prefix in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..5),
            key in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..8),
        ) {
            let KvListQuery::Range { start, end, exclusive } = range_of(&Bytes::from(prefix.clone())) else {
                return Err(TestCaseError::fail("not a range"));
            };
            let inside = key[..] >= start[..] && if exclusive { key[..] < end[..] } else { key[..] <= end[..] };
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }
    }

    #[test]
    fn the_longest_key_of_all_is_in_the_last_range() {
        for prefix in [vec![], vec![255], vec![255; KV_KEY_MAX]] {
            let range = range_of(&Bytes::from(prefix.clone()));
            let end = Bytes::from(vec![255; KV_KEY_MAX]);
            assert_eq!(range, KvListQuery::Range { start: prefix.into(), end, exclusive: false });
        }
    }

    #[test]
    fn only_prefix_lists_are_reworded() {
        let all = KvRequest::List { query: KvListQuery::All, reverse: Some(true), limit: Some(3) };
        assert_eq!(reworded(&all), all);
        let prefix = KvListQuery::Prefix { key: Bytes::from_static(b"a\xff") };
        let request = KvRequest::List { query: prefix, reverse: Some(true), limit: Some(3) };
        let end = Bytes::from_static(b"b");
        let query = KvListQuery::Range { start: Bytes::from_static(b"a\xff"), end, exclusive: true };
        assert_eq!(reworded(&request), KvRequest::List { query, reverse: Some(true), limit: Some(3) });
    }
}
