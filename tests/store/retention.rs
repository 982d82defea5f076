//! What is gone is remembered for a while, and no longer.

use std::sync::Arc;
use std::time::Duration;

use greenroom::protocol::{KvRequest, KvResponse};
use greenroom::store::{
    ActorRecord, Change, Committer, Found, Phase, Query, Retention, RunnerRecord, SqliteStore, Store,
};

use super::records::{actor, runner};

#[test]
fn a_destroyed_actor_is_remembered_for_its_time_and_not_longer() {
    let (_dir, mut store) = open(Retention { time: Duration::from_secs(10), ..Retention::default() });
    destroyed(&mut store, "early", 1_000);
    destroyed(&mut store, "late", 2_000);
    let living = ActorRecord { destroy_ts: Some(1), phase: Phase::StoppingToDestroy, ..actor("living") };
    apply(&mut store, Change::Actor(Box::new(living)));
    expire(&mut store, 10_999);
    assert_eq!(there(&mut store, &["early", "late", "living"]), ["early", "late", "living"]);
    expire(&mut store, 11_000);
    assert_eq!(there(&mut store, &["early", "late", "living"]), ["late", "living"]);
    expire(&mut store, i64::MAX);
    assert_eq!(there(&mut store, &["early", "late", "living"]), ["living"]);
}

#[test]
fn only_so_many_destroyed_actors_are_remembered() {
    let (_dir, mut store) = open(Retention { actors: 3, ..Retention::default() });
    for number in 0..3 {
        destroyed(&mut store, &format!("a{number}"), number);
    }
    expire(&mut store, 10);
    assert_eq!(there(&mut store, &["a0", "a1", "a2"]), ["a0", "a1", "a2"]);
    destroyed(&mut store, "a3", 3);
    expire(&mut store, 10);
    assert_eq!(there(&mut store, &["a0", "a1", "a2", "a3"]), ["a1", "a2", "a3"]);
}

#[test]
fn many_are_removed_in_steps() {
    let (_dir, mut store) = open(Retention { actors: 0, ..Retention::default() });
    let ids: Vec<String> = (0..1_000).map(|number| format!("a{number}")).collect();
    store.begin().unwrap();
    for id in &ids {
        let record = ActorRecord { phase: Phase::Destroyed, destroy_ts: Some(5), ..actor(id) };
        store.apply(&Change::Actor(Box::new(record))).unwrap();
    }
    store.commit().unwrap();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    store.begin().unwrap();
    assert!(store.expire(10).unwrap(), "a thousand are more than one step");
    store.commit().unwrap();
    let left = there(&mut store, &ids).len();
    assert!(left > 0 && left < 1_000, "{left}");
    expire(&mut store, 10);
    assert!(there(&mut store, &ids).is_empty());
}

#[test]
fn stopped_runners_go_and_present_ones_stay() {
    let (_dir, mut store) = open(Retention { time: Duration::from_secs(10), runners: 1, ..Retention::default() });
    for (id, stop_ts) in [("present", None), ("first", Some(1_000)), ("second", Some(1_001))] {
        apply(&mut store, Change::Runner(RunnerRecord { stop_ts, ..runner(id) }));
    }
    expire(&mut store, 2_000);
    assert_eq!(runners(&mut store), ["present", "second"]);
    expire(&mut store, 11_001);
    assert_eq!(runners(&mut store), ["present"]);
}

#[tokio::test]
async fn the_committer_removes_them_beside_its_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    destroyed(&mut store, "long ago", 1_000);
    let (store, committer) = Committer::start(store).unwrap();
    while store.read(Query::Actor("long ago".into())).await.unwrap() != Found::Actor(None) {
        tokio::task::yield_now().await;
    }
    tokio::task::spawn_blocking(|| committer.stop()).await.unwrap().unwrap();
}

/// The order of the queue is what keeps a destroyed actor's storage empty: who destroys submits behind every write it
/// let through, and lets none through afterwards.
#[tokio::test]
async fn a_write_submitted_before_the_end_of_its_actor_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = Committer::start(SqliteStore::open(dir.path()).unwrap()).unwrap();
    let id: Arc<str> = "a".into();
    let put = |number: u32| KvRequest::Put { keys: vec![number.to_string().into()], values: vec!["v".into()] };
    let writes: Vec<_> = (0..200).map(|number| store.kv(id.clone(), put(number))).collect();
    let end = ActorRecord { phase: Phase::Destroyed, destroy_ts: Some(1), ..actor("a") };
    let destroyed = store.commit(vec![Change::Actor(Box::new(end))]);
    let (written, destroyed) = futures_util::future::join(futures_util::future::join_all(writes), destroyed).await;
    assert!(written.into_iter().all(|answer| answer == Ok(KvResponse::Put)));
    destroyed.unwrap();
    let value = Query::KvValue { actor_id: id, key: "7".into() };
    assert_eq!(store.read(value).await, Ok(Found::KvValue(None)));
    tokio::task::spawn_blocking(|| committer.stop()).await.unwrap().unwrap();
}

fn open(retention: Retention) -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap().with_retention(retention);
    (dir, store)
}

fn destroyed(store: &mut SqliteStore, id: &str, at: i64) {
    let record = ActorRecord { phase: Phase::Destroyed, destroy_ts: Some(at), input: Some("i".into()), ..actor(id) };
    apply(store, Change::Actor(Box::new(record)));
}

fn apply(store: &mut SqliteStore, change: Change) {
    store.begin().unwrap();
    store.apply(&change).unwrap();
    store.commit().unwrap();
}

fn expire(store: &mut SqliteStore, now_ms: i64) {
    loop {
        store.begin().unwrap();
        let more = store.expire(now_ms).unwrap();
        store.commit().unwrap();
        if !more {
            return;
        }
    }
}

fn there<'a>(store: &mut SqliteStore, ids: &[&'a str]) -> Vec<&'a str> {
    let there = |id: &&str| store.read(&Query::Actor((*id).into())).unwrap() != Found::Actor(None);
    let mut there = there;
    ids.iter().copied().filter(|id| there(id)).collect()
}

fn runners(store: &mut SqliteStore) -> Vec<String> {
    let query = Query::RunnersOf {
        namespace_id: runner("x").namespace_id,
        pool: None,
        include_stopped: true,
        limit: 100,
        created_before: None,
    };
    let Ok(Found::Runners(found)) = store.read(&query) else { panic!("no runners") };
    let mut ids: Vec<String> = found.into_iter().map(|runner| runner.id.to_string()).collect();
    ids.sort();
    ids
}
