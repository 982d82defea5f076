//! What key-value requests mean, on both stores.

use bytes::{Bytes, BytesMut};
use greenroom::protocol::limits::{
    KV_KEY_MAX, KV_KEY_OVERHEAD, KV_KEYS_MAX, KV_LIST_DEFAULT, KV_PUT_MAX, KV_VALUE_MAX, MESSAGE_MAX,
};
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse, ToClient, Version};
use greenroom::store::{Change, Found, MemoryStore, Phase, Query, SqliteStore, Store};

use super::records::actor;

/// Each case runs on a store in memory and on one on disk.
macro_rules! on_both_stores {
    ($($case:ident)*) => {
        mod in_memory {
            use super::*;
            $(#[test] fn $case() { super::$case(&mut MemoryStore::new().with_quota(QUOTA)) })*
        }
        mod in_sqlite {
            use super::*;
            $(#[test] fn $case() {
                let dir = tempfile::tempdir().unwrap();
                super::$case(&mut SqliteStore::open(dir.path()).unwrap().with_quota(QUOTA))
            })*
        }
    };
}

on_both_stores! {
    a_get_answers_in_request_order_without_missing_keys
    a_get_answers_a_key_repeated_at_once_one_time_and_repeated_later_again
    a_list_is_in_unsigned_byte_order_and_reverse_flips_it
    a_reverse_list_answers_whole_values
    a_list_without_limit_ends_at_the_default
    a_list_answers_at_most_its_limit
    a_range_includes_its_start_and_its_end_unless_exclusive
    a_range_that_ends_before_it_starts_is_empty
    a_prefix_list_finds_keys_that_continue_with_ff
    of_two_equal_keys_in_one_put_the_later_wins
    a_put_replaces_value_and_time
    deleting_missing_keys_is_fine
    a_range_delete_is_half_open
    a_drop_removes_everything_and_a_put_begins_anew
    actors_do_not_see_each_other
    keys_and_values_may_be_empty
    requests_of_an_actor_without_entries_find_nothing
    a_key_may_be_as_long_as_the_limit_wherever_it_stands
    a_value_may_be_as_long_as_the_limit
    a_request_may_have_as_many_keys_as_the_limit
    a_put_may_be_as_large_as_the_limit
    a_put_needs_as_many_values_as_keys
    a_refused_put_changes_nothing
    an_actor_may_use_as_much_as_its_quota
    what_is_removed_or_replaced_is_given_back_to_the_quota
    an_actor_that_has_used_up_its_quota_may_still_shrink
    a_list_that_no_message_can_carry_is_refused_and_says_how_much_can
    what_is_not_committed_is_undone
    destroying_an_actor_drops_its_storage
    one_value_can_be_read
}

/// More than any single case needs but those about the quota.
const QUOTA: u64 = 64 * 1024 * 1024;

const NOW: i64 = 1_700_000_000_000;

fn a_get_answers_in_request_order_without_missing_keys(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2"), ("c", "3")]);
    assert_eq!(get(store, &["c", "x", "a"]), entries(&[("c", "3"), ("a", "1")]));
    assert_eq!(get(store, &[]), entries(&[]));
}

fn a_get_answers_a_key_repeated_at_once_one_time_and_repeated_later_again(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2")]);
    assert_eq!(get(store, &["a", "a", "b", "a"]), entries(&[("a", "1"), ("b", "2"), ("a", "1")]));
}

fn a_list_is_in_unsigned_byte_order_and_reverse_flips_it(store: &mut dyn Store) {
    let keys: [&[u8]; 6] = [b"", b"\x00", b"\x00\xff", b"\x7f", b"\x80", b"\xff"];
    for key in keys.iter().rev() {
        put_bytes(store, &[key], &[b"v"]);
    }
    let forwards = list(store, KvListQuery::All, None, None);
    assert_eq!(forwards.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), keys);
    let mut backwards = list(store, KvListQuery::All, Some(true), None);
    backwards.reverse();
    assert_eq!(backwards, forwards);
}

fn a_reverse_list_answers_whole_values(store: &mut dyn Store) {
    let value = vec![7; KV_VALUE_MAX];
    put_bytes(store, &[b"k"], &[&value]);
    assert_eq!(list(store, KvListQuery::All, Some(true), None)[0].1, value);
}

fn a_list_without_limit_ends_at_the_default(store: &mut dyn Store) {
    let total = usize::try_from(KV_LIST_DEFAULT).unwrap() + 1;
    let keys: Vec<Bytes> = (0..total).map(|n| Bytes::from(format!("{n:05}"))).collect();
    store.begin().unwrap();
    for keys in keys.chunks(KV_KEYS_MAX) {
        let put = KvRequest::Put { keys: keys.to_vec(), values: vec![Bytes::new(); keys.len()] };
        assert_eq!(store.kv("a", &put, NOW), Ok(KvResponse::Put));
    }
    store.commit().unwrap();
    let listed = list(store, KvListQuery::All, None, None);
    assert_eq!(listed.len(), total - 1);
    assert_eq!(listed.last().unwrap().0, keys[total - 2]);
    assert_eq!(list(store, KvListQuery::All, None, Some(u64::MAX)).len(), total);
}

fn a_list_answers_at_most_its_limit(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2"), ("c", "3")]);
    assert_eq!(list(store, KvListQuery::All, None, Some(0)), entries(&[]));
    assert_eq!(list(store, KvListQuery::All, None, Some(2)), entries(&[("a", "1"), ("b", "2")]));
    assert_eq!(list(store, KvListQuery::All, Some(true), Some(2)), entries(&[("c", "3"), ("b", "2")]));
    assert_eq!(list(store, KvListQuery::All, Some(false), Some(u64::MAX)).len(), 3);
}

fn a_range_includes_its_start_and_its_end_unless_exclusive(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    assert_eq!(list(store, range("b", "c", false), None, None), entries(&[("b", "2"), ("c", "3")]));
    assert_eq!(list(store, range("b", "c", true), None, None), entries(&[("b", "2")]));
    assert_eq!(list(store, range("b", "c", false), Some(true), None), entries(&[("c", "3"), ("b", "2")]));
    assert_eq!(list(store, range("b", "b", false), None, None), entries(&[("b", "2")]));
    assert_eq!(list(store, range("b", "b", true), None, None), entries(&[]));
    assert_eq!(list(store, range("", "a\0", false), None, None), entries(&[("a", "1")]));
}

fn a_range_that_ends_before_it_starts_is_empty(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2"), ("c", "3")]);
    assert_eq!(list(store, range("c", "a", false), None, None), entries(&[]));
    assert_eq!(list(store, range("c", "a", true), Some(true), None), entries(&[]));
}

fn a_prefix_list_finds_keys_that_continue_with_ff(store: &mut dyn Store) {
    let keys: [&[u8]; 8] = [b"", b"a", b"a\xff", b"a\xff\xff", b"a\xff\xffz", b"b", b"\xff", b"\xff\xff"];
    for key in keys {
        put_bytes(store, &[key], &[b"v"]);
    }
    let found = |store: &mut dyn Store, prefix: &'static [u8], reverse| -> Vec<Bytes> {
        let query = KvListQuery::Prefix { key: Bytes::from_static(prefix) };
        list(store, query, Some(reverse), None).into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(found(store, b"", false), keys);
    assert_eq!(found(store, b"a", false), keys[1..5]);
    assert_eq!(found(store, b"a\xff", false), keys[2..5]);
    assert_eq!(found(store, b"\xff", false), keys[6..]);
    assert_eq!(found(store, b"\xff", true), [keys[7], keys[6]]);
    assert_eq!(found(store, b"c", false), Vec::<Bytes>::new());
}

fn of_two_equal_keys_in_one_put_the_later_wins(store: &mut dyn Store) {
    put(store, &[("a", "first"), ("b", "2"), ("a", "second")]);
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[("a", "second"), ("b", "2")]));
}

fn a_put_replaces_value_and_time(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2")]);
    let again = KvRequest::Put { keys: vec!["a".into()], values: vec!["longer".into()] };
    assert_eq!(kv_at(store, "a", &again, NOW + 5), KvResponse::Put);
    let KvResponse::Get { values, metadata, .. } = kv(store, &KvRequest::Get { keys: vec!["a".into(), "b".into()] })
    else {
        panic!("not a get")
    };
    assert_eq!(values, ["longer", "2"]);
    assert_eq!(metadata.iter().map(|entry| entry.update_ts).collect::<Vec<_>>(), [NOW + 5, NOW]);
    assert_eq!(metadata[0].version, env!("CARGO_PKG_VERSION"));
}

fn deleting_missing_keys_is_fine(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2")]);
    let keys = vec!["x".into(), "a".into(), "a".into()];
    assert_eq!(kv(store, &KvRequest::Delete { keys }), KvResponse::Delete);
    assert_eq!(kv(store, &KvRequest::Delete { keys: vec![] }), KvResponse::Delete);
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[("b", "2")]));
}

fn a_range_delete_is_half_open(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    let delete =
        |start: &'static str, end: &'static str| KvRequest::DeleteRange { start: start.into(), end: end.into() };
    for nothing in [delete("b", "b"), delete("c", "b")] {
        assert_eq!(kv(store, &nothing), KvResponse::Delete);
        assert_eq!(list(store, KvListQuery::All, None, None).len(), 4);
    }
    assert_eq!(kv(store, &delete("b", "d")), KvResponse::Delete);
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[("a", "1"), ("d", "4")]));
}

fn a_drop_removes_everything_and_a_put_begins_anew(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2")]);
    assert_eq!(kv(store, &KvRequest::Drop), KvResponse::Drop);
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[]));
    put(store, &[("b", "3")]);
    tidy(store);
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[("b", "3")]));
}

fn actors_do_not_see_each_other(store: &mut dyn Store) {
    for actor in ["a", "aa", "b"] {
        let put = KvRequest::Put { keys: vec!["k".into()], values: vec![actor.into()] };
        assert_eq!(kv_at(store, actor, &put, NOW), KvResponse::Put);
    }
    assert_eq!(kv_at(store, "aa", &KvRequest::Drop, NOW), KvResponse::Drop);
    assert_eq!(list_of(store, "a"), entries(&[("k", "a")]));
    assert_eq!(list_of(store, "aa"), entries(&[]));
    assert_eq!(list_of(store, "b"), entries(&[("k", "b")]));
}

fn keys_and_values_may_be_empty(store: &mut dyn Store) {
    put(store, &[("", "")]);
    assert_eq!(get(store, &[""]), entries(&[("", "")]));
    assert_eq!(list(store, range("", "", false), None, None), entries(&[("", "")]));
    assert_eq!(kv(store, &KvRequest::Delete { keys: vec!["".into()] }), KvResponse::Delete);
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[]));
}

fn requests_of_an_actor_without_entries_find_nothing(store: &mut dyn Store) {
    assert_eq!(get(store, &["a"]), entries(&[]));
    assert_eq!(list(store, KvListQuery::All, Some(true), None), entries(&[]));
    assert_eq!(kv(store, &KvRequest::Delete { keys: vec!["a".into()] }), KvResponse::Delete);
    assert_eq!(kv(store, &KvRequest::DeleteRange { start: "a".into(), end: "b".into() }), KvResponse::Delete);
    assert_eq!(kv(store, &KvRequest::Drop), KvResponse::Drop);
    assert_eq!(kv(store, &KvRequest::Put { keys: vec![], values: vec![] }), KvResponse::Put);
}

fn a_key_may_be_as_long_as_the_limit_wherever_it_stands(store: &mut dyn Store) {
    let requests = |key: Bytes| {
        let prefix = KvListQuery::Prefix { key: key.clone() };
        let from = KvListQuery::Range { start: key.clone(), end: "z".into(), exclusive: true };
        let to = KvListQuery::Range { start: "a".into(), end: key.clone(), exclusive: false };
        let list = |query| KvRequest::List { query, reverse: None, limit: None };
        [
            ("key is", KvRequest::Put { keys: vec!["a".into(), key.clone()], values: vec!["1".into(), "2".into()] }),
            ("key is", KvRequest::Get { keys: vec!["a".into(), key.clone()] }),
            ("key is", KvRequest::Delete { keys: vec!["a".into(), key.clone()] }),
            ("prefix key is", list(prefix)),
            ("start key is", list(from)),
            ("end key is", list(to)),
            ("start key is", KvRequest::DeleteRange { start: key.clone(), end: "z".into() }),
            ("end key is", KvRequest::DeleteRange { start: "a".into(), end: key }),
        ]
    };
    for (_, request) in requests(Bytes::from(vec![b'k'; KV_KEY_MAX])) {
        let answer = kv(store, &request);
        assert!(!matches!(answer, KvResponse::Error { .. }), "{answer:?}");
    }
    for (which, request) in requests(Bytes::from(vec![b'k'; KV_KEY_MAX + 1])) {
        let text = refusal(store, &request);
        assert!(text.starts_with(which), "{text}");
        assert!(text.contains("max 2046 bytes") && text.contains("has 2047 bytes") && text.contains("\"kkk"), "{text}");
        let listed = matches!(request, KvRequest::Put { .. } | KvRequest::Get { .. } | KvRequest::Delete { .. });
        assert_eq!(text.contains("key 2 of 2"), listed, "{text}");
    }
}

fn a_value_may_be_as_long_as_the_limit(store: &mut dyn Store) {
    let request = |len| KvRequest::Put { keys: vec!["user:\0".into()], values: vec![Bytes::from(vec![1; len])] };
    assert_eq!(kv(store, &request(KV_VALUE_MAX)), KvResponse::Put);
    let text = refusal(store, &request(KV_VALUE_MAX + 1));
    assert!(text.contains("max 131072 bytes") && text.contains("131073 bytes"), "{text}");
    assert!(text.contains(r#"key 1 of 1, "user:\x00""#), "{text}");
}

fn a_request_may_have_as_many_keys_as_the_limit(store: &mut dyn Store) {
    let requests = |count: usize| {
        let keys: Vec<Bytes> = (0..count).map(|n| Bytes::from(n.to_string())).collect();
        let values = keys.clone();
        [
            KvRequest::Put { keys: keys.clone(), values },
            KvRequest::Get { keys: keys.clone() },
            KvRequest::Delete { keys },
        ]
    };
    for request in requests(KV_KEYS_MAX) {
        let answer = kv(store, &request);
        assert!(!matches!(answer, KvResponse::Error { .. }), "{answer:?}");
    }
    for request in requests(KV_KEYS_MAX + 1) {
        let text = refusal(store, &request);
        assert!(text.starts_with("a maximum of 128 ") && text.ends_with("has 129"), "{text}");
    }
}

fn a_put_may_be_as_large_as_the_limit(store: &mut dyn Store) {
    let request = |total: usize| {
        let keys: Vec<Bytes> = (0..8).map(|n| Bytes::from(format!("key-{n}"))).collect();
        let mut values = vec![Bytes::from(vec![1; 125_000]); 7];
        values.push(Bytes::from(vec![1; total - 7 * 125_000 - 8 * (5 + KV_KEY_OVERHEAD)]));
        KvRequest::Put { keys, values }
    };
    assert_eq!(kv(store, &request(KV_PUT_MAX)), KvResponse::Put);
    let text = refusal(store, &request(KV_PUT_MAX + 1));
    assert!(text.contains("max 999424 bytes") && text.ends_with("it has 999425 bytes"), "{text}");
}

fn a_put_needs_as_many_values_as_keys(store: &mut dyn Store) {
    let text = refusal(store, &KvRequest::Put { keys: vec!["a".into(), "b".into()], values: vec!["1".into()] });
    assert!(text.contains("2 keys, 1 values"), "{text}");
}

fn a_refused_put_changes_nothing(store: &mut dyn Store) {
    put(store, &[("a", "1")]);
    let values = vec!["2".into(), Bytes::from(vec![1; KV_VALUE_MAX + 1])];
    refusal(store, &KvRequest::Put { keys: vec!["a".into(), "b".into()], values });
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[("a", "1")]));
}

fn an_actor_may_use_as_much_as_its_quota(store: &mut dyn Store) {
    let last = fill_to_quota(store);
    let text = refusal(store, &KvRequest::Put { keys: vec!["x".into()], values: vec!["".into()] });
    assert!(text.starts_with("kv_storage_quota_exceeded"), "{text}");
    assert!(text.contains(&format!("use {} bytes", QUOTA + 3)) && text.contains(&format!("{QUOTA} bytes")), "{text}");
    // Replacing a value by one of the same length is fine, by a longer one is not, and another actor has its own quota.
    let replace = |len| KvRequest::Put { keys: vec![last.0.clone()], values: vec![Bytes::from(vec![9; len])] };
    assert_eq!(kv(store, &replace(last.1)), KvResponse::Put);
    refusal(store, &replace(last.1 + 1));
    assert_eq!(kv_at(store, "another", &replace(last.1 + 1), NOW), KvResponse::Put);
}

fn what_is_removed_or_replaced_is_given_back_to_the_quota(store: &mut dyn Store) {
    let (key, len) = fill_to_quota(store);
    let behind = Bytes::from([&key[..], b"\0"].concat());
    let put = |key: &Bytes, len| KvRequest::Put { keys: vec![key.clone()], values: vec![Bytes::from(vec![1; len])] };
    let other = Bytes::from_static(b"x");
    // How long a value of the other key may be afterwards: its key is three bytes shorter.
    for (removal, fits) in [
        (KvRequest::Delete { keys: vec![key.clone()] }, len + 3),
        (KvRequest::DeleteRange { start: key.clone(), end: behind }, len + 3),
        (put(&key, 0), len - 1 - KV_KEY_OVERHEAD),
    ] {
        refusal(store, &put(&other, 0));
        kv(store, &removal);
        refusal(store, &put(&other, fits + 1));
        assert_eq!(kv(store, &put(&other, fits)), KvResponse::Put, "{removal:?}");
        kv(store, &KvRequest::Delete { keys: vec![other.clone()] });
        assert_eq!(kv(store, &put(&key, len)), KvResponse::Put, "{removal:?}");
    }
    kv(store, &KvRequest::Drop);
    fill_to_quota(store);
}

fn an_actor_that_has_used_up_its_quota_may_still_shrink(store: &mut dyn Store) {
    let (key, len) = fill_to_quota(store);
    let shorter = KvRequest::Put { keys: vec![key], values: vec![Bytes::from(vec![1; len - 1])] };
    assert_eq!(kv(store, &shorter), KvResponse::Put);
}

fn a_list_that_no_message_can_carry_is_refused_and_says_how_much_can(store: &mut dyn Store) {
    let value = Bytes::from(vec![1; KV_VALUE_MAX]);
    for n in 0..256 {
        let put = KvRequest::Put { keys: vec![Bytes::from(format!("{n:03}"))], values: vec![value.clone()] };
        assert_eq!(kv(store, &put), KvResponse::Put);
    }
    let list = |limit| KvRequest::List { query: KvListQuery::All, reverse: None, limit };
    let text = refusal(store, &list(None));
    assert!(text.contains("`limit`") && text.contains("the first 255 entries fit"), "{text}");
    let answer = kv(store, &list(Some(255)));
    let mut encoded = BytesMut::new();
    ToClient::Kv { request_id: u32::MAX, response: answer }.encode(Version::V7, &mut encoded).unwrap();
    assert!(encoded.len() <= MESSAGE_MAX);
    assert!(matches!(kv(store, &list(Some(0))), KvResponse::List { .. }));
}

fn what_is_not_committed_is_undone(store: &mut dyn Store) {
    put(store, &[("a", "1"), ("b", "2")]);
    store.begin().unwrap();
    for request in [
        KvRequest::Put { keys: vec!["a".into(), "c".into()], values: vec!["new".into(), "3".into()] },
        KvRequest::Delete { keys: vec!["b".into()] },
        KvRequest::Drop,
        KvRequest::Put { keys: vec!["d".into()], values: vec!["4".into()] },
    ] {
        store.kv("a", &request, NOW).unwrap();
    }
    let all = KvRequest::List { query: KvListQuery::All, reverse: None, limit: None };
    assert_eq!(listed(store.kv("a", &all, NOW).unwrap()), entries(&[("d", "4")]));
    store.rollback();
    tidy(store);
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[("a", "1"), ("b", "2")]));
}

fn destroying_an_actor_drops_its_storage(store: &mut dyn Store) {
    store.begin().unwrap();
    store.apply(&Change::Actor(Box::new(actor("a")))).unwrap();
    store.commit().unwrap();
    put(store, &[("k", "v")]);
    store.begin().unwrap();
    let destroyed = greenroom::store::ActorRecord { phase: Phase::Destroyed, ..actor("a") };
    store.apply(&Change::Actor(Box::new(destroyed))).unwrap();
    store.commit().unwrap();
    assert_eq!(list(store, KvListQuery::All, None, None), entries(&[]));
    tidy(store);
    assert!(!store.untidy());
}

fn one_value_can_be_read(store: &mut dyn Store) {
    put(store, &[("k", "v")]);
    let mut read = |key: &'static str| store.read(&Query::KvValue { actor_id: "a".into(), key: key.into() }).unwrap();
    assert_eq!(read("k"), Found::KvValue(Some(("v".into(), NOW))));
    assert_eq!(read("x"), Found::KvValue(None));
}

fn kv(store: &mut dyn Store, request: &KvRequest) -> KvResponse {
    kv_at(store, "a", request, NOW)
}

fn kv_at(store: &mut dyn Store, actor_id: &str, request: &KvRequest, now_ms: i64) -> KvResponse {
    store.begin().unwrap();
    let response = store.kv(actor_id, request, now_ms).unwrap();
    store.commit().unwrap();
    response
}

fn refusal(store: &mut dyn Store, request: &KvRequest) -> String {
    match kv(store, request) {
        KvResponse::Error { message } => message.to_string(),
        answer => panic!("not refused: {answer:?}"),
    }
}

fn put(store: &mut dyn Store, entries: &[(&'static str, &'static str)]) {
    let keys = entries.iter().map(|(key, _)| Bytes::from(*key)).collect();
    let values = entries.iter().map(|(_, value)| Bytes::from(*value)).collect();
    assert_eq!(kv(store, &KvRequest::Put { keys, values }), KvResponse::Put);
}

fn put_bytes(store: &mut dyn Store, keys: &[&[u8]], values: &[&[u8]]) {
    let copied = |all: &[&[u8]]| all.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
    let put = KvRequest::Put { keys: copied(keys), values: copied(values) };
    assert_eq!(kv(store, &put), KvResponse::Put);
}

fn get(store: &mut dyn Store, keys: &[&'static str]) -> Vec<(Bytes, Bytes)> {
    listed(kv(store, &KvRequest::Get { keys: keys.iter().map(|key| Bytes::from(*key)).collect() }))
}

fn list(store: &mut dyn Store, query: KvListQuery, reverse: Option<bool>, limit: Option<u64>) -> Vec<(Bytes, Bytes)> {
    listed(kv(store, &KvRequest::List { query, reverse, limit }))
}

fn list_of(store: &mut dyn Store, actor_id: &str) -> Vec<(Bytes, Bytes)> {
    listed(kv_at(store, actor_id, &KvRequest::List { query: KvListQuery::All, reverse: None, limit: None }, NOW))
}

fn listed(answer: KvResponse) -> Vec<(Bytes, Bytes)> {
    match answer {
        KvResponse::Get { keys, values, metadata } | KvResponse::List { keys, values, metadata } => {
            assert_eq!((keys.len(), keys.len()), (values.len(), metadata.len()));
            keys.into_iter().zip(values).collect()
        }
        answer => panic!("not a list: {answer:?}"),
    }
}

fn entries(entries: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
    entries.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value))).collect()
}

fn range(start: &'static str, end: &'static str, exclusive: bool) -> KvListQuery {
    KvListQuery::Range { start: start.into(), end: end.into(), exclusive }
}

/// Uses up the quota to the last byte; answers the last key and the length of its value.
fn fill_to_quota(store: &mut dyn Store) -> (Bytes, usize) {
    let value = Bytes::from(vec![1; KV_VALUE_MAX]);
    let cost = |len: usize| (4 + KV_KEY_OVERHEAD + len) as u64;
    let mut left = QUOTA;
    let mut n = 0;
    store.begin().unwrap();
    loop {
        let key = Bytes::from(format!("{n:04}"));
        let len = usize::try_from(left).unwrap().saturating_sub(4 + KV_KEY_OVERHEAD).min(KV_VALUE_MAX);
        let put = KvRequest::Put { keys: vec![key.clone()], values: vec![value.slice(..len)] };
        assert_eq!(store.kv("a", &put, NOW), Ok(KvResponse::Put));
        left -= cost(len);
        n += 1;
        if left == 0 {
            store.commit().unwrap();
            return (key, len);
        }
    }
}

/// Removes all that is left over.
fn tidy(store: &mut dyn Store) {
    while store.untidy() {
        store.begin().unwrap();
        store.tidy().unwrap();
        store.commit().unwrap();
    }
}
