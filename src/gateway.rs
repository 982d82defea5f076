//! The embedded gateway: accepts runners, places actors on them, serves clients.
//!
//! It is built like the runner, on the other end of the same wire: pure cores decide, one driver loop owns them and
//! performs what they decided, and what must be durable is on disk before anyone hears of it.

mod actor;
pub mod core;
mod error;
mod id;
mod status;
mod stream;

#[cfg(feature = "gateway")]
pub mod callers;
#[cfg(feature = "gateway")]
mod connection;
#[cfg(feature = "gateway")]
mod driver;
#[cfg(all(test, feature = "gateway"))]
mod fake;
#[cfg(feature = "gateway")]
mod handle;
#[cfg(feature = "gateway")]
pub mod ingress;
#[cfg(feature = "gateway")]
pub mod listener;
#[cfg(feature = "gateway")]
pub mod public_api;
#[cfg(feature = "gateway")]
mod refusal;
#[cfg(feature = "gateway")]
mod running;
#[cfg(feature = "gateway")]
mod stream_events;

pub use actor::CreateActor;
pub use error::GatewayError;
#[cfg(feature = "gateway")]
pub use handle::{ActorIdentity, GatewayHandle, OpenStream, StreamLink};
pub use id::{Id, ParseIdError};
#[cfg(feature = "gateway")]
pub use refusal::Refusal;
#[cfg(feature = "gateway")]
pub use running::{GatewayFailure, GatewayOptions, RunningGateway, run};
pub use status::{GatewayHealth, LiveRunner};
pub use stream::{StreamHead, StreamUp, TunnelEvent};
#[cfg(feature = "gateway")]
pub use stream_events::{StreamEventSender, StreamEvents, stream_events};
