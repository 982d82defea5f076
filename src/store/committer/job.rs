//! One piece of work for the store, with whoever waits for it.

use std::fmt;
use std::sync::Arc;

use greenroom_protocol::{KvRequest, KvResponse};

use super::{BUDGET, gone};
use crate::store::{Change, Found, Query, StoreError};

/// Work together with its share of the budget.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    /// The units it took from the budget.
    pub(super) taken: usize,
}

/// What is to be done, and who hears of it.
#[derive(Debug)]
pub(super) enum Work {
    Kv { actor_id: Arc<str>, request: KvRequest, done: Done<KvResponse> },
    Commit { changes: Vec<Change>, done: Done<()> },
    Read { query: Query, done: Done<Found> },
}

impl Work {
    /// What it takes from the budget.
    pub(super) fn cost(&self) -> u32 {
        let units = u32::try_from(1 + self.bytes() / UNIT).unwrap_or(BUDGET);
        units.min(BUDGET)
    }

    /// The bytes it holds, as far as they can be many.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Kv { request, .. } => request_bytes(request),
            Self::Commit { changes, .. } => changes.iter().map(change_bytes).sum(),
            Self::Read { .. } => 0,
        }
    }

    /// Whether doing it changes what is stored.
    pub(super) fn writes(&self) -> bool {
        match self {
            Self::Kv { request, .. } => match request {
                KvRequest::Get { .. } | KvRequest::List { .. } => false,
                KvRequest::Put { .. } | KvRequest::Delete { .. } | KvRequest::DeleteRange { .. } | KvRequest::Drop => {
                    true
                }
            },
            Self::Commit { .. } => true,
            Self::Read { .. } => false,
        }
    }

    /// Answers that it failed.
    pub(super) fn fail(self, error: StoreError) {
        match self {
            Self::Kv { done, .. } => done.call(Err(error)),
            Self::Commit { done, .. } => done.call(Err(error)),
            Self::Read { done, .. } => done.call(Err(error)),
        }
    }
}

/// Hears the outcome of a job exactly once: when the job is dropped undone, that the store is closed.
pub(super) struct Done<T>(Option<Box<Callback<T>>>);

type Callback<T> = dyn FnOnce(Result<T, StoreError>) + Send;

impl<T> Done<T> {
    pub(super) fn new(done: impl FnOnce(Result<T, StoreError>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    pub(super) fn call(mut self, result: Result<T, StoreError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(gone()));
        }
    }
}

impl<T> fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}

fn request_bytes(request: &KvRequest) -> usize {
    match request {
        KvRequest::Put { keys, values } => keys.iter().chain(values).map(bytes::Bytes::len).sum(),
        KvRequest::Get { keys } | KvRequest::Delete { keys } => keys.iter().map(bytes::Bytes::len).sum(),
        KvRequest::List { .. } | KvRequest::DeleteRange { .. } | KvRequest::Drop => 0,
    }
}

fn change_bytes(change: &Change) -> usize {
    match change {
        Change::Actor(actor) => actor.input.as_ref().map_or(0, bytes::Bytes::len),
        Change::Runner(runner) => runner.metadata.len(),
        Change::ActorName(name) => name.metadata.len(),
        Change::RunnerConfig(config) => config.metadata.as_ref().map_or(0, String::len),
        Change::Namespace(_) | Change::DropKv(_) | Change::DropRunnerConfig(..) => 0,
    }
}

/// The bytes of payload that count as one unit of the budget.
const UNIT: usize = 8 * 1024;
