//! Why the gateway did not do what was asked.

use std::sync::Arc;

use crate::store::ActorError;

/// Why the gateway did not do what was asked. `group.code` and status as in the Rivet engine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GatewayError {
    /// `actor.not_found`.
    #[error("no such actor")]
    ActorNotFound,
    /// `actor.duplicate_key`.
    #[error("an actor with this name and key exists already")]
    DuplicateKey {
        /// The one that has it.
        existing_actor_id: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// `actor.destroyed_during_creation` and friends: it was destroyed while somebody waited for it.
    #[error("the actor was destroyed")]
    ActorDestroyed,
    /// `namespace.not_found`.
    #[error("no such namespace")]
    NamespaceNotFound,
    /// `namespace.name_not_unique`.
    #[error("a namespace of this name exists already")]
    NamespaceNameNotUnique,
    /// `actor.no_runner_config_configured`.
    #[error("no runner of pool `{pool}` has ever connected to this namespace")]
    NoRunnerConfig {
        /// The pool.
        pool: Arc<str>,
    },
    /// `guard.actor_ready_timeout`: the actor did not become ready in time; says what it waited for.
    #[error("the actor was not ready in time")]
    ActorReadyTimeout {
        /// What is known about why.
        error: Option<ActorError>,
    },
    /// `guard.actor_stopped_while_waiting`: the actor stopped before it answered. Worth another attempt.
    #[error("the actor stopped before it answered")]
    ActorStopped,
    /// `guard.tunnel_request_aborted`: the runner gave up. Worth another attempt.
    #[error("the runner aborted the request")]
    RequestAborted,
    /// `guard.tunnel_response_closed`: the runner's connection is gone. Worth another attempt only if the request had
    /// not reached the runner or may be repeated.
    #[error("the connection to the runner was lost before it answered")]
    TunnelClosed,
    /// `guard.gateway_response_start_timeout`.
    #[error("the actor did not begin to answer in time")]
    ResponseStartTimeout,
    /// `guard.invalid_response_body`: the actor answered, but not in a way that can be passed on.
    #[error("{0}")]
    InvalidResponse(&'static str),
    /// The request was opened with more of its body to follow, but the runner takes bodies whole only. Nothing has
    /// reached it: collect the body and open again with it.
    #[error("the runner takes request bodies whole")]
    WholeBodyNeeded,
    /// `guard.service_unavailable`: too much is waiting, or the gateway stops.
    #[error("{0}")]
    Unavailable(&'static str),
    /// `core.internal_error`.
    #[error("{0}")]
    Internal(String),
}
