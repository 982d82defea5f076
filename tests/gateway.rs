//! The embedded gateway: its decisions by hand, and its sockets with a client that speaks raw protocol.

#[cfg(feature = "gateway")]
#[path = "gateway/raw_runner.rs"]
mod raw_runner;
#[cfg(feature = "gateway")]
#[path = "gateway/sockets.rs"]
mod sockets;
