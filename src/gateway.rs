//! The embedded gateway: accepts runners, places actors on them, serves clients.
//!
//! It is built like the runner, on the other end of the same wire: pure cores decide, one driver loop owns them and
//! performs what they decided, and what must be durable is on disk before anyone hears of it.

#[cfg(feature = "gateway")]
mod handle;
mod id;

pub use id::{Id, ParseIdError};

#[cfg(feature = "gateway")]
pub use handle::{
    ActorIdentity, CreateActor, GatewayError, GatewayHandle, OpenStream, StreamHead, StreamLink, StreamUp, TunnelEvent,
};
