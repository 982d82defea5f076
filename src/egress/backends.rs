//! The backends that answered, in memory and in the actors' storage.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use greenroom_protocol::{KvRequest, KvResponse};
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::actor::ActorKey;
use crate::host::{ActorContext, KvError, RESERVED};
use crate::sticky::{Record, Switch, Tracker, Written};
use crate::telemetry::{fields, metrics};

/// Whose record it is. The generation is part of it: a new life reads anew what its storage says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) actor: ActorKey,
    pub(super) egress: String,
    pub(super) job: Option<String>,
}

/// All trackers in memory; each can be read from storage again.
#[derive(Debug, Default)]
pub(super) struct Backends {
    known: Mutex<Known>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Known {
    trackers: HashMap<Scope, (Arc<Mutex<Tracker>>, u64)>,
    /// Counts uses, so that the least recently used can be told.
    uses: u64,
}

#[derive(Debug, Default)]
struct Shared {
    writes: TaskTracker,
    changes: watch::Sender<u64>,
}

/// One tracker with what it takes to write its record.
#[derive(Debug)]
pub(super) struct Sticky {
    scope: Scope,
    tracker: Arc<Mutex<Tracker>>,
    shared: Arc<Shared>,
}

/// A record as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    v: u32,
    backend: String,
    #[serde(default)]
    cache_key: Option<String>,
}

impl Backends {
    /// The tracker of this scope, read from storage when it is not in memory. When storage does not answer soon, the
    /// call goes on without a hint.
    pub(super) async fn of(&self, context: &ActorContext, scope: Scope) -> Sticky {
        let known = self.lock().find(&scope);
        let unread = known.as_ref().is_none_or(|tracker| lock(tracker).is_unread());
        let read = if unread { read(context, &scope).await } else { None };
        let tracker = {
            let mut known = self.lock();
            let tracker = known.find(&scope).unwrap_or_else(|| known.add(scope.clone()));
            if let Some(persisted) = read
                && lock(&tracker).is_unread()
            {
                *lock(&tracker) = Tracker::restored(persisted);
            }
            tracker
        };
        Sticky { scope, tracker, shared: self.shared.clone() }
    }

    pub(super) fn census(&self) -> BTreeMap<String, BTreeMap<String, usize>> {
        let mut census: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (scope, (tracker, _)) in &self.lock().trackers {
            let Some(Record { backend, .. }) = lock(tracker).hint().cloned() else { continue };
            let backends = census.entry(scope.egress.clone()).or_default();
            if backends.len() < NAMED_MAX || backends.contains_key(&backend) {
                *backends.entry(backend).or_default() += 1;
            }
        }
        census
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn find(&mut self, scope: &Scope) -> Option<Arc<Mutex<Tracker>>> {
        self.uses += 1;
        let (tracker, used) = self.trackers.get_mut(scope)?;
        *used = self.uses;
        Some(tracker.clone())
    }

    fn add(&mut self, scope: Scope) -> Arc<Mutex<Tracker>> {
        if self.trackers.len() >= KNOWN_MAX {
            // Half at once, so that this is rare. Those in use live on in their calls.
            let recent = self.uses.saturating_sub(KNOWN_MAX as u64 / 2);
            self.trackers.retain(|_, (_, used)| *used > recent);
        }
        // Lives that are over tell nobody anything any more.
        self.trackers.retain(|other, _| other.actor.id != scope.actor.id || other.actor == scope.actor);
        let tracker = Arc::new(Mutex::new(Tracker::unread()));
        self.trackers.insert(scope, (tracker.clone(), self.uses));
        tracker
    }
}

impl Sticky {
    /// The backend to ask for.
    pub(super) fn hint(&self) -> Option<HeaderValue> {
        lock(&self.tracker).hint().and_then(|record| HeaderValue::from_str(&record.backend).ok())
    }

    /// An answer came from this backend: a change is written, and once it is durable it is the next hint. Does not wait
    /// for the write, nor does the answer.
    pub(super) fn observe(self, context: &ActorContext, backend: &str, cache_key: Option<&str>) {
        let Some(record) = lock(&self.tracker).observe(backend, cache_key) else { return };
        let (context, writes) = (context.clone(), self.shared.writes.clone());
        writes.spawn(async move { self.write(&context, record).await });
    }

    async fn write(self, context: &ActorContext, record: Record) {
        let mut next = Some(record);
        while let Some(record) = next.take() {
            let outcome = match put(context, self.scope.storage_key(), encode(record)).await {
                Ok(()) => Written::Durable,
                Err(error) => {
                    debug!(%error, egress = self.scope.egress, "the backend that answered could not be noted");
                    if error == KvError::OutcomeUnknown { Written::Unknown } else { Written::Failed }
                }
            };
            let (switch, again) = lock(&self.tracker).written(outcome);
            if let Some(switch) = switch {
                self.tell(&switch);
            }
            next = again;
        }
    }

    fn tell(&self, Switch { old, new }: &Switch) {
        info!(
            { fields::ACTOR_ID } = &*self.scope.actor.id,
            egress = self.scope.egress,
            job = self.scope.job,
            old = old.as_ref().map(|record| &*record.backend),
            new = new.backend,
            cache_key = new.cache_key,
            "another backend answers"
        );
        // The first answer of all is no switch.
        if old.is_some() {
            metrics::runner().egress(&self.scope.egress).switches.inc();
        }
        self.shared.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl Scope {
    /// Neither the name of an egress nor the id of a job has a NUL.
    fn storage_key(&self) -> Bytes {
        let job = self.job.as_ref().map_or_else(Vec::new, |job| [b"\0", job.as_bytes()].concat());
        [RESERVED, b"b/", self.egress.as_bytes(), &job].concat().into()
    }
}

/// What storage says; nothing when it did not answer.
async fn read(context: &ActorContext, scope: &Scope) -> Option<Option<Record>> {
    let value = match tokio::time::timeout(READ, get(context, scope.storage_key())).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            debug!(%error, egress = scope.egress, "the last backend could not be read");
            return None;
        }
        Err(_) => return None,
    };
    let Some(value) = value else { return Some(None) };
    match serde_json::from_slice::<Stored>(&value) {
        Ok(stored) if stored.v == 1 => Some(Some(Record { backend: stored.backend, cache_key: stored.cache_key })),
        Ok(Stored { v, .. }) => {
            warn!(version = v, egress = scope.egress, "the last backend was noted by a newer version; it is left out");
            None
        }
        Err(error) => {
            warn!({ fields::ERROR } = %error, egress = scope.egress, "what was noted of the last backend is damaged");
            None
        }
    }
}

async fn get(context: &ActorContext, key: Bytes) -> Result<Option<Bytes>, KvError> {
    match context.kv_with_notes(KvRequest::Get { keys: vec![key] }).await? {
        KvResponse::Get { values, .. } => Ok(values.into_iter().next()),
        other => Err(KvError::Refused(format!("the gateway answered with something else: {other:?}"))),
    }
}

async fn put(context: &ActorContext, key: Bytes, value: Bytes) -> Result<(), KvError> {
    context.kv_with_notes(KvRequest::Put { keys: vec![key], values: vec![value] }).await.map(|_| ())
}

fn encode(record: Record) -> Bytes {
    let stored = Stored { v: 1, backend: record.backend, cache_key: record.cache_key };
    serde_json::to_vec(&stored).expect("a struct of texts is JSON").into()
}

fn lock(tracker: &Mutex<Tracker>) -> MutexGuard<'_, Tracker> {
    tracker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the first call of a scope waits for its hint, which is worth less than the call.
const READ: Duration = Duration::from_secs(2);
/// Trackers in memory: some 300 bytes each.
const KNOWN_MAX: usize = 10_000;
/// Backends of an egress that are told by name.
const NAMED_MAX: usize = 16;
