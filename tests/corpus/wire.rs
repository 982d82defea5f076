//! Frames of the wire in every version: what is read is written back as exactly the same bytes, and in version 7
//! another BARE implementation takes the same frames.

use bytes::{Bytes, BytesMut};
use greenroom::protocol::{DecodeError, EncodeError, Features, ToClient, ToClientTunnel, ToServer, ToServerTunnel};
use greenroom::protocol::{Version, headers};

use super::oracle;

pub fn to_client(data: &[u8]) {
    for version in Version::ALL {
        let taken = read(data, version, ToClient::decode, ToClient::encode);
        if version == Version::V7 {
            assert_eq!(taken.is_some(), oracle::accepts_from_gateway(data).is_ok(), "{taken:?}");
        }
        if let Some(
            ToClient::Tunnel { message: ToClientTunnel::RequestStart { headers, .. }, .. }
            | ToClient::Tunnel { message: ToClientTunnel::WebSocketOpen { headers, .. }, .. },
        ) = taken
        {
            split_and_joined(headers);
        }
    }
}

pub fn to_server(data: &[u8]) {
    for version in Version::ALL {
        let taken = read(data, version, ToServer::decode, ToServer::encode);
        if version == Version::V7 {
            assert_eq!(taken.is_some(), oracle::accepts_from_runner(data).is_ok(), "{taken:?}");
        }
        match taken {
            Some(ToServer::Tunnel { message: ToServerTunnel::ResponseStart { headers, .. }, .. }) => {
                split_and_joined(headers);
            }
            // Whatever it says of the request, it says so without failing.
            Some(ToServer::Kv { request, .. }) => drop(request.check()),
            Some(_) | None => {}
        }
    }
}

fn read<T: std::fmt::Debug + PartialEq>(
    data: &[u8],
    version: Version,
    decode: fn(Bytes, Version) -> Result<T, DecodeError>,
    encode: fn(&T, Version, &mut BytesMut) -> Result<(), EncodeError>,
) -> Option<T> {
    match decode(Bytes::copy_from_slice(data), version) {
        Ok(message) => {
            let mut written = BytesMut::new();
            assert_eq!(encode(&message, version, &mut written), Ok(()), "{message:?}");
            assert_eq!(written, data, "{message:?}");
            Some(message)
        }
        Err(refused) => {
            assert!(refused.at <= data.len(), "{refused}");
            None
        }
    }
}

/// Headers that came over the wire can go back over it, with the same lines in it.
fn split_and_joined(came: greenroom::protocol::Headers) {
    let split = headers::split(came, Features::ALL);
    let joined = headers::join(split.clone(), Features::ALL);
    for (place, (name, _)) in joined.iter().enumerate() {
        assert!(!joined[..place].iter().any(|(other, _)| other == name), "{name:?} twice");
    }
    assert_eq!(headers::split(joined, Features::ALL).len(), split.len());
}
