//! The one thread that uses the store, and how everyone else reaches it.
//!
//! Work is applied in the order it was submitted. The thread takes what has queued up, applies it as one transaction,
//! makes that durable, and only then answers each: one sync of the disk serves all that waited for it. Reads take their
//! turn in the same queue, so they see every write submitted before them and nothing that may yet fail.
//!
//! When a batch fails, its jobs are tried again one at a time, so that a job that cannot succeed fails alone. When the
//! disk takes nothing, all fail, and [`StoreHandle::failed`] says so until a write succeeds again.

mod batch;
mod job;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use greenroom_protocol::{KvRequest, KvResponse};
use tokio::sync::{Semaphore, oneshot};
use tracing::error;

use super::{Change, Found, Query, Store, StoreError};
use job::{Done, Job, Work};

/// The owner of the thread. Dropping it leaves the thread running for as long as there are handles.
#[derive(Debug)]
pub struct Committer {
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
    queue: Sender<Order>,
}

/// Reaches the store; cheap to clone.
///
/// Work waiting in the queue is limited by a budget of 8,192 units: a job costs one, and one more for each 8 KiB of
/// keys, values and records in it, so that at most about 64 MiB wait. The `async` functions wait for their share, first
/// come, first served. [`StoreHandle::submit_kv`] and its siblings never wait and never refuse, because whoever calls
/// them is in the middle of something; they overdraw the budget instead, and their caller must not take new input while
/// [`StoreHandle::has_room`] is false ([`StoreHandle::room`] waits). What waits is then bounded by the budget and the
/// work that one input makes.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    shared: Arc<Shared>,
    queue: Sender<Order>,
}

/// What the committer has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Transactions that became durable.
    pub commits: u64,
    /// Jobs answered, well or badly.
    pub jobs: u64,
    /// Jobs that the store failed.
    pub failures: u64,
    /// Units of the budget that waiting work takes.
    pub waiting: usize,
}

#[derive(Debug)]
struct Shared {
    budget: Semaphore,
    failed: Mutex<Option<StoreError>>,
    commits: AtomicU64,
    jobs: AtomicU64,
    failures: AtomicU64,
}

/// What goes through the queue.
#[derive(Debug)]
enum Order {
    Work(Job),
    /// Everything submitted before this is done; then the thread ends.
    Stop,
}

impl Committer {
    /// Starts the thread. It ends when [`Committer::stop`] is called, or when the last handle and this are gone and all
    /// that was submitted is done.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(store: impl Store) -> io::Result<(StoreHandle, Self)> {
        let (queue, orders) = mpsc::channel();
        let shared = Arc::new(Shared::new());
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("store".to_owned()).spawn(move || run(store, &orders, &shared))?
        };
        Ok((StoreHandle { shared: Arc::clone(&shared), queue: queue.clone() }, Self { thread, shared, queue }))
    }

    /// Finishes what was submitted, closes the store and ends the thread; what is submitted later fails. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when the thread had panicked, or when the last write failed.
    pub fn stop(self) -> Result<(), StoreError> {
        // A thread that is gone already needs no order.
        let _ = self.queue.send(Order::Stop);
        if self.thread.join().is_err() {
            return Err(StoreError("the store's thread panicked while it closed the store".to_owned()));
        }
        self.shared.failed().map_or(Ok(()), Err)
    }
}

impl StoreHandle {
    /// Performs a key-value request of an actor. A write is durable when this returns; it may happen all the same when
    /// the call is dropped before.
    ///
    /// # Errors
    /// [`StoreError`]: the storage failed. The write may have happened if a disk died at the wrong moment.
    pub async fn kv(&self, actor_id: Arc<str>, request: KvRequest) -> Result<KvResponse, StoreError> {
        let (done, answer) = answer();
        self.submit_in_turn(Work::Kv { actor_id, request, done }).await;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Applies changes, all or none, durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`], as for [`StoreHandle::kv`].
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (done, answer) = answer();
        self.submit_in_turn(Work::Commit { changes, done }).await;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Answers a question, after everything submitted before it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, query: Query) -> Result<Found, StoreError> {
        let (done, answer) = answer();
        self.submit_in_turn(Work::Read { query, done }).await;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// As [`StoreHandle::kv`], without waiting: `done` is called exactly once, on the store's thread, so it must neither
    /// block nor panic.
    pub fn submit_kv(
        &self,
        actor_id: Arc<str>,
        request: KvRequest,
        done: impl FnOnce(Result<KvResponse, StoreError>) + Send + 'static,
    ) {
        self.submit(Work::Kv { actor_id, request, done: Done::new(done) });
    }

    /// As [`StoreHandle::commit`], without waiting; for `done` see [`StoreHandle::submit_kv`].
    pub fn submit_commit(&self, changes: Vec<Change>, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.submit(Work::Commit { changes, done: Done::new(done) });
    }

    /// As [`StoreHandle::read`], without waiting; for `done` see [`StoreHandle::submit_kv`].
    pub fn submit_read(&self, query: Query, done: impl FnOnce(Result<Found, StoreError>) + Send + 'static) {
        self.submit(Work::Read { query, done: Done::new(done) });
    }

    /// Whether the budget has anything left.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.budget.available_permits() > 0
    }

    /// Waits until the budget has something left, or the store is closed. Safe to cancel.
    pub async fn room(&self) {
        // The permit goes back at once.
        let _ = self.shared.budget.acquire().await;
    }

    /// Why the store does not work: the last write failed, or its thread ended. None while all is well.
    #[must_use]
    pub fn failed(&self) -> Option<StoreError> {
        self.shared.failed()
    }

    /// What has been done so far.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Activity {
            commits: read(&self.shared.commits),
            jobs: read(&self.shared.jobs),
            failures: read(&self.shared.failures),
            waiting: (BUDGET as usize).saturating_sub(self.shared.budget.available_permits()),
        }
    }

    async fn submit_in_turn(&self, work: Work) {
        let cost = work.cost();
        // The budget is closed once the thread has ended; then the job is answered by being dropped.
        if let Ok(permit) = self.shared.budget.acquire_many(cost).await {
            permit.forget();
            self.send(Job { work, taken: cost as usize });
        }
    }

    fn submit(&self, work: Work) {
        let taken = self.shared.budget.forget_permits(work.cost() as usize);
        self.send(Job { work, taken });
    }

    fn send(&self, job: Job) {
        // A job that cannot be sent any more is dropped, which answers it.
        let _ = self.queue.send(Order::Work(job));
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            budget: Semaphore::new(BUDGET as usize),
            failed: Mutex::new(None),
            commits: AtomicU64::new(0),
            jobs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    fn failed(&self) -> Option<StoreError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_failed(&self, error: Option<StoreError>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

fn run(store: impl Store, orders: &Receiver<Order>, shared: &Shared) {
    // Nothing of the store is used after a panic.
    let outcome = catch_unwind(AssertUnwindSafe(|| batch::Batches::new(store, shared).run(orders)));
    if let Err(panic) = outcome {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        error!(panic = text, "the store's thread panicked; nothing can be stored any more");
        shared.set_failed(Some(StoreError(format!("the store's thread panicked: {text}"))));
    }
    // Whoever waits for a share of the budget goes on, and finds the queue closed.
    shared.budget.close();
}

fn answer<T: Send + 'static>() -> (Done<T>, oneshot::Receiver<Result<T, StoreError>>) {
    let (sender, receiver) = oneshot::channel();
    // Nobody may be waiting any more; the work is done all the same.
    let done = Done::new(move |result| {
        let _ = sender.send(result);
    });
    (done, receiver)
}

fn gone() -> StoreError {
    StoreError("the store is closed".to_owned())
}

/// The units of work that may wait: as many jobs, or 8 KiB each of payload.
const BUDGET: u32 = 8_192;
