//! Notes as bytes: a version, then the fields in postcard.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A note; [`Row::VERSION`] rises when its fields change.
pub(in crate::host) trait Row: Serialize + DeserializeOwned {
    /// The first byte of the value.
    const VERSION: u8;

    /// The note as a value.
    fn encode(&self) -> Bytes {
        let bytes = postcard::to_extend(self, vec![Self::VERSION]).expect("a vector takes every plain structure");
        bytes.into()
    }

    /// Reads a value.
    ///
    /// # Errors
    /// What is wrong with it; a newer daemon may have written it.
    fn decode(value: &[u8]) -> Result<Self, String> {
        match value.split_first() {
            Some((&version, fields)) if version == Self::VERSION => {
                postcard::from_bytes(fields).map_err(|error| error.to_string())
            }
            Some((version, _)) => Err(format!("version {version} is not known, only {}", Self::VERSION)),
            None => Err("it is empty".to_owned()),
        }
    }
}

/// What an actor knows of a socket.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct SocketRow {
    /// Path and query of the upgrade.
    pub(super) path: String,
    /// Given by the actor when it took the socket.
    pub(super) tags: Vec<String>,
}

/// How far a socket's frames were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct IndexRow {
    /// The gateway's index of the last frame that was taken.
    pub(super) taken: u16,
    /// The number of the next frame.
    pub(super) next_seq: u64,
}

/// How a socket closed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ClosedRow {
    /// WebSocket close code.
    pub(super) code: u16,
    /// WebSocket close reason.
    pub(super) reason: String,
    /// This side closed it, so nothing more of its client is told. Otherwise a gateway that still holds it has frames
    /// from before the close.
    pub(super) by_us: bool,
}

impl Row for SocketRow {
    const VERSION: u8 = 1;
}

impl Row for IndexRow {
    const VERSION: u8 = 1;
}

impl Row for ClosedRow {
    const VERSION: u8 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_and_an_index_takes_few_bytes() {
        let socket = SocketRow { path: "/room?x=1".into(), tags: vec!["room:1".into(), "ü".into()] };
        assert_eq!(SocketRow::decode(&socket.encode()), Ok(socket));
        let index = IndexRow { taken: 65_535, next_seq: 1_000_000 };
        assert!(index.encode().len() <= 8);
        assert_eq!(IndexRow::decode(&index.encode()), Ok(index));
        let closed = ClosedRow { code: 1000, reason: "bye".into(), by_us: true };
        assert_eq!(ClosedRow::decode(&closed.encode()), Ok(closed));
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_no_panic() {
        assert_eq!(IndexRow::decode(b"").unwrap_err(), "it is empty");
        assert_eq!(IndexRow::decode(&[9, 1, 1]).unwrap_err(), "version 9 is not known, only 1");
        for length in 0..12 {
            // Whatever it is, it is an answer.
            let _ = SocketRow::decode(&[&[1][..], &vec![0xff; length]].concat());
        }
    }
}
