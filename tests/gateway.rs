//! The embedded gateway: its decisions by hand, and its sockets with a client that speaks raw protocol.

#[path = "gateway/bodies.rs"]
mod bodies;
#[cfg(feature = "gateway")]
#[path = "gateway/clients.rs"]
mod clients;
#[path = "gateway/delivery.rs"]
mod delivery;
#[path = "gateway/hibernation.rs"]
mod hibernation;
#[path = "gateway/lifecycle.rs"]
mod lifecycle;
#[cfg(feature = "gateway")]
#[path = "gateway/limits.rs"]
mod limits;
#[path = "gateway/random.rs"]
mod random;
#[cfg(feature = "gateway")]
#[path = "gateway/raw_runner.rs"]
mod raw_runner;
#[cfg(feature = "gateway")]
#[path = "gateway/sockets.rs"]
mod sockets;
#[path = "gateway/storage.rs"]
mod storage;
#[path = "gateway/streams.rs"]
mod streams;
#[path = "gateway/world.rs"]
mod world;
