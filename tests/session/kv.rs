use bytes::Bytes;
use greenroom::kv::KvError;
use greenroom::protocol::{KvEntryMetadata, KvListQuery, KvRequest, KvResponse, ToServer, Version};
use greenroom::session::{Effect, Features};

use crate::stage::*;

#[test]
fn requests_are_pipelined_and_answered_by_their_ids() {
    let mut stage = Stage::with_actor();
    let mut ids = Vec::new();
    for number in 0..3 {
        let (ticket, effects) = stage.kv("a", 0, put(number));
        assert_eq!(ticket, u64::from(number));
        let [(id, request)] = &asked(&effects)[..] else { panic!("{effects:?}") };
        assert_eq!(*request, put(number));
        ids.push(*id);
    }
    // Whatever the order, each answer finds its request.
    assert_eq!(answers(&stage.kv_answer(ids[2], KvResponse::Put)), [(2, Ok(KvResponse::Put))]);
    let refusal = KvResponse::Error { message: "no".into() };
    assert_eq!(answers(&stage.kv_answer(ids[0], refusal.clone())), [(0, Ok(refusal))]);
    assert_eq!(stage.kv_answer(ids[0], KvResponse::Put), [], "answered once");
    assert_eq!(answers(&stage.kv_answer(ids[1], KvResponse::Put)), [(1, Ok(KvResponse::Put))]);
    assert_eq!(stage.kv_answer(12345, KvResponse::Put), [], "nobody asked");
}

#[test]
fn the_actor_is_named_in_every_request() {
    let mut stage = Stage::with_actor();
    let (_, effects) = stage.kv("a", 0, get());
    assert!(matches!(sent(&effects)[..], [ToServer::Kv { actor_id, .. }] if &**actor_id == "a"));
}

#[test]
fn what_is_unanswered_is_sent_again_in_order_with_the_same_ids() {
    let mut stage = Stage::with_actor();
    let first: Vec<_> = (0..4).flat_map(|number| asked(&stage.kv("a", 0, put(number)).1)).collect();
    stage.kv_answer(first[0].0, KvResponse::Put);
    stage.cut();
    let (late, effects) = stage.kv("a", 0, get());
    assert_eq!(effects, [], "waits for the gateway");
    let again = asked(&stage.reconnect());
    assert_eq!(again[..3], first[1..], "unanswered ones");
    assert_eq!(again[3].1, get());
    let nothing = KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] };
    assert_eq!(answers(&stage.kv_answer(again[3].0, nothing.clone())), [(late, Ok(nothing))]);
}

#[test]
fn no_request_hangs_past_its_deadline() {
    let mut stage = Stage::with_actor();
    let (write, _) = stage.kv("a", 0, put(1));
    let (read, _) = stage.kv("a", 0, get());
    assert_eq!(answers(&stage.pass(KV_TIMEOUT - millis(1))), []);
    let effects = stage.pass(millis(1));
    assert_eq!(answers(&effects), [(write, Err(KvError::OutcomeUnknown)), (read, Err(KvError::Unavailable))]);
    assert_eq!(stage.kv_answer(0, KvResponse::Put), [], "too late");
}

#[test]
fn the_deadline_counts_from_the_question_not_from_the_last_attempt() {
    let mut stage = Stage::with_actor();
    let (ticket, _) = stage.kv("a", 0, put(1));
    stage.pass(secs(20));
    stage.cut();
    stage.reconnect();
    let mut effects = stage.pass(secs(7));
    effects.extend(stage.pass(secs(3)));
    assert_eq!(answers(&effects), [(ticket, Err(KvError::OutcomeUnknown))]);
}

#[test]
fn a_write_that_was_never_sent_is_known_not_to_have_happened() {
    let mut stage = Stage::with_actor();
    stage.cut();
    let (ticket, _) = stage.kv("a", 0, put(1));
    let effects = stage.pass(LOST_AFTER);
    assert_eq!(answers(&effects), [(ticket, Err(KvError::Unavailable))]);
}

#[test]
fn a_changed_identity_leaves_sent_writes_unknown_and_asks_nothing_again() {
    let mut stage = Stage::with_actor();
    let (write, _) = stage.kv("a", 0, KvRequest::Drop);
    let (read, _) = stage.kv("a", 0, get());
    stage.cut();
    let (unsent, _) = stage.kv("a", 0, put(1));
    stage.runner_id = "runner-2";
    let effects = stage.reconnect();
    let expected =
        [(write, Err(KvError::OutcomeUnknown)), (read, Err(KvError::Unavailable)), (unsent, Err(KvError::Unavailable))];
    assert_eq!(answers(&effects), expected);
    assert_eq!(asked(&effects), []);
    // And the life of the old identity has no storage any more.
    let (ticket, effects) = stage.kv("a", 0, get());
    assert_eq!(answers(&effects), [(ticket, Err(KvError::Stale))]);
}

#[test]
fn a_stale_generation_is_refused_at_once() {
    let mut stage = Stage::with_actor();
    stage.crash("a", 0);
    for (actor, generation) in [("a", 0), ("a", 1), ("nobody", 0)] {
        let (ticket, effects) = stage.kv(actor, generation, get());
        assert_eq!(effects, [Effect::KvDone { ticket, result: Err(KvError::Stale) }]);
    }
}

#[test]
fn an_ended_life_never_writes_again() {
    let mut stage = Stage::with_actor();
    let (sent_write, _) = stage.kv("a", 0, put(1));
    let (sent_read, _) = stage.kv("a", 0, get());
    stage.cut();
    let (unsent_write, _) = stage.kv("a", 0, put(2));
    let effects = stage.crash("a", 0);
    let expected = [
        (sent_write, Err(KvError::OutcomeUnknown)),
        (sent_read, Err(KvError::Stale)),
        (unsent_write, Err(KvError::Stale)),
    ];
    assert_eq!(answers(&effects), expected);
    assert_eq!(asked(&stage.reconnect()), []);
}

#[test]
fn a_stopping_actor_may_still_write() {
    let mut stage = Stage::with_actor();
    stage.stop("a", 0, 1);
    let (ticket, effects) = stage.kv("a", 0, put(1));
    let id = asked(&effects)[0].0;
    assert_eq!(answers(&stage.kv_answer(id, KvResponse::Put)), [(ticket, Ok(KvResponse::Put))]);
}

#[test]
fn what_the_gateway_would_refuse_is_refused_here_with_the_reason() {
    let mut stage = Stage::with_actor();
    let long = Bytes::from(vec![0; 2047]);
    let keys: Vec<Bytes> = vec![Bytes::new(); 129];
    for (request, word) in [
        (KvRequest::Get { keys: vec![long.clone()] }, "2046"),
        (KvRequest::Delete { keys: keys.clone() }, "128"),
        (KvRequest::Put { keys: vec![long.slice(..1)], values: vec![] }, "values"),
        (KvRequest::Put { keys: vec![long.slice(..1)], values: vec![Bytes::from(vec![0; 131_073])] }, "131072"),
        (KvRequest::DeleteRange { start: long, end: Bytes::new() }, "start key"),
    ] {
        let (ticket, effects) = stage.kv("a", 0, request);
        assert!(asked(&effects).is_empty());
        let [(answered, Err(KvError::Refused(reason)))] = &answers(&effects)[..] else { panic!("{effects:?}") };
        assert!(*answered == ticket && reason.contains(word), "{reason}");
    }
}

#[test]
fn deleting_a_range_needs_version_7() {
    for (version, sends) in [(Version::V6, false), (Version::V7, true)] {
        let mut stage = Stage::with(|settings| settings.version = version).opened().and_actor();
        let range = KvRequest::DeleteRange { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"b") };
        let (_, effects) = stage.kv("a", 0, range);
        assert_eq!(!asked(&effects).is_empty(), sends);
    }
}

#[test]
fn an_actor_has_so_many_requests_in_flight_and_no_more() {
    let mut stage = Stage::with_actor();
    stage.start("b", 0, 0);
    for _ in 0..1024 {
        assert_eq!(asked(&stage.kv("a", 0, get()).1).len(), 1);
    }
    let (ticket, effects) = stage.kv("a", 0, get());
    assert_eq!(effects, [Effect::KvDone { ticket, result: Err(KvError::TooMany) }]);
    assert_eq!(asked(&stage.kv("b", 0, get()).1).len(), 1, "others are not held up");
    stage.kv_answer(0, KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] });
    assert_eq!(asked(&stage.kv("a", 0, get()).1).len(), 1);
}

#[test]
fn requests_are_bounded_by_bytes_too() {
    let mut stage = Stage::with_actor();
    stage.cut();
    let large = KvRequest::Put { keys: vec![Bytes::new(); 7], values: vec![Bytes::from(vec![0; 131_072]); 7] };
    let refused = (0..200).find(|_| {
        let (_, effects) = stage.kv("a", 0, large.clone());
        matches!(answers(&effects)[..], [(_, Err(KvError::TooMany))])
    });
    assert!(refused.is_some_and(|number| number > 100), "{refused:?}");
}

#[test]
fn a_request_that_connections_keep_breaking_under_is_given_up() {
    let mut stage = Stage::with_actor();
    let (read, _) = stage.kv("a", 0, get());
    let (write, _) = stage.kv("a", 0, put(1));
    let mut effects = Vec::new();
    for _ in 0..5 {
        stage.close(1011, "ws.going_away");
        stage.pass(millis(1));
        effects = stage.reconnect();
        // Keeps the backoff short, so that the deadline is not what ends this.
        stage.pass(secs(5));
        if !answers(&effects).is_empty() {
            break;
        }
    }
    assert_eq!(answers(&effects), [(read, Err(KvError::Unavailable)), (write, Err(KvError::OutcomeUnknown))]);
}

#[test]
fn a_gateway_without_features_is_asked_for_ranges_instead_of_prefixes() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let query = KvListQuery::Prefix { key: Bytes::from_static(b"job/\xff") };
    let (ticket, effects) = stage.kv("a", 0, KvRequest::List { query, reverse: None, limit: Some(9) });
    let (start, end) = (Bytes::from_static(b"job/\xff"), Bytes::from_static(b"job0"));
    let query = KvListQuery::Range { start, end, exclusive: true };
    let [(id, request)] = &asked(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(*request, KvRequest::List { query, reverse: None, limit: Some(9) });
    let list = entries(KvResponseKind::List, &[("job/\u{7f}", "1")]);
    assert_eq!(answers(&stage.kv_answer(*id, list.clone())), [(ticket, Ok(list))]);
}

#[test]
fn our_own_gateway_is_asked_as_the_actor_asked() {
    let mut stage = Stage::with_actor();
    let query = KvListQuery::Prefix { key: Bytes::from_static(b"x") };
    let request = KvRequest::List { query, reverse: Some(true), limit: None };
    let (ticket, effects) = stage.kv("a", 0, request.clone());
    assert_eq!(asked(&effects)[0].1, request);
    let list = entries(KvResponseKind::List, &[("xb", "2"), ("xa", "1")]);
    assert_eq!(answers(&stage.kv_answer(0, list.clone())), [(ticket, Ok(list))]);
}

#[test]
fn the_values_of_a_reverse_list_are_read_again_from_a_gateway_without_features() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let (ticket, effects) = stage.kv("a", 0, reverse_list());
    let id = asked(&effects)[0].0;
    let names: Vec<String> = (0..200).rev().map(|number| format!("k{number:03}")).collect();
    let cut: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "tail")).collect();
    let whole: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "the whole value")).collect();

    let effects = stage.kv_answer(id, entries(KvResponseKind::List, &cut));
    let [(id, KvRequest::Get { keys })] = &asked(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((keys.len(), &keys[0][..]), (128, &b"k199"[..]));
    assert_eq!(answers(&effects), []);

    // One of the first piece was deleted meanwhile.
    let effects = stage.kv_answer(*id, entries(KvResponseKind::Get, &whole[1..128]));
    let [(id, KvRequest::Get { keys })] = &asked(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((keys.len(), &keys[0][..]), (72, &b"k071"[..]));

    let effects = stage.kv_answer(*id, entries(KvResponseKind::Get, &whole[128..]));
    assert_eq!(answers(&effects), [(ticket, Ok(entries(KvResponseKind::List, &whole[1..])))]);
    assert_eq!(asked(&effects), []);
}

#[test]
fn an_empty_reverse_list_needs_no_second_look() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let (ticket, _) = stage.kv("a", 0, reverse_list());
    let nothing = entries(KvResponseKind::List, &[]);
    assert_eq!(answers(&stage.kv_answer(0, nothing.clone())), [(ticket, Ok(nothing))]);
}

#[test]
fn a_reverse_list_goes_on_where_it_was_after_a_cut() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let (ticket, _) = stage.kv("a", 0, reverse_list());
    stage.kv_answer(0, entries(KvResponseKind::List, &[("b", "x"), ("a", "y")]));
    stage.cut();
    let effects = stage.reconnect();
    let [(id, KvRequest::Get { keys })] = &asked(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(keys[..], ["b", "a"]);
    let effects = stage.kv_answer(*id, entries(KvResponseKind::Get, &[("b", "xx"), ("a", "yy")]));
    assert_eq!(answers(&effects), [(ticket, Ok(entries(KvResponseKind::List, &[("b", "xx"), ("a", "yy")])))]);
}

#[test]
fn a_refusal_of_the_second_look_is_the_answer_to_the_list() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let (ticket, _) = stage.kv("a", 0, reverse_list());
    stage.kv_answer(0, entries(KvResponseKind::List, &[("b", "x")]));
    let refusal = KvResponse::Error { message: "actor does not exist".into() };
    assert_eq!(answers(&stage.kv_answer(0, refusal.clone())), [(ticket, Ok(refusal))]);
}

#[test]
fn a_reverse_list_larger_than_any_answer_is_refused() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let (ticket, _) = stage.kv("a", 0, reverse_list());
    let names: Vec<String> = (0..1000).rev().map(|number| format!("k{number:03}")).collect();
    let cut: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "tail")).collect();
    let mut effects = stage.kv_answer(0, entries(KvResponseKind::List, &cut));
    let value = "v".repeat(131_072);
    let mut rounds = 0;
    while let [(id, KvRequest::Get { keys })] = &asked(&effects)[..] {
        let piece: Vec<(&str, &str)> =
            keys.iter().map(|key| (std::str::from_utf8(key).expect("text"), &*value)).collect();
        effects = stage.kv_answer(*id, entries(KvResponseKind::Get, &piece));
        rounds += 1;
    }
    assert!(matches!(&answers(&effects)[..], [(answered, Err(KvError::Refused(_)))] if *answered == ticket));
    assert_eq!(rounds, 2, "no more is read than fits");
}

enum KvResponseKind {
    Get,
    List,
}

fn entries(kind: KvResponseKind, pairs: &[(&str, &str)]) -> KvResponse {
    let keys = pairs.iter().map(|(key, _)| Bytes::copy_from_slice(key.as_bytes())).collect();
    let values = pairs.iter().map(|(_, value)| Bytes::copy_from_slice(value.as_bytes())).collect();
    let metadata = vec![KvEntryMetadata { version: Bytes::from_static(b"1"), update_ts: 5 }; pairs.len()];
    match kind {
        KvResponseKind::Get => KvResponse::Get { keys, values, metadata },
        KvResponseKind::List => KvResponse::List { keys, values, metadata },
    }
}

fn reverse_list() -> KvRequest {
    KvRequest::List { query: KvListQuery::All, reverse: Some(true), limit: None }
}

fn put(number: u8) -> KvRequest {
    KvRequest::Put { keys: vec![Bytes::from(vec![number])], values: vec![Bytes::from_static(b"v")] }
}

fn get() -> KvRequest {
    KvRequest::Get { keys: vec![Bytes::from_static(b"k")] }
}
