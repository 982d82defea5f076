//! Any sequence of requests, commits, rollbacks and restarts leaves what a plain map says.

use std::collections::BTreeMap;

use bytes::Bytes;
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse};
use greenroom::store::{Change, MemoryStore, SqliteStore, Store};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_disk_answers_as_a_map_would(steps in vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Some(SqliteStore::open(dir.path()).unwrap());
        let mut twin = MemoryStore::new();
        let mut model = Model::default();
        store.as_mut().unwrap().begin().unwrap();
        twin.begin().unwrap();
        for (now_ms, step) in (1_000..).zip(steps) {
            let disk = store.as_mut().unwrap();
            match step {
                Step::Ask { actor, request } => {
                    let expected = model.answer(actor, &request, now_ms);
                    prop_assert_eq!(&without_version(disk.kv(ACTORS[actor], &request, now_ms).unwrap()), &expected);
                    prop_assert_eq!(&without_version(twin.kv(ACTORS[actor], &request, now_ms).unwrap()), &expected);
                }
                Step::DropKv { actor } => {
                    let change = Change::DropKv(ACTORS[actor].into());
                    disk.apply(&change).unwrap();
                    twin.apply(&change).unwrap();
                    model.now.remove(&actor);
                }
                Step::Commit => {
                    disk.commit().unwrap();
                    disk.begin().unwrap();
                    twin.commit().unwrap();
                    twin.begin().unwrap();
                    model.durable = model.now.clone();
                }
                Step::Rollback => {
                    disk.rollback();
                    disk.begin().unwrap();
                    twin.rollback();
                    twin.begin().unwrap();
                    model.now = model.durable.clone();
                }
                Step::Tidy => {
                    disk.tidy().unwrap();
                    twin.tidy().unwrap();
                }
                Step::Reopen => {
                    drop(store.take());
                    let mut disk = SqliteStore::open(dir.path()).unwrap();
                    disk.begin().unwrap();
                    store = Some(disk);
                    twin.crash();
                    twin.begin().unwrap();
                    model.now = model.durable.clone();
                }
            }
        }
        let all = KvRequest::List { query: KvListQuery::All, reverse: None, limit: None };
        for (actor, id) in ACTORS.iter().enumerate() {
            let expected = model.answer(actor, &all, 0);
            prop_assert_eq!(&without_version(store.as_mut().unwrap().kv(id, &all, 0).unwrap()), &expected);
            prop_assert_eq!(&without_version(twin.kv(id, &all, 0).unwrap()), &expected);
        }
    }
}

/// One id is the beginning of another.
const ACTORS: [&str; 3] = ["a", "ab", "b"];

#[derive(Clone, Debug)]
enum Step {
    Ask { actor: usize, request: KvRequest },
    DropKv { actor: usize },
    Commit,
    Rollback,
    Tidy,
    Reopen,
}

/// What is expected, as simply as it can be said.
#[derive(Default)]
struct Model {
    now: Actors,
    durable: Actors,
}

type Actors = BTreeMap<usize, BTreeMap<Bytes, (Bytes, i64)>>;

impl Model {
    fn answer(&mut self, actor: usize, request: &KvRequest, now_ms: i64) -> KvResponse {
        let entries = self.now.entry(actor).or_default();
        let found = |rows: Vec<(&Bytes, &(Bytes, i64))>| {
            let keys = rows.iter().map(|(key, _)| (*key).clone()).collect();
            let values = rows.iter().map(|(_, (value, _))| value.clone()).collect();
            let metadata = rows.iter().map(|(_, (_, update_ts))| metadata(*update_ts)).collect();
            (keys, values, metadata)
        };
        match request {
            KvRequest::Get { keys } => {
                let mut keys = keys.clone();
                keys.dedup();
                let (keys, values, metadata) =
                    found(keys.iter().filter_map(|key| entries.get_key_value(key)).collect());
                KvResponse::Get { keys, values, metadata }
            }
            KvRequest::List { query, reverse, limit } => {
                let wanted = |key: &Bytes| match query {
                    KvListQuery::All => true,
                    KvListQuery::Range { start, end, exclusive } => {
                        key >= start && (key < end || (!exclusive && key == end))
                    }
                    KvListQuery::Prefix { key: prefix } => key.starts_with(prefix),
                };
                let mut rows: Vec<_> = entries.iter().filter(|(key, _)| wanted(key)).collect();
                if *reverse == Some(true) {
                    rows.reverse();
                }
                rows.truncate(limit.map_or(16_384, |limit| usize::try_from(limit).unwrap()));
                let (keys, values, metadata) = found(rows);
                KvResponse::List { keys, values, metadata }
            }
            KvRequest::Put { keys, values } => {
                for (key, value) in keys.iter().zip(values) {
                    entries.insert(key.clone(), (value.clone(), now_ms));
                }
                KvResponse::Put
            }
            KvRequest::Delete { keys } => {
                entries.retain(|key, _| !keys.contains(key));
                KvResponse::Delete
            }
            KvRequest::DeleteRange { start, end } => {
                entries.retain(|key, _| key < start || key >= end);
                KvResponse::Delete
            }
            KvRequest::Drop => {
                entries.clear();
                KvResponse::Drop
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..ACTORS.len(), request()).prop_map(|(actor, request)| Step::Ask { actor, request }),
        1 => (0..ACTORS.len()).prop_map(|actor| Step::DropKv { actor }),
        3 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Tidy),
        1 => Just(Step::Reopen),
    ]
}

fn request() -> impl Strategy<Value = KvRequest> {
    let keys = || vec(key(), 0..5);
    let query = prop_oneof![
        Just(KvListQuery::All),
        (key(), key(), any::<bool>()).prop_map(|(start, end, exclusive)| KvListQuery::Range { start, end, exclusive }),
        key().prop_map(|key| KvListQuery::Prefix { key }),
    ];
    prop_oneof![
        8 => vec((key(), value()), 0..6).prop_map(|entries| {
            let (keys, values) = entries.into_iter().unzip();
            KvRequest::Put { keys, values }
        }),
        3 => keys().prop_map(|keys| KvRequest::Get { keys }),
        4 => (query, any::<Option<bool>>(), proptest::option::of(0..6_u64))
            .prop_map(|(query, reverse, limit)| KvRequest::List { query, reverse, limit }),
        2 => keys().prop_map(|keys| KvRequest::Delete { keys }),
        1 => (key(), key()).prop_map(|(start, end)| KvRequest::DeleteRange { start, end }),
        1 => Just(KvRequest::Drop),
    ]
}

/// Few and short, so that they meet; from both ends of the byte order.
fn key() -> impl Strategy<Value = Bytes> {
    vec(prop_oneof![Just(0_u8), Just(b'a'), Just(0xfe), Just(0xff)], 0..4).prop_map(Bytes::from)
}

/// Short, or so long that it spills over a page.
fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => vec(any::<u8>(), 0..4), 1 => vec(any::<u8>(), 5_000..5_001)].prop_map(Bytes::from)
}

fn metadata(update_ts: i64) -> greenroom::protocol::KvEntryMetadata {
    greenroom::protocol::KvEntryMetadata { version: Bytes::new(), update_ts }
}

fn without_version(mut response: KvResponse) -> KvResponse {
    if let KvResponse::Get { metadata, .. } | KvResponse::List { metadata, .. } = &mut response {
        for entry in metadata {
            entry.version = Bytes::new();
        }
    }
    response
}
