//! Batches: what has queued up becomes one transaction.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use greenroom_protocol::KvResponse;
use tracing::{debug, error};

use super::job::{Job, Work};
use super::{Order, Shared};
use crate::store::{Found, Store, StoreError};
use crate::telemetry::metrics;

/// The loop of the thread.
pub(super) struct Batches<'a, S> {
    store: S,
    shared: &'a Shared,
    /// Batches since the last tidying.
    since_tidy: u32,
    /// When to look again for what has been kept long enough.
    expire_at: Instant,
}

/// A job that was applied and waits for the commit.
struct Applied {
    job: Job,
    answer: Answer,
}

enum Answer {
    Kv(KvResponse),
    Commit,
    Found(Found),
}

/// A transaction that is being filled.
#[derive(Default)]
struct Batch {
    applied: Vec<Applied>,
    bytes: usize,
    stop: bool,
}

/// Why a job or batch failed.
enum Failed {
    /// The job itself could not be applied; others may.
    Apply(StoreError),
    /// The transaction could not be opened or made durable.
    Transaction(StoreError),
}

impl<'a, S: Store> Batches<'a, S> {
    pub(super) fn new(store: S, shared: &'a Shared) -> Self {
        Self { store, shared, since_tidy: 0, expire_at: Instant::now() }
    }

    /// Works until it is told to stop, or nobody can submit any more.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let first = match orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    if self.tidy() || self.expire() {
                        continue;
                    }
                    match orders.recv_timeout(self.expire_at.saturating_duration_since(Instant::now())) {
                        Ok(order) => order,
                        Err(RecvTimeoutError::Timeout) => continue,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            };
            let Order::Work(first) = first else { return };
            if self.batch(first, orders) {
                return;
            }
            self.since_tidy += 1;
            if self.since_tidy >= BATCHES_PER_TIDYING {
                self.tidy();
                self.expire();
            }
        }
    }

    /// Applies a job and what has queued up behind it. True: it was told to stop behind these.
    fn batch(&mut self, first: Job, orders: &Receiver<Order>) -> bool {
        let mut batch = Batch::default();
        if let Err((error, rest)) = self.fill(&mut batch, first, orders) {
            self.store.rollback();
            debug!(jobs = rest.len(), %error, "a transaction failed; trying its jobs one by one");
            self.one_by_one(rest);
            return batch.stop;
        }
        match self.commit(batch.applied.len()) {
            Ok(()) => self.committed(batch.applied),
            Err(error) => {
                self.store.rollback();
                debug!(jobs = batch.applied.len(), %error, "a commit failed; trying its jobs one by one");
                self.one_by_one(batch.applied.into_iter().map(|applied| applied.job).collect());
            }
        }
        batch.stop
    }

    /// Opens a transaction and applies jobs until the queue is empty or the batch is large enough. When one fails,
    /// gives back all that were taken.
    fn fill(&mut self, batch: &mut Batch, first: Job, orders: &Receiver<Order>) -> Result<(), (StoreError, Vec<Job>)> {
        let now_ms = now_ms();
        if let Err(error) = self.store.begin() {
            return Err((error, vec![first]));
        }
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match self.apply(&job.work, now_ms) {
                Ok(answer) => {
                    batch.bytes += job.work.bytes() + answer.bytes();
                    batch.applied.push(Applied { job, answer });
                }
                Err(error) => {
                    let jobs = batch.applied.drain(..).map(|applied| applied.job).chain([job]).collect();
                    return Err((error, jobs));
                }
            }
            if batch.applied.len() >= BATCH_JOBS || batch.bytes >= BATCH_BYTES {
                break;
            }
            match orders.try_recv() {
                Ok(Order::Work(job)) => next = Some(job),
                Ok(Order::Stop) => batch.stop = true,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        }
        Ok(())
    }

    fn apply(&mut self, work: &Work, now_ms: i64) -> Result<Answer, StoreError> {
        match work {
            Work::Kv { actor_id, request, .. } => self.store.kv(actor_id, request, now_ms).map(Answer::Kv),
            Work::Commit { changes, .. } => {
                for change in changes {
                    self.store.apply(change)?;
                }
                Ok(Answer::Commit)
            }
            Work::Read { query, .. } => self.store.read(query).map(Answer::Found),
        }
    }

    /// Each job in a transaction of its own, so that a bad one fails alone. When several in a row cannot be made
    /// durable, the disk is at fault, and the rest is not tried.
    fn one_by_one(&mut self, jobs: Vec<Job>) {
        let mut undurable = 0;
        let mut last = None;
        for job in jobs {
            if undurable >= GIVE_UP_AFTER
                && let Some(error) = &last
            {
                self.failed(job, StoreError::clone(error));
                continue;
            }
            match self.alone(&job) {
                Ok(answer) => {
                    undurable = 0;
                    self.committed(vec![Applied { job, answer }]);
                }
                Err(Failed::Apply(error)) => {
                    undurable = 0;
                    self.store.rollback();
                    self.failed(job, error);
                }
                Err(Failed::Transaction(error)) => {
                    undurable += 1;
                    self.store.rollback();
                    last = Some(error.clone());
                    self.failed(job, error);
                }
            }
        }
    }

    fn alone(&mut self, job: &Job) -> Result<Answer, Failed> {
        self.store.begin().map_err(Failed::Transaction)?;
        let answer = self.apply(&job.work, now_ms()).map_err(Failed::Apply)?;
        self.commit(1).map_err(Failed::Transaction)?;
        Ok(answer)
    }

    /// Commits this many jobs and says how long it took, for those who count.
    fn commit(&mut self, jobs: usize) -> Result<(), StoreError> {
        let began = Instant::now();
        let committed = self.store.commit();
        metrics::gateway().commit(committed.is_ok(), jobs, began.elapsed());
        committed
    }

    fn committed(&mut self, applied: Vec<Applied>) {
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        if applied.iter().any(|applied| applied.job.work.writes()) {
            self.recovered();
        }
        for Applied { job, answer } in applied {
            self.finished(&job);
            match (job.work, answer) {
                (Work::Kv { done, .. }, Answer::Kv(response)) => done.call(Ok(response)),
                (Work::Commit { done, .. }, Answer::Commit) => done.call(Ok(())),
                (Work::Read { done, .. }, Answer::Found(found)) => done.call(Ok(found)),
                (work, _) => work.fail(StoreError("the store mixed up two answers".to_owned())),
            }
        }
    }

    fn failed(&mut self, job: Job, error: StoreError) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        if self.shared.failed().is_none() {
            error!(%error, "the store failed");
        }
        self.shared.set_failed(Some(error.clone()));
        self.finished(&job);
        job.work.fail(error);
    }

    fn recovered(&self) {
        if self.shared.failed().is_some() {
            tracing::info!("the store works again");
            self.shared.set_failed(None);
        }
    }

    fn finished(&self, job: &Job) {
        self.shared.jobs.fetch_add(1, Ordering::Relaxed);
        self.shared.budget.add_permits(job.taken);
    }

    /// Lets the store tidy once. True: there is more to tidy.
    fn tidy(&mut self) -> bool {
        self.since_tidy = 0;
        if !self.store.untidy() {
            return false;
        }
        let tidied = self.store.begin().and_then(|()| self.store.tidy()).and_then(|()| self.store.commit());
        match tidied {
            Ok(()) => self.store.untidy(),
            Err(error) => {
                self.store.rollback();
                // What is left over harms nobody, and writes will say the same of the disk.
                debug!(%error, "cannot tidy the store");
                false
            }
        }
    }
}

impl<S: Store> Batches<'_, S> {
    /// When it is time, lets the store remove some of what has been kept long enough. True: there is more.
    fn expire(&mut self) -> bool {
        let now = Instant::now();
        if now < self.expire_at {
            return false;
        }
        if !self.store.expires() {
            self.expire_at = now + EXPIRE_EVERY;
            return false;
        }
        let mut more = false;
        let expired = self.store.begin().and_then(|()| {
            more = self.store.expire(now_ms())?;
            self.store.commit()
        });
        if let Err(error) = expired {
            self.store.rollback();
            more = false;
            // As with tidying.
            debug!(%error, "cannot remove what has been kept long enough");
        }
        if !more {
            self.expire_at = now + EXPIRE_EVERY;
        }
        more
    }
}

impl Answer {
    /// The bytes it holds, as far as they can be many.
    fn bytes(&self) -> usize {
        match self {
            Self::Kv(KvResponse::Get { keys, values, .. } | KvResponse::List { keys, values, .. }) => {
                keys.iter().chain(values).map(Bytes::len).sum()
            }
            Self::Kv(KvResponse::Error { .. } | KvResponse::Put | KvResponse::Delete | KvResponse::Drop) => 0,
            Self::Found(Found::Actors(actors)) => {
                actors.iter().map(|actor| 512 + actor.input.as_ref().map_or(0, Bytes::len)).sum()
            }
            Self::Found(_) | Self::Commit => 0,
        }
    }
}

/// Milliseconds since the epoch; a clock before it counts as the epoch.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The most jobs of a transaction: more would save no sync worth having, and make the first wait.
const BATCH_JOBS: usize = 4_096;

/// A transaction that holds more bytes of requests and answers, all of them in memory, takes no further job.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Jobs in a row that could not be made durable before the rest of a failed batch is not tried.
const GIVE_UP_AFTER: u32 = 3;

/// How often the store is asked for what has been kept long enough.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Under load, one tidying in this many batches.
const BATCHES_PER_TIDYING: u32 = 16;
