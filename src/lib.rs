//! Greenroom runs stateful actors on machines you control.
//!
//! `socket → codec → session core → effects → hosts`: a runner dials out to a gateway over one binary WebSocket, a pure
//! state machine ([`session`]) decides, and a shell (`runner`) performs what it decided. The embedded gateway is built
//! the same way on the other end of the same wire.

pub mod actor;
pub mod backoff;
pub mod kv;
mod number_map;
pub mod report;
pub mod session;
pub mod sticky;
pub mod stream;

#[cfg(feature = "daemon")]
pub mod admin;
#[cfg(feature = "daemon")]
pub mod api;
#[cfg(feature = "daemon")]
pub mod app;
#[cfg(feature = "daemon")]
mod bearer;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod credit;
#[cfg(feature = "daemon")]
pub mod egress;
#[cfg(feature = "daemon")]
pub mod host;
#[cfg(feature = "daemon")]
mod link_local;
#[cfg(feature = "daemon")]
mod local_socket;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(feature = "daemon")]
mod queue;
#[cfg(feature = "daemon")]
pub mod reporter;
#[cfg(feature = "daemon")]
pub mod runner;
#[cfg(feature = "daemon")]
pub mod socket;
#[cfg(feature = "daemon")]
pub mod telemetry;

pub mod gateway;
pub mod store;

pub use greenroom_protocol as protocol;
