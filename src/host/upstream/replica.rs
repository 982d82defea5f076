//! One server of a pool, and whether it is well.
//!
//! It is looked at every few seconds, and at once when a request to it went wrong. One failure says little: a server
//! that refuses connections twice in a row is down, one that is slow or says that it is not well four times.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Uri;
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::UpstreamUrl;
use crate::host::http::{Address, Remote, Site, Unwell, path_and_query};
use crate::host::tenant::Place;
use crate::telemetry::fields;

/// One server of a pool.
pub(super) struct Replica {
    url: UpstreamUrl,
    site: Site,
    health: Option<Uri>,
    /// Since it is up; or why it is not.
    state: Mutex<Result<Arc<Era>, String>>,
}

/// The time from a replica's coming up to its going down.
pub(super) struct Era {
    url: String,
    gone: CancellationToken,
    why: OnceLock<String>,
}

impl Replica {
    /// A server that is looked at for as long as anybody holds it.
    pub(super) fn watched(
        url: UpstreamUrl,
        health: Option<&str>,
        tls: Option<TlsConnector>,
    ) -> Result<Arc<Self>, String> {
        let address = match &url {
            UpstreamUrl::Http(url) => Address::Remote(Arc::new(Remote::new(url, tls)?)),
            UpstreamUrl::Unix(path) => Address::Unix(path.clone()),
        };
        let health = match health {
            Some(path) => Some(path_and_query(path).ok_or_else(|| format!("{path} is no path for a health check"))?),
            None => None,
        };
        let site = Site::of_many(address);
        let state = Mutex::new(Err("was not looked at yet".to_owned()));
        let doubted = site.doubted();
        let replica = Arc::new(Replica { url, site, health, state });
        tokio::spawn(watch(Arc::downgrade(&replica), doubted));
        Ok(replica)
    }

    pub(super) fn url(&self) -> &UpstreamUrl {
        &self.url
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// Since when it is up; or why it is not.
    pub(super) fn era(&self) -> Result<Arc<Era>, String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at it now; a replica that is well is up.
    pub(super) async fn look(&self) -> Result<Arc<Era>, String> {
        match self.site.look(self.health.as_ref()).await {
            Ok(()) => Ok(self.up()),
            Err(unwell) => Err(unwell.to_string()),
        }
    }

    fn up(&self) -> Arc<Era> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(era) = &*state {
            return era.clone();
        }
        info!({ fields::ADDRESS } = %self.url, "an upstream is up");
        let era = Era { url: self.url.to_string(), gone: CancellationToken::new(), why: OnceLock::new() };
        let era = Arc::new(era);
        *state = Ok(era.clone());
        era
    }

    fn down(&self, why: String) {
        let was = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, Err(why.clone()))
        };
        if let Ok(era) = was {
            warn!({ fields::ADDRESS } = %self.url, { fields::REASON } = why, "an upstream is down");
            era.end(why);
        }
    }
}

impl Era {
    /// Cancelled when the replica is down.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    fn end(&self, why: String) {
        // It ends once.
        let _ = self.why.set(why);
        self.gone.cancel();
    }
}

impl Place for Era {
    fn gone(&self) -> BoxFuture<'_, String> {
        async move {
            self.gone.cancelled().await;
            let why = self.why.get().map_or("", String::as_str);
            format!("the upstream {} is down: it {why}", self.url)
        }
        .boxed()
    }
}

/// Looks at a replica again and again, until nobody holds it.
async fn watch(replica: Weak<Replica>, doubted: Arc<Notify>) {
    let mut failures = 0;
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = doubted.notified() => {}
        }
        let Some(replica) = replica.upgrade() else { return };
        pause = match replica.site.look(replica.health.as_ref()).await {
            Ok(()) => {
                failures = 0;
                replica.up();
                EVERY.mul_f64(rand::rng().random_range(0.8..1.2))
            }
            Err(unwell) => {
                failures += match unwell {
                    Unwell::Unreachable(_) => DOWN_AT / 2,
                    Unwell::Slow | Unwell::Broken(_) | Unwell::Status(_) => 1,
                };
                match unwell {
                    _ if failures >= DOWN_AT => {
                        failures = 0;
                        replica.down(unwell.to_string());
                        EVERY.mul_f64(rand::rng().random_range(0.2..0.4))
                    }
                    Unwell::Unreachable(_) => AGAIN,
                    Unwell::Slow | Unwell::Broken(_) | Unwell::Status(_) => UNWELL_AGAIN,
                }
            }
        };
    }
}

/// How often a replica that is up is looked at, give or take a fifth so that many runners do not do it at once.
const EVERY: Duration = Duration::from_secs(5);

/// How soon after a refused connection it is tried again: requests wait for the verdict.
const AGAIN: Duration = Duration::from_millis(50);

/// How soon after a failed check there is another one: what is only slow must not lose all its actors at once.
const UNWELL_AGAIN: Duration = Duration::from_secs(1);

/// From here on a replica is down: a refused connection counts two, any other failure one.
const DOWN_AT: u32 = 4;
