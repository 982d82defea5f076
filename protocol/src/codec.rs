//! Messages to bytes and back.

use bytes::{Bytes, BytesMut};

use crate::{DecodeError, ToClient, ToServer, Version};

/// Why a message cannot be written.
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
}

impl ToServer {
    /// Appends the encoded message to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] when the version has no such message; `out` is unchanged then.
    pub fn encode(&self, _version: Version, _out: &mut BytesMut) -> Result<(), EncodeError> {
        todo!()
    }

    /// Reads one whole message; bodies and strings are slices of `frame`.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but exactly one message in shortest form.
    pub fn decode(_frame: Bytes, _version: Version) -> Result<Self, DecodeError> {
        todo!()
    }
}

impl ToClient {
    /// Appends the encoded message to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] when the version has no such message; `out` is unchanged then.
    pub fn encode(&self, _version: Version, _out: &mut BytesMut) -> Result<(), EncodeError> {
        todo!()
    }

    /// Reads one whole message; bodies and strings are slices of `frame`.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but exactly one message in shortest form.
    pub fn decode(_frame: Bytes, _version: Version) -> Result<Self, DecodeError> {
        todo!()
    }
}
