//! The wire between a runner and its gateway: the Rivet runner protocol, versions 4 to 7.
//!
//! A runner dials out and sends [`ToServer`] messages, the gateway answers with [`ToClient`] messages, each one
//! binary WebSocket message, encoded as BARE (draft-devault-bare). Bodies and strings of a decoded message are slices
//! of the received frame: decoding copies nothing and allocates only the lists. In return a slice keeps its whole frame
//! in memory, so what outlives the handling of a message should be copied out of it.
//!
//! Beside the messages this crate holds what both ends must do alike: wrapping message indexes ([`serial`]),
//! resending what was not acknowledged ([`delivery`]), headers that repeat ([`headers`]), the credit that bodies
//! travel on ([`credit`]), limits ([`limits`]) and close reasons ([`close`]).
//! It knows no sockets, no clock and no runtime.

mod bare;
mod codec;
mod kv;
mod to_client;
mod to_server;
mod tunnel;
mod version;

pub mod close;
pub mod credit;
pub mod delivery;
pub mod features;
pub mod headers;
pub mod limits;
pub mod serial;

pub use bare::DecodeError;
pub use bytes::Bytes;
pub use bytestring::ByteString;
pub use codec::EncodeError;
pub use features::Features;
pub use kv::{KvEntryMetadata, KvListQuery, KvRequest, KvResponse, KvViolation};
pub use to_client::{ActorConfig, Command, CommandWrapper, InitMetadata, ToClient};
pub use to_server::{ActorName, Event, EventWrapper, Init, ToServer};
pub use tunnel::{Headers, MessageId, StreamId, ToClientTunnel, ToServerTunnel};
pub use version::{UnknownVersion, Version};

/// A position in the command or event stream of one actor generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The actor.
    pub actor_id: ByteString,
    /// Its generation; version 4 does not carry it in acknowledgements and reads as 0 there.
    pub generation: u32,
    /// The index of the last command or event meant.
    pub index: i64,
}
