use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Stored = BTreeMap<Bytes, Bytes>;

proptest! {
    #[test]
    fn an_actor_sees_and_changes_exactly_what_a_storage_without_notes_would_show(
        visible in vec(visible_key(), 0..12),
        notes in vec(note_key(), 0..6),
        requests in vec(request(), 1..6),
    ) {
        let mut model: Stored = visible.into_iter().map(|key| (key, Bytes::from_static(b"v"))).collect();
        let notes: Stored = notes.into_iter().map(|key| (key, Bytes::from_static(b"note"))).collect();
        let mut stored = model.clone();
        stored.extend(notes.clone());
        for request in requests {
            let refused = match &request {
                KvRequest::Put { keys, .. } | KvRequest::Delete { keys } => keys.iter().any(|key| is_hidden(key)),
                _ => false,
            };
            match plan(request.clone()) {
                Err(error) => prop_assert!(refused && error == KvError::Reserved),
                Ok(plan) => {
                    prop_assert!(!refused);
                    let found = perform(&mut stored, plan, &request);
                    let expected = without_metadata(answer(&mut model, request));
                    prop_assert_eq!(without_metadata(found), expected);
                }
            }
            let left: Stored = stored.iter().filter(|(key, _)| is_hidden(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(&left, &notes, "the notes are as they were");
            let left: Stored = stored.iter().filter(|(key, _)| !is_hidden(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(&left, &model);
        }
    }
}

#[test]
fn what_does_not_come_near_the_notes_passes_unchanged() {
    let range = |start: &'static [u8], end: &'static [u8], exclusive| KvListQuery::Range {
        start: start.into(),
        end: end.into(),
        exclusive,
    };
    let lists = [
        KvListQuery::Prefix { key: "a".into() },
        KvListQuery::Prefix { key: Bytes::from_static(b"\0greenhouse") },
        range(b"", HIDDEN, true),
        range(BEHIND_HIDDEN, b"\xff", false),
        range(b"z", b"a", false),
        range(b"\x01", b"\xff", false),
    ];
    for query in lists {
        let request = KvRequest::List { query, reverse: Some(true), limit: None };
        assert_eq!(plan(request.clone()), Ok(Plan::Ask(request)));
    }
    let others = [
        KvRequest::Get { keys: vec![] },
        KvRequest::Get { keys: vec!["a".into(), "".into()] },
        KvRequest::Put { keys: vec!["a".into()], values: vec!["b".into()] },
        KvRequest::Delete { keys: vec!["\0green".into()] },
        KvRequest::DeleteRange { start: "a".into(), end: "b".into() },
        KvRequest::DeleteRange { start: "b".into(), end: "".into() },
    ];
    for request in others {
        assert_eq!(plan(request.clone()), Ok(Plan::Ask(request)));
    }
}

#[test]
fn a_request_for_notes_alone_asks_nobody() {
    let nothing = KvResponse::List { keys: vec![], values: vec![], metadata: vec![] };
    for key in [HIDDEN, b"\0greenroom/1/", b"\0greenroom/1/e/s"] {
        let query = KvListQuery::Prefix { key: Bytes::from_static(key) };
        let list = KvRequest::List { query, reverse: None, limit: None };
        assert_eq!(plan(list), Ok(Plan::Answer(nothing.clone())));
    }
    let get = KvRequest::Get { keys: vec![Bytes::from_static(b"\0greenroom/1/e/s")] };
    assert!(matches!(plan(get), Ok(Plan::Answer(KvResponse::Get { .. }))));
}

#[test]
fn a_drop_takes_the_last_possible_key_along() {
    let mut stored = Stored::from([(last_key(), "v".into()), (Bytes::new(), "v".into()), (HIDDEN.into(), "v".into())]);
    perform(&mut stored, plan(KvRequest::Drop).unwrap(), &KvRequest::Drop);
    assert_eq!(stored.into_keys().collect::<Vec<_>>(), [Bytes::from_static(HIDDEN)]);
}

/// Keys are dense around the border of the hidden ones.
fn visible_key() -> impl Strategy<Value = Bytes> {
    any_key().prop_filter("of the actor", |key| !is_hidden(key))
}

fn note_key() -> impl Strategy<Value = Bytes> {
    vec(prop_oneof![Just(0u8), Just(b'1'), Just(b'/'), Just(0xff)], 0..3)
        .prop_map(|rest| [HIDDEN, &rest].concat().into())
}

fn any_key() -> impl Strategy<Value = Bytes> {
    let near = (0..=HIDDEN.len(), vec(prop_oneof![Just(0u8), Just(b'/'), Just(b'0'), Just(b'g'), Just(0xff)], 0..2))
        .prop_map(|(cut, rest)| Bytes::from([&HIDDEN[..cut], &rest].concat()));
    prop_oneof![4 => near, 1 => vec(any::<u8>(), 0..3).prop_map(Bytes::from)]
}

fn request() -> impl Strategy<Value = KvRequest> {
    let query = prop_oneof![
        Just(KvListQuery::All),
        any_key().prop_map(|key| KvListQuery::Prefix { key }),
        (any_key(), any_key(), any::<bool>()).prop_map(|(start, end, exclusive)| KvListQuery::Range {
            start,
            end,
            exclusive
        }),
    ];
    prop_oneof![
        1 => vec(any_key(), 0..4).prop_map(|keys| KvRequest::Get { keys }),
        4 => (query, proptest::option::of(any::<bool>()), proptest::option::of(0..6u64))
            .prop_map(|(query, reverse, limit)| KvRequest::List { query, reverse, limit }),
        1 => any_key().prop_map(|key| KvRequest::Put { keys: vec![key], values: vec!["w".into()] }),
        1 => vec(any_key(), 0..3).prop_map(|keys| KvRequest::Delete { keys }),
        2 => (any_key(), any_key()).prop_map(|(start, end)| KvRequest::DeleteRange { start, end }),
        1 => Just(KvRequest::Drop),
    ]
}

fn perform(stored: &mut Stored, plan: Plan, request: &KvRequest) -> KvResponse {
    match plan {
        Plan::Ask(request) => answer(stored, request),
        Plan::Answer(response) => response,
        Plan::Lists([first, second]) => {
            let KvRequest::List { limit, .. } = request else { panic!("not a list: {request:?}") };
            join(answer(stored, first), answer(stored, second), *limit)
        }
        Plan::Deletes(requests) => {
            requests.into_iter().for_each(|request| drop(answer(stored, request)));
            KvResponse::Delete
        }
        Plan::Clear(requests) => {
            requests.into_iter().for_each(|request| drop(answer(stored, request)));
            KvResponse::Drop
        }
    }
}

/// What a gateway does.
fn answer(stored: &mut Stored, request: KvRequest) -> KvResponse {
    match request {
        KvRequest::Get { keys } => {
            let keys: Vec<Bytes> = keys.into_iter().filter(|key| stored.contains_key(key)).collect();
            let values = keys.iter().map(|key| stored[key].clone()).collect();
            KvResponse::Get { keys, values, metadata: vec![] }
        }
        KvRequest::Put { keys, values } => {
            stored.extend(keys.into_iter().zip(values));
            KvResponse::Put
        }
        KvRequest::Delete { keys } => {
            stored.retain(|key, _| !keys.contains(key));
            KvResponse::Delete
        }
        KvRequest::DeleteRange { start, end } => {
            stored.retain(|key, _| *key < start || *key >= end);
            KvResponse::Delete
        }
        KvRequest::Drop => {
            stored.clear();
            KvResponse::Drop
        }
        KvRequest::List { query, reverse, limit } => {
            let within = |key: &Bytes| match &query {
                KvListQuery::All => true,
                KvListQuery::Prefix { key: prefix } => key.starts_with(prefix),
                KvListQuery::Range { start, end, exclusive } => {
                    key >= start && (key < end || (key == end && !exclusive))
                }
            };
            let mut keys: Vec<Bytes> = stored.keys().filter(|key| within(key)).cloned().collect();
            if reverse == Some(true) {
                keys.reverse();
            }
            keys.truncate(usize::try_from(limit.unwrap_or(KV_LIST_DEFAULT)).unwrap());
            let values = keys.iter().map(|key| stored[key].clone()).collect();
            KvResponse::List { keys, values, metadata: vec![] }
        }
    }
}

fn without_metadata(response: KvResponse) -> KvResponse {
    match response {
        KvResponse::List { keys, values, .. } => KvResponse::List { keys, values, metadata: vec![] },
        other => other,
    }
}
