//! What a running actor can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use greenroom_protocol::{KvListQuery, KvRequest, KvResponse, limits};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use crate::actor::ActorKey;
use crate::host::call::send;
use crate::host::events::activity;
use crate::host::events::{Alarms, AwakeReason, KeepAwake, LeaseError, Pull, Work, Working};
use crate::host::visible::{self, Plan};
use crate::host::{Call, CallSender, EventSettings, Events, KvError, Sockets, StartActor};

/// An actor's own door to the runner: storage, alarm, sleep, destroy. Cheap to clone; after the life it belongs to has
/// ended, every call fails and changes nothing.
#[derive(Clone, Debug)]
pub struct ActorContext {
    start: Arc<StartActor>,
    calls: CallSender,
    leaving: Arc<AtomicBool>,
    events: Events,
}

/// The runner has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runner has stopped")]
pub struct Gone;

impl ActorContext {
    /// The context of one life that takes no events.
    #[must_use]
    pub fn new(start: Arc<StartActor>, calls: CallSender) -> Self {
        Self::with_events(start, calls, Events::new(EventSettings::default()))
    }

    pub(super) fn with_events(start: Arc<StartActor>, calls: CallSender, events: Events) -> Self {
        ActorContext { start, calls, leaving: Arc::default(), events }
    }

    /// Identity and generation.
    #[must_use]
    pub fn key(&self) -> &ActorKey {
        &self.start.key
    }

    /// What this life was started with.
    #[must_use]
    pub fn start(&self) -> &StartActor {
        &self.start
    }

    pub(in crate::host) fn shared_start(&self) -> &Arc<StartActor> {
        &self.start
    }

    /// The way into the runner, for what has no method here.
    #[must_use]
    pub fn calls(&self) -> &CallSender {
        &self.calls
    }

    /// The event side of this life.
    pub(in crate::host) fn events(&self) -> &Events {
        &self.events
    }

    /// The sockets of its clients, when it takes them as events.
    #[must_use]
    pub fn sockets(&self) -> &Sockets {
        self.events.sockets()
    }

    /// Its alarms: named, many, and told as events. Needs a host that serves them.
    #[must_use]
    pub fn alarms(&self) -> Alarms<'_> {
        Alarms::new(self)
    }

    /// Its events, when it asks for them itself.
    #[must_use]
    pub fn pull(&self) -> Option<&Arc<Pull>> {
        self.events.pull()
    }

    /// Keeps the actor from being put to sleep for having nothing to do, until the guard is dropped or `lasts` is over.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn keep_awake(&self, name: &str, lasts: Duration) -> Result<KeepAwake, LeaseError> {
        KeepAwake::new(self.events.activity().clone(), name, lasts)
    }

    /// [`ActorContext::keep_awake`] without a guard: [`ActorContext::let_sleep`] gives it back.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn lease_awake(&self, name: &str, lasts: Duration) -> Result<(), LeaseError> {
        self.events.activity().lease(name, lasts, Instant::now())
    }

    /// Gives a lease back; it need not be held.
    pub fn let_sleep(&self, name: &str) {
        self.events.activity().release(name, Instant::now());
    }

    /// Counts work that keeps the actor awake until the guard is dropped.
    #[must_use]
    pub fn working(&self, work: Work) -> Working {
        self.events.activity().working(work)
    }

    /// Why the actor is awake.
    #[must_use]
    pub fn awake_because(&self) -> Vec<AwakeReason> {
        activity::awake_because(self)
    }

    /// Asks to sleep: the process ends, the state stays, the next request wakes it.
    ///
    /// An actor that takes events is told no more of them, and the wish goes out when those on their way are answered;
    /// this does not wait for it, so that the handler of an event may ask too.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn sleep(&self) -> Result<(), Gone> {
        self.leaving.store(true, Ordering::Release);
        if !self.events.settings().any() {
            return send(&self.calls, Call::Sleep(self.key().clone())).await;
        }
        let (events, calls, key) = (self.events.clone(), self.calls.clone(), self.key().clone());
        self.events.spawn(async move {
            events.quiesce().await;
            // Without a runner there is no sleep to ask for.
            let _ = calls.send(Call::Sleep(key)).await;
            tokio::time::sleep(STOPPED_WITHIN).await;
            warn!("asked to sleep and was not stopped; events are told again");
            events.resume();
        });
        if self.calls.is_closed() { Err(Gone) } else { Ok(()) }
    }

    /// Asks to be destroyed, with all state.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn destroy(&self) -> Result<(), Gone> {
        self.leaving.store(true, Ordering::Release);
        send(&self.calls, Call::Destroy(self.key().clone())).await
    }

    /// Whether the actor has asked to sleep or to be destroyed: then its end is no surprise.
    #[must_use]
    pub fn wants_to_leave(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Asks to be woken at this time, in milliseconds since the epoch; `None` clears the alarm. This is the gateway's one
    /// alarm, which comes without a name and is forgotten when it passes while the actor is awake; it belongs to
    /// [`ActorContext::alarms`] in actors that use those.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn set_alarm(&self, at: Option<i64>) -> Result<(), Gone> {
        send(&self.calls, Call::SetAlarm(self.key().clone(), at)).await
    }

    /// Sends a storage request and waits for its answer.
    ///
    /// Keys that begin with `\0greenroom/` are the daemon's: reads leave them out, writes to them are refused. A drop
    /// and a delete range that would meet them go around them, and so are several requests, not one atomic one.
    ///
    /// # Errors
    /// [`KvError`]; a refusal of the gateway is [`KvError::Refused`].
    pub async fn kv(&self, request: KvRequest) -> Result<KvResponse, KvError> {
        let limit = match &request {
            KvRequest::List { limit, .. } => *limit,
            _ => None,
        };
        match visible::plan(request)? {
            Plan::Ask(request) => self.kv_with_notes(request).await,
            Plan::Answer(response) => Ok(response),
            Plan::Lists([first, second]) => {
                // Sent one behind the other without a pause, so that hardly anything comes between them.
                let (first, second) = tokio::try_join!(self.kv_with_notes(first), self.kv_with_notes(second))?;
                Ok(visible::join(first, second, limit))
            }
            Plan::Deletes(requests) => self.one_by_one(requests).await.map(|()| KvResponse::Delete),
            Plan::Clear(requests) => {
                match self.one_by_one(requests).await {
                    // Refused before anything was changed: the wire has no ranges before version 7.
                    Err(KvError::Refused(_)) => self.delete_one_by_one().await?,
                    done => done?,
                }
                Ok(KvResponse::Drop)
            }
        }
    }

    async fn one_by_one(&self, requests: Vec<KvRequest>) -> Result<(), KvError> {
        for request in requests {
            self.kv_with_notes(request).await?;
        }
        Ok(())
    }

    /// Deletes everything but the daemon's notes, a batch of keys at a time.
    async fn delete_one_by_one(&self) -> Result<(), KvError> {
        for query in visible::around(&KvListQuery::All) {
            loop {
                let list =
                    KvRequest::List { query: query.clone(), reverse: None, limit: Some(limits::KV_KEYS_MAX as u64) };
                let keys = match self.kv_with_notes(list).await? {
                    KvResponse::List { keys, .. } => keys,
                    other => return Err(unexpected(&other)),
                };
                if keys.is_empty() {
                    break;
                }
                self.kv_with_notes(KvRequest::Delete { keys }).await?;
            }
        }
        Ok(())
    }

    /// [`ActorContext::kv`] with the daemon's own notes in sight.
    pub(crate) async fn kv_with_notes(&self, request: KvRequest) -> Result<KvResponse, KvError> {
        let (reply, answer) = oneshot::channel();
        let call = Call::Kv { actor: self.key().clone(), request, reply };
        send(&self.calls, call).await.map_err(|_| KvError::Unavailable)?;
        match answer.await.unwrap_or(Err(KvError::Unavailable))? {
            KvResponse::Error { message } => Err(KvError::Refused(message.to_string())),
            response => Ok(response),
        }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, KvError> {
        match self.kv(KvRequest::Get { keys: vec![key.into()] }).await? {
            KvResponse::Get { values, .. } => Ok(values.into_iter().next()),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes one value; it is durable when this returns.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), KvError> {
        let request = KvRequest::Put { keys: vec![key.into()], values: vec![value.into()] };
        self.kv(request).await.map(|_| ())
    }

    /// Removes one key; it need not exist.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<(), KvError> {
        self.kv(KvRequest::Delete { keys: vec![key.into()] }).await.map(|_| ())
    }

    /// Reads keys and values in key order.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn list(
        &self,
        query: KvListQuery,
        reverse: bool,
        limit: Option<u64>,
    ) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        match self.kv(KvRequest::List { query, reverse: Some(reverse), limit }).await? {
            KvResponse::List { keys, values, .. } => Ok(keys.into_iter().zip(values).collect()),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(response: &KvResponse) -> KvError {
    KvError::Refused(format!("the gateway answered with something else: {response:?}"))
}

/// How long a wish to sleep waits to be granted before the actor goes on.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
