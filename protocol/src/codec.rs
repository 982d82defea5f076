//! Messages to bytes and back.
//!
//! The types of this crate are those of the newest version. What an older version says elsewhere or not at all is
//! settled here and seen nowhere else:
//!
//! - Before version 5 a checkpoint has no generation. Events and commands carry it in their bodies, acknowledgements
//!   not at all: they lose it when written and have generation 0 when read.
//! - Before version 6 the gateway's stop threshold and grace period are not sent; they read as `None`. From version 6
//!   a stop threshold must be given.
//! - Before version 7 there is no delete range.

mod kv;
mod to_client;
mod to_server;
mod tunnel;

use bytes::{Bytes, BytesMut};

use crate::bare::{Decoder, Length, Sink, first_repeat};
use crate::limits::{ITEMS_MAX, MESSAGE_MAX};
use crate::{ByteString, Checkpoint, DecodeError, ToClient, ToServer, Version};

/// Why a message cannot be written. All but the first are mistakes of the caller's, which the peer would answer by
/// closing the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message does not exist in the version spoken.
    #[error("{what} needs protocol version {needs}, this connection speaks {version}")]
    NotInVersion {
        /// What cannot be said.
        what: &'static str,
        /// The first version that has it.
        needs: Version,
        /// The version spoken.
        version: Version,
    },
    /// The version spoken has a field that the message leaves out.
    #[error("{what} is not given, protocol version {version} cannot do without")]
    Missing {
        /// Which field.
        what: &'static str,
        /// The version spoken.
        version: Version,
    },
    /// A map has the same key twice; only the last would count, and strict peers refuse the message.
    #[error("{what} stands twice")]
    RepeatedKey {
        /// What kind of key.
        what: &'static str,
    },
    /// A list or map is longer than [`ITEMS_MAX`].
    #[error("a list of {items} items is longer than the {ITEMS_MAX} a message may have")]
    TooManyItems {
        /// Its length.
        items: usize,
    },
    /// The encoded message is longer than [`MESSAGE_MAX`].
    #[error("a message of {bytes} bytes is longer than the {MESSAGE_MAX} a peer takes")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl ToServer {
    /// Appends the encoded message to `out`, which grows once, by exactly the length of the message.
    ///
    /// # Errors
    /// [`EncodeError`] when the version has no such message or no peer would take it; `out` is unchanged then.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        encode(self, version, out)
    }

    /// Reads one whole message; bodies and strings are slices of `frame` and keep all of it in memory.
    ///
    /// Takes messages up to [`crate::limits::FRAME_MAX`], which is more than a peer may send
    /// ([`MESSAGE_MAX`]): whether a slightly longer one is worth a complaint is the caller's choice.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but exactly one message in shortest form.
    pub fn decode(frame: Bytes, version: Version) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(&frame)?;
        let message = to_server::read(&mut from, version)?;
        from.finish(message)
    }
}

impl ToClient {
    /// Appends the encoded message to `out`, which grows once, by exactly the length of the message.
    ///
    /// # Errors
    /// [`EncodeError`] when the version has no such message or no peer would take it; `out` is unchanged then.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        encode(self, version, out)
    }

    /// Reads one whole message; bodies and strings are slices of `frame` and keep all of it in memory.
    ///
    /// Takes messages up to [`crate::limits::FRAME_MAX`], which is more than a peer may send
    /// ([`MESSAGE_MAX`]): whether a slightly longer one is worth a complaint is the caller's choice.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but exactly one message in shortest form.
    pub fn decode(frame: Bytes, version: Version) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(&frame)?;
        let message = to_client::read(&mut from, version)?;
        from.finish(message)
    }
}

/// What can stand alone in a frame.
trait Message {
    /// Describes the message to a sink. What it refuses depends on the message and the version alone.
    fn write<S: Sink>(&self, version: Version, out: &mut S) -> Result<(), EncodeError>;
}

/// Measures and checks first, so that a body is copied once and a refused message leaves nothing behind.
fn encode(message: &impl Message, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let mut length = Length::default();
    message.write(version, &mut length)?;
    let Length(bytes) = length;
    if bytes > MESSAGE_MAX {
        return Err(EncodeError::TooLarge { bytes });
    }
    out.reserve(bytes);
    message.write(version, out)
}

fn write_list<T, S: Sink>(
    list: &[T],
    out: &mut S,
    mut item: impl FnMut(&T, &mut S) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    if list.len() > ITEMS_MAX {
        return Err(EncodeError::TooManyItems { items: list.len() });
    }
    out.uint(list.len() as u64);
    list.iter().try_for_each(|each| item(each, out))
}

fn write_map<T, S: Sink>(
    what: &'static str,
    entries: &[(ByteString, T)],
    out: &mut S,
    value: impl Fn(&T, &mut S),
) -> Result<(), EncodeError> {
    if S::CHECKS && entries.len() <= ITEMS_MAX && first_repeat(entries).is_some() {
        return Err(EncodeError::RepeatedKey { what });
    }
    write_list(entries, out, |(key, of_key), out| {
        out.text(key);
        value(of_key, out);
        Ok(())
    })
}

fn write_data_list<S: Sink>(list: &[Bytes], out: &mut S) -> Result<(), EncodeError> {
    write_list(list, out, |data, out| {
        out.data(data);
        Ok(())
    })
}

fn write_checkpoints<S: Sink>(checkpoints: &[Checkpoint], version: Version, out: &mut S) -> Result<(), EncodeError> {
    write_list(checkpoints, out, |checkpoint, out| {
        write_checkpoint(checkpoint, version, out);
        Ok(())
    })
}

fn read_checkpoints(from: &mut Decoder, version: Version) -> Result<Vec<Checkpoint>, DecodeError> {
    from.list(CHECKPOINT_LEN, |from| read_checkpoint(from, version))
}

fn write_checkpoint<S: Sink>(checkpoint: &Checkpoint, version: Version, out: &mut S) {
    out.text(&checkpoint.actor_id);
    if version > Version::V4 {
        out.u32(checkpoint.generation);
    }
    out.i64(checkpoint.index);
}

fn read_checkpoint(from: &mut Decoder, version: Version) -> Result<Checkpoint, DecodeError> {
    let actor_id = from.text()?;
    let generation = if version > Version::V4 { from.u32()? } else { 0 };
    Ok(Checkpoint { actor_id, generation, index: from.i64()? })
}

/// The fewest bytes of a checkpoint in any version: an empty actor id and the index.
const CHECKPOINT_LEN: usize = 1 + 8;
