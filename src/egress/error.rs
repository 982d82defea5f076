//! Why a call was not made, or has no answer that is passed on.

use std::time::Duration;

use hyper::StatusCode;

use crate::socket::CallError;

/// Why a call has no answer. No text contains the credential.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The actors file does not say that the actor may.
    #[error("the actors file does not let `{actor}` use the egress `{egress}`")]
    NotAllowed {
        /// The actor's name.
        actor: String,
        /// The egress it asked for.
        egress: String,
    },
    /// The path could lead out of where the egress points.
    #[error("the path has a `.` or `..` in it, or is no path")]
    Path,
    /// The job is not named as a job is.
    #[error("`Actor-Job` is not 1 to 128 printable characters")]
    Job,
    /// Too many calls at once.
    #[error("{max} calls of this egress are in flight already (max_in_flight)")]
    Busy {
        /// How many there may be.
        max: u32,
    },
    /// The request body is too long.
    #[error("the body has more than {max} bytes (max_body)")]
    BodyTooLarge {
        /// What it may have.
        max: u64,
    },
    /// There is no credential to send.
    #[error("the credential of the egress `{egress}` cannot be read; the daemon's log says why")]
    Credential {
        /// The egress.
        egress: String,
    },
    /// The server cannot be reached, may not be, or speaks something else than HTTP.
    #[error("{0}")]
    Unreachable(CallError),
    /// The server took too long to accept, or to begin its answer.
    #[error("no answer came within {} s", within.as_secs_f64())]
    Timeout {
        /// How long it had.
        within: Duration,
    },
    /// The server sends the call elsewhere.
    #[error("the server answered {} and named another place, which is not followed", status.as_u16())]
    Redirect {
        /// The status of the answer.
        status: StatusCode,
    },
    /// The server wants to speak something else.
    #[error("the server wants to change the protocol, which is not passed on")]
    Upgrade,
}
