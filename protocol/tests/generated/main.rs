//! Messages nobody wrote by hand: they read back as they were, and another BARE implementation agrees on every byte.

mod oracle;
mod strategy;

use bytes::{Bytes, BytesMut};
use greenroom_protocol::{DecodeError, EncodeError, ToClient, ToServer, Version};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_a_runner_says_reads_back_in_every_version(
        (version, message) in strategy::version().prop_flat_map(strategy::versioned_to_server),
    ) {
        let written = write_to_server(&message, version)?;
        prop_assert_eq!(ToServer::decode(written, version), Ok(message));
    }

    #[test]
    fn what_a_gateway_says_reads_back_in_every_version(
        (version, message) in strategy::version().prop_flat_map(strategy::versioned_to_client),
    ) {
        let written = write_to_client(&message, version)?;
        prop_assert_eq!(ToClient::decode(written, version), Ok(message));
    }

    #[test]
    fn a_message_is_appended_and_a_refused_one_leaves_nothing(
        version in strategy::version(),
        message in strategy::to_client(Version::V4),
        earlier in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        // A message made for version 4 lacks the stop threshold of later ones.
        let mut out = BytesMut::from(&earlier[..]);
        match message.encode(version, &mut out) {
            Ok(()) => prop_assert_eq!(&out[earlier.len()..], &write_to_client(&message, version)?),
            Err(refused) => {
                prop_assert_eq!(refused, EncodeError::Missing { what: "the actor stop threshold", version });
                prop_assert_eq!(&out[..], &earlier[..]);
            }
        }
    }

    #[test]
    fn another_implementation_reads_and_writes_what_a_runner_says(message in strategy::to_server(Version::V7)) {
        let written = write_to_server(&message, Version::V7)?;
        prop_assert_eq!(oracle::accepts_from_runner(&written), Ok(()));
    }

    #[test]
    fn another_implementation_reads_and_writes_what_a_gateway_says(message in strategy::to_client(Version::V7)) {
        let written = write_to_client(&message, Version::V7)?;
        prop_assert_eq!(oracle::accepts_from_gateway(&written), Ok(()));
    }

    #[test]
    fn a_damaged_message_to_a_gateway_is_taken_exactly_when_it_is_another_message(
        message in strategy::to_server(Version::V7),
        damage in strategy::damage(),
    ) {
        let damaged = strategy::damaged(&write_to_server(&message, Version::V7)?, &damage);
        let taken = ToServer::decode(damaged.clone(), Version::V7);
        prop_assert_eq!(taken.is_ok(), oracle::accepts_from_runner(&damaged).is_ok(), "{:?}", taken);
    }

    #[test]
    fn a_damaged_message_to_a_runner_is_taken_exactly_when_it_is_another_message(
        message in strategy::to_client(Version::V7),
        damage in strategy::damage(),
    ) {
        let damaged = strategy::damaged(&write_to_client(&message, Version::V7)?, &damage);
        let taken = ToClient::decode(damaged.clone(), Version::V7);
        prop_assert_eq!(taken.is_ok(), oracle::accepts_from_gateway(&damaged).is_ok(), "{:?}", taken);
    }

    #[test]
    fn a_damaged_message_of_any_version_is_refused_or_means_exactly_its_bytes(
        (version, message) in strategy::version().prop_flat_map(strategy::versioned_to_server),
        damage in strategy::damage(),
    ) {
        let damaged = strategy::damaged(&write_to_server(&message, version)?, &damage);
        for version in Version::ALL {
            if let Ok(message) = refusal_is_inside(&damaged, ToServer::decode(damaged.clone(), version))? {
                prop_assert_eq!(write_to_server(&message, version)?, &damaged);
            }
        }
    }

    #[test]
    fn noise_is_refused_or_means_exactly_its_bytes(
        tag in 0..8u8,
        mut noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        noise.insert(0, tag);
        let noise = Bytes::from(noise);
        for version in Version::ALL {
            if let Ok(message) = refusal_is_inside(&noise, ToServer::decode(noise.clone(), version))? {
                prop_assert_eq!(write_to_server(&message, version)?, &noise);
            }
            if let Ok(message) = refusal_is_inside(&noise, ToClient::decode(noise.clone(), version))? {
                prop_assert_eq!(write_to_client(&message, version)?, &noise);
            }
        }
    }
}

fn write_to_server(message: &ToServer, version: Version) -> Result<Bytes, TestCaseError> {
    let mut out = BytesMut::new();
    message.encode(version, &mut out).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
    Ok(out.freeze())
}

fn write_to_client(message: &ToClient, version: Version) -> Result<Bytes, TestCaseError> {
    let mut out = BytesMut::new();
    message.encode(version, &mut out).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
    Ok(out.freeze())
}

/// A refusal names a place in the message, or its end.
fn refusal_is_inside<T>(frame: &Bytes, read: Result<T, DecodeError>) -> Result<Result<T, DecodeError>, TestCaseError> {
    if let Err(refused) = &read {
        prop_assert!(refused.at <= frame.len(), "{refused}");
    }
    Ok(read)
}
