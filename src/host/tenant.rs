//! One actor life on an app that serves many.
//!
//! The app is told of the life's start and stop, and every request and event says for which actor it is, and with
//! which token the app may call the API in that actor's name. What the app itself is, a process of ours or a server
//! that somebody else runs, is its [`Place`]'s business.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::doors::Token;
use super::http::{App, AppError, Identity, Site, hook_answer, hook_details};
use crate::actor::StopReason;
use crate::host::{
    ActorContext, Delivery, Doors, EventAnswer, EventError, HostedActor, Request, Responder, StartActor, WebSocket,
    WebSocketRequest,
};

/// What a life has of the app it lives on.
pub(super) trait Place: Send + Sync + 'static {
    /// Resolves when the app is no more, with what to say of it.
    fn gone(&self) -> BoxFuture<'_, String>;

    /// The life is over and has left; resolves when what goes with it is gone too.
    fn left(&self, reason: Option<StopReason>) -> BoxFuture<'_, ()> {
        let _ = reason;
        Box::pin(std::future::ready(()))
    }

    /// Nothing is to be waited for any more.
    fn kill(&self) {}
}

/// One actor life on an app of many.
pub(super) struct Tenant {
    app: Arc<App>,
    place: Arc<dyn Place>,
    over: CancellationToken,
    reason: OnceLock<StopReason>,
    /// The app was told of the start, and not yet of the end.
    owed: AtomicBool,
    token: Mutex<Option<Token>>,
}

/// Why a life did not begin.
#[derive(Debug)]
pub(super) enum NoEntry {
    /// The app is no more; a whole sentence.
    Gone(String),
    /// The app is not there, or wants no more actors; another one may.
    Away(String),
    /// The app has refused this actor.
    Refused(String),
}

impl Tenant {
    /// Tells the app of a start, and resolves when it has taken it.
    pub(super) async fn enter(
        site: &Site,
        start: &StartActor,
        context: ActorContext,
        doors: &Doors,
        (place, gone): (Arc<dyn Place>, CancellationToken),
        deadline: Instant,
    ) -> Result<Arc<Self>, NoEntry> {
        let token = Token::issue(doors.tokens.clone(), context);
        let identity = Identity::new(start).with_door(token.secret(), doors.tcp);
        let tenant = Tenant {
            app: Arc::new(site.app(start, identity, gone)),
            place,
            over: CancellationToken::new(),
            reason: OnceLock::new(),
            owed: AtomicBool::new(true),
            token: Mutex::new(Some(token)),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let answered = {
            let details = hook_details(start.reason.as_str(), left);
            let told = timeout(left, tenant.app.event("start", &details));
            tokio::select! {
                biased;
                why = tenant.place.gone() => Err(NoEntry::Gone(why)),
                answer = told => tenant.entered(answer.ok(), left).await,
            }
        };
        match answered {
            Ok(()) => Ok(Arc::new(tenant)),
            Err(no_entry) => {
                if let NoEntry::Gone(_) | NoEntry::Away(_) = no_entry {
                    tenant.owed.store(false, Ordering::Release);
                }
                Err(no_entry)
            }
        }
    }

    /// What the answer to the start event means; `None` is no answer in time.
    async fn entered(
        &self,
        answer: Option<Result<(StatusCode, bytes::Bytes), AppError>>,
        left: Duration,
    ) -> Result<(), NoEntry> {
        match answer {
            Some(Ok((status, answer))) => {
                hook_answer("start", status, &answer).map_err(|text| match status {
                    // This one has no room, or is going away.
                    StatusCode::SERVICE_UNAVAILABLE => NoEntry::Away(text),
                    _ => NoEntry::Refused(text),
                })
            }
            Some(Err(error @ AppError::Unreachable(_))) => {
                self.app.is_gone().await;
                Err(NoEntry::Away(error.to_string()))
            }
            Some(Err(AppError::Malformed(error))) => Err(NoEntry::Refused(format!("does not speak HTTP/1.1: {error}"))),
            Some(Err(error @ (AppError::Silent | AppError::ClientGone | AppError::Busy))) => {
                // A server may close on what it does not know.
                if self.app.is_gone().await { Err(NoEntry::Away(error.to_string())) } else { Ok(()) }
            }
            None => Err(NoEntry::Refused(format!(
                "accepts connections and did not answer the start event within {left:?} (start_timeout)"
            ))),
        }
    }
}

impl HostedActor for Tenant {
    fn request(self: Arc<Self>, request: Request, responder: Responder) -> BoxFuture<'static, ()> {
        async move { self.app.serve(request, responder).await }.boxed()
    }

    fn websocket(self: Arc<Self>, request: WebSocketRequest, socket: WebSocket) -> BoxFuture<'static, ()> {
        async move { self.app.proxy_websocket(request, socket).await }.boxed()
    }

    fn event(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<EventAnswer, EventError>> {
        async move { self.app.tell(delivery).await }.boxed()
    }

    fn ended(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move {
            let end = tokio::select! {
                biased;
                () = self.over.cancelled() => Ok(()),
                why = self.place.gone() => Err(why),
            };
            if end.is_ok() {
                self.say_the_last_word();
                self.place.left(self.reason.get().copied()).await;
            } else {
                self.owed.store(false, Ordering::Release);
            }
            drop(self.token.lock().unwrap_or_else(PoisonError::into_inner).take());
            end
        }
        .boxed()
    }

    fn stop(self: Arc<Self>, reason: StopReason, grace: Duration) -> BoxFuture<'static, ()> {
        async move {
            // Somebody who asks twice has still asked for the first reason.
            let _ = self.reason.set(reason);
            self.owed.store(false, Ordering::Release);
            let details = hook_details(reason.as_str(), grace);
            match timeout(grace / 2, self.app.event("stop", &details)).await {
                Ok(Ok((status, answer))) => {
                    if let Err(text) = hook_answer("stop", status, &answer) {
                        debug!(text, "an app refused its stop event");
                    }
                }
                Ok(Err(error)) => debug!(%error, "an app did not answer its stop event"),
                Err(_) => debug!("an app did not answer its stop event in time"),
            }
            self.over.cancel();
        }
        .boxed()
    }

    fn kill(&self) {
        self.over.cancel();
        self.place.kill();
    }
}

impl Tenant {
    /// An app that knows of the life is told that it is over, if it still listens.
    fn say_the_last_word(&self) {
        if !self.owed.swap(false, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let reason = self.reason.get().copied().unwrap_or(StopReason::Stop);
        let app = self.app.clone();
        runtime.spawn(async move {
            // Nobody waits for the answer.
            let _ = timeout(LAST_WORD, app.event("stop", &hook_details(reason.as_str(), Duration::ZERO))).await;
        });
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.say_the_last_word();
    }
}

/// How long an app may take to hear of the end of a life that was cut off.
const LAST_WORD: Duration = Duration::from_secs(5);
