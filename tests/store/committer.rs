//! The committer: order, grouping, failure, the budget, and how it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse};
use greenroom::store::{
    ActorRecord, Change, CommitFault, Committer, Found, MemoryStore, Query, SqliteStore, Store, StoreError, StoreHandle,
};

use super::records::actor;

#[tokio::test]
async fn a_read_submitted_after_a_write_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = Committer::start(SqliteStore::open(dir.path()).unwrap()).unwrap();
    let write = store.commit(vec![Change::Actor(Box::new(actor("a")))]);
    let read = store.read(Query::Actor("a".into()));
    let (written, found) = futures_util::future::join(write, read).await;
    written.unwrap();
    assert_eq!(found, Ok(Found::Actor(Some(Box::new(actor("a"))))));

    let (put, listed) = futures_util::future::join(store.kv("a".into(), put("k")), keys(&store)).await;
    assert_eq!(put, Ok(KvResponse::Put));
    assert_eq!(listed, ["k"]);
    stop(committer).await.unwrap();
}

#[tokio::test]
async fn what_queues_up_during_a_commit_becomes_one_commit() {
    let (gate, store) = Gate::new(MemoryStore::new());
    let (store, committer) = Committer::start(store).unwrap();
    let first = submit(&store, put("first"));
    gate.wait_for_a_commit();
    let rest: Vec<_> = (0..64).map(|n| submit(&store, put(format!("{n}")))).collect();
    assert_eq!(store.activity().jobs, 0);
    gate.open_for_ever();
    assert_eq!(first.await.unwrap(), Ok(KvResponse::Put));
    for answer in join_all(rest).await {
        assert_eq!(answer.unwrap(), Ok(KvResponse::Put));
    }
    let activity = store.activity();
    assert_eq!((activity.commits, activity.jobs, activity.failures), (2, 65, 0));
    stop(committer).await.unwrap();
}

#[tokio::test]
async fn many_writers_need_far_fewer_commits_than_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = Committer::start(SqliteStore::open(dir.path()).unwrap()).unwrap();
    let writers = (0..64).map(|writer| {
        let store = store.clone();
        async move {
            for n in 0..20 {
                assert_eq!(store.kv("a".into(), put(format!("{writer} {n}"))).await, Ok(KvResponse::Put));
            }
        }
    });
    join_all(writers).await;
    let activity = store.activity();
    assert_eq!(activity.jobs, 64 * 20);
    assert!(activity.commits * 4 < activity.jobs, "{activity:?}");
    assert_eq!(keys(&store).await.len(), 64 * 20);
    stop(committer).await.unwrap();
}

#[tokio::test]
async fn nothing_is_answered_before_it_is_durable() {
    let (gate, store) = Gate::new(MemoryStore::new());
    let (store, committer) = Committer::start(store).unwrap();
    let mut write = submit(&store, put("k"));
    gate.wait_for_a_commit();
    // Neither the write nor a read that would show it.
    let mut read = Box::pin(keys(&store));
    assert!((&mut read).now_or_never().is_none());
    assert!(write.try_recv().is_err());
    gate.open_for_ever();
    assert_eq!(write.await.unwrap(), Ok(KvResponse::Put));
    assert_eq!(read.await, ["k"]);
    stop(committer).await.unwrap();
}

#[tokio::test]
async fn a_job_that_cannot_succeed_fails_alone() {
    let (gate, store) = Gate::new(MemoryStore::new());
    let (store, committer) = Committer::start(store).unwrap();
    let keyed = |id: &str| Change::Actor(Box::new(ActorRecord { key: Some("k".into()), ..actor(id) }));
    let first = submit(&store, put("first"));
    gate.wait_for_a_commit();
    let before = submit(&store, put("before"));
    let jobs = [vec![keyed("a")], vec![Change::Actor(Box::new(actor("c"))), keyed("b")]].map(|changes| {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        store.submit_commit(changes, move |result| sender.send(result).unwrap());
        receiver
    });
    let after = submit(&store, put("after"));
    gate.open_for_ever();
    for written in [first, before, after] {
        assert_eq!(written.await.unwrap(), Ok(KvResponse::Put));
    }
    let [good, bad] = jobs;
    assert_eq!(good.await.unwrap(), Ok(()));
    assert!(bad.await.unwrap().is_err());
    assert_eq!(keys(&store).await, ["after", "before", "first"]);
    assert_eq!(store.read(Query::Actor("c".into())).await, Ok(Found::Actor(None)));
    assert_eq!(store.activity().failures, 1);
    stop(committer).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_fails_once_is_made_good() {
    for fault in [CommitFault::NothingWritten, CommitFault::ConfirmationLost] {
        let mut memory = MemoryStore::new();
        memory.fail_commit_after(1, fault);
        let (store, committer) = Committer::start(memory).unwrap();
        for key in ["a", "b", "c"] {
            assert_eq!(store.kv("a".into(), put(key)).await, Ok(KvResponse::Put));
        }
        assert_eq!(keys(&store).await, ["a", "b", "c"]);
        assert_eq!(store.failed(), None);
        stop(committer).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_fails_every_write_until_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let disk = Disk { store: SqliteStore::open(dir.path()).unwrap(), full: full.clone() };
    let (store, committer) = Committer::start(disk).unwrap();
    assert_eq!(store.kv("a".into(), put("before")).await, Ok(KvResponse::Put));

    full.store(true, Ordering::SeqCst);
    let writes = (0..20).map(|n| store.kv("a".into(), put_value(format!("{n}"), 100_000)));
    for answer in join_all(writes).await {
        let text = answer.unwrap_err().to_string();
        assert!(text.contains("gateway.db: the disk is full"), "{text}");
    }
    assert_eq!(keys(&store).await, ["before"]);
    let failed = store.failed().unwrap().to_string();
    assert!(failed.contains("the disk is full"), "{failed}");

    full.store(false, Ordering::SeqCst);
    assert_eq!(store.kv("a".into(), put_value("later", 100_000)).await, Ok(KvResponse::Put));
    assert_eq!(store.failed(), None);
    assert_eq!(keys(&store).await, ["before", "later"]);
    stop(committer).await.unwrap();
}

#[tokio::test]
async fn a_dead_disk_is_not_tried_for_every_job() {
    let (gate, store) = Gate::new(Dead);
    let (store, committer) = Committer::start(store).unwrap();
    let first = submit(&store, put("first"));
    gate.wait_for_a_commit();
    let rest: Vec<_> = (0..100).map(|n| submit(&store, put(format!("{n}")))).collect();
    gate.open_for_ever();
    assert!(first.await.unwrap().is_err());
    for answer in join_all(rest).await {
        assert_eq!(answer.unwrap(), Err(StoreError("the disk is dead".to_owned())));
    }
    // One batch and one retry for the first; one batch and three retries for the others.
    assert_eq!(gate.commits(), 6);
    assert!(stop(committer).await.is_err());
}

#[tokio::test]
async fn stopping_finishes_what_was_submitted_and_refuses_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = Committer::start(SqliteStore::open(dir.path()).unwrap()).unwrap();
    let answers: Vec<_> = (0..100).map(|n| submit(&store, put(format!("{n:02}")))).collect();
    stop(committer).await.unwrap();
    for answer in join_all(answers).await {
        assert_eq!(answer.unwrap(), Ok(KvResponse::Put));
    }
    let closed = Err(StoreError("the store is closed".to_owned()));
    assert_eq!(store.kv("a".into(), put("late")).await, closed);
    assert_eq!(submit(&store, put("late")).await.unwrap(), closed);
    store.room().await;

    let (store, committer) = Committer::start(SqliteStore::open(dir.path()).unwrap()).unwrap();
    assert_eq!(keys(&store).await.len(), 100);
    stop(committer).await.unwrap();
}

#[tokio::test]
async fn the_thread_ends_when_nobody_can_reach_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = Committer::start(SqliteStore::open(dir.path()).unwrap()).unwrap();
    let answer = submit(&store, put("k"));
    drop((store, committer));
    assert_eq!(answer.await.unwrap(), Ok(KvResponse::Put));
    // The lock is the last thing it lets go of.
    while SqliteStore::open(dir.path()).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_panic_of_the_thread_is_reported_and_leaves_nobody_waiting() {
    let (gate, store) = Gate::new(Panics);
    let (store, committer) = Committer::start(store).unwrap();
    gate.open_for_ever();
    let answers: Vec<_> = (0..10).map(|n| submit(&store, put(format!("{n}")))).collect();
    for answer in join_all(answers).await {
        assert!(answer.unwrap().is_err());
    }
    assert!(store.kv("a".into(), put("k")).await.is_err());
    let text = stop(committer).await.unwrap_err().to_string();
    assert_eq!(text, "the store's thread panicked: out of luck");
    assert_eq!(store.failed(), Some(StoreError(text)));
}

#[tokio::test]
async fn work_beyond_the_budget_waits_unless_it_was_submitted() {
    let (gate, store) = Gate::new(MemoryStore::new());
    let (store, committer) = Committer::start(store).unwrap();
    let mut submitted = vec![submit(&store, put("first"))];
    gate.wait_for_a_commit();
    while store.has_room() {
        submitted.push(submit(&store, put_value(format!("{}", submitted.len()), 128 * 1024)));
    }
    // 8,192 units, of which each value of 128 KiB takes 17.
    assert_eq!(submitted.len(), 1 + 8_191_usize.div_ceil(17));
    submitted.push(submit(&store, put("overdrawn")));
    let mut waiting = Box::pin(store.kv("a".into(), put("waited")));
    assert!((&mut waiting).now_or_never().is_none());
    assert!(store.room().now_or_never().is_none());
    assert_eq!(store.activity().waiting, 8_192);

    gate.open_for_ever();
    store.room().await;
    assert_eq!(waiting.await, Ok(KvResponse::Put));
    for answer in join_all(submitted).await {
        assert_eq!(answer.unwrap(), Ok(KvResponse::Put));
    }
    assert_eq!(store.activity().waiting, 0);
    stop(committer).await.unwrap();
}

type Answer = tokio::sync::oneshot::Receiver<Result<KvResponse, StoreError>>;

fn submit(store: &StoreHandle, request: KvRequest) -> Answer {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    store.submit_kv("a".into(), request, move |result| sender.send(result).unwrap());
    receiver
}

fn put(key: impl Into<String>) -> KvRequest {
    put_value(key, 1)
}

fn put_value(key: impl Into<String>, len: usize) -> KvRequest {
    KvRequest::Put { keys: vec![Bytes::from(key.into())], values: vec![Bytes::from(vec![1; len])] }
}

async fn keys(store: &StoreHandle) -> Vec<Bytes> {
    let list = KvRequest::List { query: KvListQuery::All, reverse: None, limit: None };
    match store.kv("a".into(), list).await {
        Ok(KvResponse::List { keys, .. }) => keys,
        answer => panic!("not a list: {answer:?}"),
    }
}

async fn stop(committer: Committer) -> Result<(), StoreError> {
    tokio::task::spawn_blocking(|| committer.stop()).await.unwrap()
}

/// A store whose commits wait until the test lets them through.
struct Gated<S> {
    store: S,
    arrived: mpsc::Sender<()>,
    pass: mpsc::Receiver<()>,
}

/// The test's side of it.
struct Gate {
    arrivals: mpsc::Receiver<()>,
    pass: std::cell::RefCell<Option<mpsc::Sender<()>>>,
}

impl Gate {
    fn new<S: Store>(store: S) -> (Self, Gated<S>) {
        let (arrived, arrivals) = mpsc::channel();
        let (pass, passed) = mpsc::channel();
        (Self { arrivals, pass: Some(pass).into() }, Gated { store, arrived, pass: passed })
    }

    fn wait_for_a_commit(&self) {
        self.arrivals.recv().unwrap();
    }

    fn open_for_ever(&self) {
        self.pass.take();
    }

    /// How many commits have arrived, the awaited one included.
    fn commits(&self) -> usize {
        1 + self.arrivals.try_iter().count()
    }
}

impl<S: Store> Store for Gated<S> {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.store.begin()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        // The test may have lost interest.
        let _ = self.arrived.send(());
        let _ = self.pass.recv();
        self.store.commit()
    }

    fn rollback(&mut self) {
        self.store.rollback();
    }

    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        self.store.apply(change)
    }

    fn kv(&mut self, actor_id: &str, request: &KvRequest, now_ms: i64) -> Result<KvResponse, StoreError> {
        self.store.kv(actor_id, request, now_ms)
    }

    fn read(&mut self, query: &Query) -> Result<Found, StoreError> {
        self.store.read(query)
    }
}

/// A disk that can be full.
struct Disk {
    store: SqliteStore,
    full: Arc<AtomicBool>,
}

impl Store for Disk {
    fn begin(&mut self) -> Result<(), StoreError> {
        let size = self.store.size()?;
        self.store.limit_size(if self.full.load(Ordering::SeqCst) { size } else { u64::MAX })?;
        self.store.begin()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.store.commit()
    }

    fn rollback(&mut self) {
        self.store.rollback();
    }

    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        self.store.apply(change)
    }

    fn kv(&mut self, actor_id: &str, request: &KvRequest, now_ms: i64) -> Result<KvResponse, StoreError> {
        self.store.kv(actor_id, request, now_ms)
    }

    fn read(&mut self, query: &Query) -> Result<Found, StoreError> {
        self.store.read(query)
    }
}

/// A disk on which no commit succeeds.
struct Dead;

impl Store for Dead {
    fn begin(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        Err(StoreError("the disk is dead".to_owned()))
    }

    fn rollback(&mut self) {}

    fn apply(&mut self, _: &Change) -> Result<(), StoreError> {
        Ok(())
    }

    fn kv(&mut self, _: &str, _: &KvRequest, _: i64) -> Result<KvResponse, StoreError> {
        Ok(KvResponse::Put)
    }

    fn read(&mut self, _: &Query) -> Result<Found, StoreError> {
        Ok(Found::Alarm(None))
    }
}

/// A store with a bug.
struct Panics;

impl Store for Panics {
    fn begin(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn rollback(&mut self) {}

    fn apply(&mut self, _: &Change) -> Result<(), StoreError> {
        Ok(())
    }

    fn kv(&mut self, _: &str, _: &KvRequest, _: i64) -> Result<KvResponse, StoreError> {
        panic!("out of luck")
    }

    fn read(&mut self, _: &Query) -> Result<Found, StoreError> {
        Ok(Found::Alarm(None))
    }
}
