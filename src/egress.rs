//! Calls of actors to servers outside: the credential is ours, and the backend that answered is remembered.
//!
//! An actor calls `/v1/egress/NAME/…` of its API, and the call goes on to the server that the actors file names, with
//! the credential that the actor never sees. Bodies stream in both directions. Where the server says which of its
//! backends answered, the actor's (or its job's) next call asks for the same one; see [`crate::sticky`].
//!
//! Where a call may go is the operator's word alone: not the actor's, not a redirect's, and not a name server's that
//! suddenly points at this machine's own secrets.

mod backends;
mod body;
mod error;
mod head;
mod usage;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{Request, Response};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

pub use body::{EgressBody, Silent};
pub use error::EgressError;
pub use usage::Usage;

use crate::config::{EgressDefinition, SecretFile};
use crate::host::ActorContext;
use crate::socket::{CallError, HttpClient, Reach};
use crate::telemetry::fields;
use backends::{Backends, Scope, Sticky};
use body::Counted;
use usage::{Counters, Place};

/// The servers that actors may call, and which actor may call which.
#[derive(Debug, Default)]
pub struct Egress {
    rules: RwLock<Rules>,
    backends: Backends,
}

#[derive(Debug, Default)]
struct Rules {
    upstreams: BTreeMap<String, Arc<Upstream>>,
    /// The names of egresses by actor name.
    allowed: BTreeMap<String, Vec<String>>,
}

#[derive(Debug)]
struct Upstream {
    definition: EgressDefinition,
    client: HttpClient,
    in_flight: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// Where a call goes, as the actor said it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The name of the egress.
    pub egress: &'a str,
    /// What comes behind the egress's own URL: a path, perhaps with a query; still encoded.
    pub rest: &'a str,
}

impl Egress {
    /// The egresses of an actors file, and the names of those that actors may use, by actor name.
    ///
    /// # Errors
    /// The system's certificates cannot be used.
    pub fn new(
        definitions: Vec<EgressDefinition>,
        allowed: BTreeMap<String, Vec<String>>,
    ) -> Result<Self, rustls::Error> {
        let egress = Egress::default();
        egress.redefine(definitions, allowed)?;
        Ok(egress)
    }

    /// Makes the definitions these, for calls that begin from now on. An egress that is defined as before keeps its
    /// count of calls under way; backends are remembered by name, whatever becomes of the rest.
    ///
    /// # Errors
    /// The system's certificates cannot be used; everything stays as it was then.
    pub fn redefine(
        &self,
        definitions: Vec<EgressDefinition>,
        allowed: BTreeMap<String, Vec<String>>,
    ) -> Result<(), rustls::Error> {
        let mut upstreams = BTreeMap::new();
        for definition in definitions {
            let before = self.rules().upstreams.get(&definition.name).cloned();
            if let Some(same) = before.filter(|before| before.definition == definition) {
                upstreams.insert(definition.name, same);
                continue;
            }
            let reach = if definition.allow_link_local { Reach::Anywhere } else { Reach::NotLinkLocal };
            let upstream = Upstream {
                client: HttpClient::new(definition.url.clone(), reach)?,
                in_flight: Arc::new(Semaphore::new(definition.max_in_flight as usize)),
                counters: Arc::new(Counters::new(&definition.name)),
                definition,
            };
            upstreams.insert(upstream.definition.name.clone(), Arc::new(upstream));
        }
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules { upstreams, allowed };
        Ok(())
    }

    /// Makes a call in the name of an actor, and answers when the head of the answer is there. Dropping the future or
    /// the body ends the call.
    ///
    /// # Errors
    /// [`EgressError`]. An error status of the server is an answer.
    pub async fn call<B>(
        &self,
        context: &ActorContext,
        target: Target<'_>,
        request: Request<B>,
    ) -> Result<Response<EgressBody>, EgressError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let upstream = self.upstream(&context.start().name, target.egress)?;
        let permit = upstream.in_flight.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            upstream.counters.busy();
            EgressError::Busy { max: upstream.definition.max_in_flight }
        })?;
        let place = Place::new(permit, &upstream.counters);
        let result = upstream.call(context, target, request, &self.backends).await;
        upstream.counters.called(result.as_ref().ok().map(|answer| answer.status().as_u16()));
        let answer = result.inspect_err(|error| {
            debug!(%error, egress = target.egress, { fields::ACTOR_ID } = &*context.key().id, "egress call failed");
        })?;
        let (counters, silence) = (upstream.counters.clone(), upstream.definition.timeout);
        Ok(answer.map(|body| EgressBody::new(body, silence, counters, place)))
    }

    /// What was called so far, by egress name. An egress that was defined anew begins anew.
    pub fn usage(&self) -> Vec<(String, Usage)> {
        let usage = |(name, upstream): (&String, &Arc<Upstream>)| (name.clone(), upstream.counters.usage());
        self.rules().upstreams.iter().map(usage).collect()
    }

    /// How many actors and jobs each backend answered last, by egress name and backend, as far as it is durable. At
    /// most 16 backends of an egress are named.
    #[must_use]
    pub fn sticky_backends(&self) -> BTreeMap<String, BTreeMap<String, usize>> {
        self.backends.census()
    }

    /// Changes when [`Egress::sticky_backends`] does.
    #[must_use]
    pub fn watch_backends(&self) -> watch::Receiver<u64> {
        self.backends.watch()
    }

    fn upstream(&self, actor: &str, egress: &str) -> Result<Arc<Upstream>, EgressError> {
        let rules = self.rules();
        let allowed = rules.allowed.get(actor).is_some_and(|names| names.iter().any(|name| name == egress));
        let upstream = rules.upstreams.get(egress).filter(|_| allowed).cloned();
        upstream.ok_or_else(|| EgressError::NotAllowed { actor: actor.to_owned(), egress: egress.to_owned() })
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    async fn call<B>(
        &self,
        context: &ActorContext,
        target: Target<'_>,
        request: Request<B>,
        backends: &Backends,
    ) -> Result<Response<crate::socket::AnswerBody>, EgressError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let definition = &self.definition;
        let (head, body) = request.into_parts();
        let max = definition.max_body;
        if body.size_hint().lower() > max {
            return Err(EgressError::BodyTooLarge { max });
        }
        let uri = head::uri(&definition.url.path_prefix, target.rest)?;
        let job = head::job(&head.headers)?;
        let mut headers = head::for_server(&head.headers);
        let mut span = head::span(&mut headers);
        span.set("http.request.method", head.method.as_str());
        span.set("greenroom.egress", &*definition.name);
        span.set("greenroom.actor.id", &*context.key().id);
        if let Some(file) = &definition.credential {
            headers.insert(hyper::header::AUTHORIZATION, head::bearer(&credential(&definition.name, file).await?)?);
        }
        let sticky = if definition.resolved_backend_header.is_some() {
            let scope = Scope { actor: context.key().clone(), egress: definition.name.clone(), job };
            Some(backends.of(context, scope).await)
        } else {
            None
        };
        if let (Some(name), Some(hint)) = (&definition.preferred_backend_header, sticky.as_ref().and_then(Sticky::hint))
        {
            headers.insert(name, hint);
        }
        let too_large = Arc::new(AtomicBool::new(false));
        let mut request = Request::new(Counted::new(body, max, self.counters.clone(), too_large.clone()));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (head.method, uri, headers);
        let called = tokio::time::timeout(definition.timeout, self.client.call(request)).await;
        match &called {
            Ok(Ok(answer)) => span.status(answer.status().as_u16()),
            Ok(Err(error)) => span.failed(&error.to_string()),
            Err(_) => span.failed("no answer in time"),
        }
        let mut answer = match called {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if too_large.load(Ordering::Relaxed) => return Err(EgressError::BodyTooLarge { max }),
            Ok(Err(CallError::ConnectTimedOut { .. })) => return Err(EgressError::Timeout { within: CONNECT }),
            Ok(Err(error)) => return Err(EgressError::Unreachable(error)),
            Err(_) => return Err(EgressError::Timeout { within: definition.timeout }),
        };
        if let (Some(sticky), Some(name)) = (sticky, &definition.resolved_backend_header) {
            let value = |name| head::short_text(answer.headers(), name);
            if let Some(backend) = value(name) {
                sticky.observe(context, backend, definition.cache_key_header.as_ref().and_then(value));
            }
        }
        let status = answer.status();
        // Not modified is no redirect, although its number is among theirs.
        if status.is_redirection() && status != hyper::StatusCode::NOT_MODIFIED {
            return Err(EgressError::Redirect { status });
        }
        if status.is_informational() {
            return Err(EgressError::Upgrade);
        }
        *answer.headers_mut() = head::for_actor(answer.headers());
        *answer.version_mut() = hyper::Version::HTTP_11;
        Ok(answer)
    }
}

/// The credential as it is in its file now.
async fn credential(egress: &str, file: &SecretFile) -> Result<secrecy::SecretString, EgressError> {
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || file.read()).await;
    read.unwrap_or_else(|error| Err(error.to_string())).map_err(|error| {
        warn!({ fields::ERROR } = error, egress, "the credential of an egress cannot be read");
        EgressError::Credential { egress: egress.to_owned() }
    })
}

/// What [`CallError::ConnectTimedOut`] waited for.
const CONNECT: Duration = Duration::from_secs(10);
