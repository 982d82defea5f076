//! Every recorded message, byte for byte, in both directions and every version.
//!
//! `golden/` holds messages as the published codecs write them. Each is read here, compared with the message that its
//! description builds, and written again to the same bytes.

mod description;

use bytes::{Bytes, BytesMut};
use description::{Described, Direction, Vector};
use greenroom_protocol::{DecodeError, EncodeError, ToClient, ToServer, Version};
use serde_json::Value;

#[test]
fn every_recorded_message_is_read_as_described() {
    for_every_message(|version, vector| {
        let read = decode(vector.direction, vector.bytes.clone(), version);
        assert_eq!(read.as_ref(), Ok(&vector.message), "{} in version {version}", vector.name);
    });
}

#[test]
fn every_described_message_is_written_as_recorded() {
    for_every_message(|version, vector| {
        let mut out = BytesMut::new();
        vector.message.encode(version, &mut out).expect(&vector.name);
        assert_eq!(out, vector.bytes, "{} in version {version}", vector.name);
    });
}

#[test]
fn every_truncation_of_a_recorded_message_is_refused() {
    for_every_message(|version, vector| {
        for length in 0..vector.bytes.len() {
            let cut = vector.bytes.slice(..length);
            assert!(
                decode(vector.direction, cut, version).is_err(),
                "{} in version {version} cut to {length}",
                vector.name
            );
        }
    });
}

#[test]
fn a_byte_after_a_recorded_message_is_refused() {
    for_every_message(|version, vector| {
        let mut longer = vector.bytes.to_vec();
        longer.push(0);
        let refused = decode(vector.direction, longer.into(), version).expect_err(&vector.name);
        assert_eq!(refused, DecodeError { at: vector.bytes.len(), what: "bytes follow the message" });
    });
}

#[test]
fn every_change_of_one_byte_is_refused_or_written_back_unchanged() {
    for_every_message(|version, vector| {
        // The long vectors repeat one pattern; their beginning stands for the rest.
        for place in 0..vector.bytes.len().min(400) {
            for flip in [0x01, 0x02, 0x80, 0xff] {
                let mut changed = vector.bytes.to_vec();
                changed[place] ^= flip;
                let changed = Bytes::from(changed);
                if let Ok(message) = decode(vector.direction, changed.clone(), version) {
                    let mut out = BytesMut::new();
                    message.encode(version, &mut out).expect(&vector.name);
                    assert_eq!(out, changed, "{} in version {version}, byte {place}", vector.name);
                }
            }
        }
    });
}

#[test]
fn every_invalid_message_is_refused_where_it_is_wrong() {
    let expected = [
        ("empty_input", 0, "the message ends too early"),
        ("unknown_top_tag", 0, "no message to a gateway has this tag"),
        ("unknown_top_tag_client", 0, "no message to a runner has this tag"),
        ("tag_non_canonical_varint", 0, "no message to a gateway has this tag"),
        ("unknown_nested_tag", 6, "no key-value request has this tag"),
        ("bool_two", 12, "a bool is neither 0 nor 1"),
        ("optional_two", 11, "the mark of an optional is neither 0 nor 1"),
        ("enum_out_of_range", 17, "a stop code is neither ok nor error"),
        ("string_length_non_canonical", 1, "a number is not in its shortest form"),
        ("length_overflow_10th_byte_2", 1, "a number has more than 64 bits"),
        ("length_eleven_bytes", 1, "a number has more than 64 bits"),
        ("length_u64_max", 1, "a length points beyond the end of the message"),
        ("length_beyond_input", 1, "a length points beyond the end of the message"),
        ("length_33_mib", 1, "a length points beyond the end of the message"),
        ("list_count_2_40", 1, "a count is higher than the rest of the message has room for"),
        ("duplicate_map_key_names", 16, "a key stands twice in a map"),
        ("duplicate_map_key_headers", 24, "a key stands twice in a map"),
        ("trailing_byte", 1, "bytes follow the message"),
        ("trailing_bytes_ping", 9, "bytes follow the message"),
        ("utf8_ff", 1, "a text is not UTF-8"),
        ("utf8_overlong", 1, "a text is not UTF-8"),
        ("utf8_surrogate", 1, "a text is not UTF-8"),
        ("utf8_truncated", 1, "a text is not UTF-8"),
        ("truncated_u32", 6, "the message ends too early"),
        ("truncated_fixed_data", 4, "the message ends too early"),
        ("truncated_i64", 5, "the message ends too early"),
        ("truncated_option_value", 14, "the message ends too early"),
    ];
    let invalid: Vec<Value> = serde_json::from_str(include_str!("../golden/runner-v7-invalid.json")).expect("json");
    assert_eq!(invalid.len(), expected.len());
    for (vector, (name, at, what)) in invalid.iter().zip(expected) {
        assert_eq!(vector["name"], name);
        let refused = decode(description::direction(vector), description::hex(&vector["hex"]), Version::V7);
        assert_eq!(refused.expect_err(name), DecodeError { at, what }, "{name}");
    }
}

#[test]
fn deleting_a_range_before_version_7_is_an_error_and_leaves_the_buffer_alone() {
    let message = recorded(Version::V7)
        .into_iter()
        .find(|vector| vector.name.contains("delete_range"))
        .expect("version 7 has a delete range")
        .message;
    for version in [Version::V4, Version::V5, Version::V6] {
        let mut out = BytesMut::from("kept");
        let refused = message.encode(version, &mut out);
        assert_eq!(
            refused,
            Err(EncodeError::NotInVersion { what: "deleting a range of keys", needs: Version::V7, version })
        );
        assert_eq!(out, "kept");
    }
}

fn for_every_message(check: impl Fn(Version, &Vector)) {
    for version in Version::ALL {
        let recorded = recorded(version);
        assert!(recorded.len() >= 102);
        recorded.iter().for_each(|vector| check(version, vector));
    }
}

fn recorded(version: Version) -> Vec<Vector> {
    let json = match version {
        Version::V4 => include_str!("../golden/runner-v4.json"),
        Version::V5 => include_str!("../golden/runner-v5.json"),
        Version::V6 => include_str!("../golden/runner-v6.json"),
        Version::V7 => include_str!("../golden/runner-v7.json"),
    };
    let vectors: Vec<Value> = serde_json::from_str(json).expect("json");
    vectors.iter().map(Vector::from_json).collect()
}

fn decode(direction: Direction, frame: Bytes, version: Version) -> Result<Described, DecodeError> {
    match direction {
        Direction::ToServer => ToServer::decode(frame, version).map(Described::ToServer),
        Direction::ToClient => ToClient::decode(frame, version).map(Described::ToClient),
    }
}
