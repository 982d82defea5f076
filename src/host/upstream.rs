//! Actors on servers that somebody else runs: each replica of a pool serves many actors.
//!
//! An actor is given a replica when it starts and stays on it for its life; which one is decided by its id among those
//! that are well, so that it usually comes back to where it was. A replica that is found to be down ends the lives it
//! served, and their next ones start elsewhere.

mod replica;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::child_process::{START_TIMEOUT, STOP_GRACE, WebSocketMode};
use super::events::{CONCURRENCY, HANDLER_TIMEOUT};
use super::tenant::{NoEntry, Tenant};
use crate::config::UpstreamUrl;
use crate::host::{ActorContext, ActorHost, Doors, EventSettings, HostedActor, StartActor, StartError};
use replica::{Era, Replica};

/// The servers of the actors of one name. `Settings::new` has the defaults of the actors file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they are; at least one.
    pub replicas: Vec<UpstreamUrl>,
    /// The path of a health check; without one, a server that accepts connections is well.
    pub health: Option<String>,
    /// What becomes of client WebSockets.
    pub websocket: WebSocketMode,
    /// How many events an actor is told at once.
    pub concurrency: usize,
    /// How long a server may take to answer an event.
    pub handler_timeout: Duration,
    /// Asks for sleep after this long without work; nothing for never.
    pub sleep_after: Option<Duration>,
    /// How long the start of an actor may take.
    pub start_timeout: Duration,
    /// How long its stop may take.
    pub stop_grace: Duration,
}

/// The host of actors that live on servers outside.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    doors: Doors,
    replicas: Vec<Arc<Replica>>,
}

impl Settings {
    /// The defaults, for these servers.
    #[must_use]
    pub fn new(replicas: Vec<UpstreamUrl>) -> Self {
        Settings {
            replicas,
            health: None,
            websocket: WebSocketMode::default(),
            concurrency: CONCURRENCY,
            handler_timeout: HANDLER_TIMEOUT,
            sleep_after: None,
            start_timeout: START_TIMEOUT,
            stop_grace: STOP_GRACE,
        }
    }
}

impl Upstream {
    /// A host on these servers, which are looked after from now on. `tls` is for those whose URL begins with `https`.
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Which server cannot be used, and why.
    pub fn new(settings: Settings, doors: Doors, tls: Option<&TlsConnector>) -> Result<Self, String> {
        let replica = |url: &UpstreamUrl| Replica::watched(url.clone(), settings.health.as_deref(), tls.cloned());
        let replicas = settings.replicas.iter().map(replica).collect::<Result<_, _>>()?;
        Ok(Upstream { shared: Arc::new(Shared { settings, doors, replicas }) })
    }
}

impl ActorHost for Upstream {
    fn start(
        &self,
        start: Arc<StartActor>,
        context: ActorContext,
    ) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>> {
        let shared = self.shared.clone();
        async move { shared.start(&start, &context).await }.boxed()
    }

    fn start_timeout(&self) -> Duration {
        self.shared.settings.start_timeout
    }

    fn stop_grace(&self) -> Duration {
        self.shared.settings.stop_grace
    }

    fn events(&self) -> EventSettings {
        let settings = &self.shared.settings;
        EventSettings {
            sockets: settings.websocket == WebSocketMode::Events,
            alarms: true,
            sleep_after: settings.sleep_after,
            concurrency: settings.concurrency,
            handler_timeout: settings.handler_timeout,
        }
    }
}

impl Shared {
    /// Starts an actor on the replica that is its own among those that take it.
    async fn start(&self, start: &StartActor, context: &ActorContext) -> Result<Arc<dyn HostedActor>, StartError> {
        let deadline = Instant::now() + self.settings.start_timeout;
        let ranked = ranked(&self.replicas, &start.key.id);
        let (up, down): (Vec<_>, Vec<_>) = ranked.into_iter().partition(|replica| replica.era().is_ok());
        let mut reasons = Vec::new();
        for replica in up {
            match self.enter(replica, replica.era(), start, context, deadline).await? {
                Ok(actor) => return Ok(actor),
                Err(why) => reasons.push((replica, why)),
            }
        }
        // Those that were down may have come back since they were last looked at.
        let looked = join_all(down.iter().map(|replica| replica.look())).await;
        for (replica, era) in down.into_iter().zip(looked) {
            match self.enter(replica, era, start, context, deadline).await? {
                Ok(actor) => return Ok(actor),
                Err(why) => reasons.push((replica, why)),
            }
        }
        let reasons: Vec<_> = reasons.iter().map(|(replica, why)| format!("{} {why}", replica.url())).collect();
        Err(StartError(format!("no upstream of {} takes the actor: {}", start.name, reasons.join("; "))))
    }

    /// Starts an actor on this replica. The inner error says why another one should be tried.
    async fn enter(
        &self,
        replica: &Arc<Replica>,
        era: Result<Arc<Era>, String>,
        start: &StartActor,
        context: &ActorContext,
        deadline: Instant,
    ) -> Result<Result<Arc<dyn HostedActor>, String>, StartError> {
        let era = match era {
            Ok(era) => era,
            Err(why) => return Ok(Err(why)),
        };
        let gone = era.gone().clone();
        match Tenant::enter(replica.site(), start, context.clone(), &self.doors, (era, gone), deadline).await {
            Ok(tenant) => Ok(Ok(tenant)),
            Err(NoEntry::Gone(_)) => Ok(Err("went down while the actor started".to_owned())),
            Err(NoEntry::Away(why)) => Ok(Err(why)),
            Err(NoEntry::Refused(why)) => Err(StartError(format!("the upstream {} {why}", replica.url()))),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The replicas, the actor's favourite first. When one goes, only the actors that had it as theirs move.
fn ranked<'a>(replicas: &'a [Arc<Replica>], actor_id: &str) -> Vec<&'a Arc<Replica>> {
    let mut ranked: Vec<_> = replicas.iter().collect();
    ranked.sort_by_cached_key(|replica| std::cmp::Reverse(weight(&replica.url().to_string(), actor_id)));
    ranked
}

/// How much an actor likes a replica.
fn weight(url: &str, actor_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (url, actor_id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_spread_over_the_replicas() {
        let urls = ["http://a:1", "http://b:1", "http://c:1"];
        let mut counts = [0; 3];
        for actor in 0..3000 {
            let id = actor.to_string();
            let best = (0..3).max_by_key(|index| weight(urls[*index], &id)).unwrap();
            counts[best] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
