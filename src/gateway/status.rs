//! The gateway in numbers.

use std::time::Duration;

/// What is known about a runner only while it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveRunner {
    /// Slots without an actor.
    pub remaining_slots: u32,
    /// When it last answered a ping, in milliseconds since the epoch.
    pub last_ping_ts: i64,
    /// How long it took to answer.
    pub last_rtt: Duration,
}

/// How the gateway does, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayHealth {
    /// Runners with a connection.
    pub connected_runners: usize,
    /// Actors that are awake or on their way.
    pub awake_actors: usize,
    /// Of the actors, those that wait for a runner with a free slot.
    pub waiting_actors: usize,
    /// Open streams between clients and actors.
    pub streams: usize,
    /// Streams that wait for their actor.
    pub waiting_streams: usize,
    /// Of the open streams, sockets that outlive their actor's process.
    pub lasting_sockets: usize,
    /// What clients said on those and actors have not taken, in bytes.
    pub kept_bytes: usize,
}
