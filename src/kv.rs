//! Why a storage request has no answer.

/// A storage request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The gateway refused it, for example for its size.
    #[error("{0}")]
    Refused(String),
    /// This life of the actor is over; another may be writing already.
    #[error("this generation of the actor has ended")]
    Stale,
    /// The gateway is away or does not answer, and nothing was changed.
    #[error("the gateway did not answer in time; nothing was changed")]
    Unavailable,
    /// The request was sent and no answer came: a write may or may not have happened.
    #[error("no answer came from the gateway in time; the write may or may not have happened")]
    OutcomeUnknown,
    /// It writes to keys that the daemon keeps its own notes under; nothing was changed.
    #[error("keys that begin with \\0greenroom/ are the daemon's own; nothing was changed")]
    Reserved,
    /// Too many requests of this actor wait for their answers.
    #[error("too many storage requests of this actor are in flight; wait for some to finish")]
    TooMany,
}
