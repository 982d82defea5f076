//! Ids as the Rivet engine writes them: 30 characters of `[0-9a-z]`.
//!
//! The value is 19 bytes: a version, 16 random bytes, and the label of the data center in big endian. Read as one
//! little-endian number, it is written in base 36 with the least significant digit first.

use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;

/// Length of an id as text.
pub const ID_LENGTH: usize = 30;

/// The id of an actor, a runner, a namespace or a ray (one client request, for the log and for reports).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    text: [u8; ID_LENGTH],
}

/// Why a text is no id. The sentences are those of the engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Shorter than the part that tells the version.
    #[error("invalid input length: expected at least 4 characters")]
    TooShort,
    /// Not the length of its version.
    #[error("invalid input length: expected {ID_LENGTH}, got {0}")]
    Length(usize),
    /// A character outside of `[0-9a-z]`.
    #[error("invalid base36 character: {0:?}")]
    Character(char),
    /// Not version 1.
    #[error("unsupported ID version: {0}")]
    Version(u8),
    /// More than 19 bytes.
    #[error("byte conversion overflow")]
    Overflow,
}

impl Id {
    /// The id made of 16 random bytes, in the one data center of this gateway.
    #[must_use]
    pub fn from_random(random: [u8; 16]) -> Self {
        let mut random = random;
        // The marks of a version 4 UUID, which is what the engine puts here.
        random[6] = (random[6] & 0x0f) | 0x40;
        random[8] = (random[8] & 0x3f) | 0x80;
        let mut bytes = [0; 20];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(&random);
        bytes[17..19].copy_from_slice(&DATACENTER.to_be_bytes());
        Id { text: encode(&bytes) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("only digits and letters are ever written")
    }
}

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let Some(head) = text.as_bytes().get(..4) else {
            return Err(ParseIdError::TooShort);
        };
        let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='z');
        if !text.bytes().all(|byte| is_digit(char::from(byte)))
            && let Some(bad) = text.chars().find(|c| !is_digit(*c))
        {
            return Err(ParseIdError::Character(bad));
        }
        let version = head.iter().rev().fold(0_u32, |value, digit| value * 36 + u32::from(digit_value(*digit)));
        let version = version.to_le_bytes()[0];
        if version != VERSION {
            return Err(ParseIdError::Version(version));
        }
        let Ok(text): Result<[u8; ID_LENGTH], _> = text.as_bytes().try_into() else {
            return Err(ParseIdError::Length(text.len()));
        };
        if !fits(&text) {
            return Err(ParseIdError::Overflow);
        }
        Ok(Id { text })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Id> for ByteString {
    fn from(id: Id) -> Self {
        ByteString::from(id.as_str())
    }
}

#[cfg(feature = "daemon")]
impl From<Id> for hyper::header::HeaderValue {
    fn from(id: Id) -> Self {
        hyper::header::HeaderValue::from_str(id.as_str()).expect("only digits and letters are ever written")
    }
}

/// Writes the number in base 36: five 32-bit limbs are divided by 36^6, which still fits in 32 bits, five times.
fn encode(bytes: &[u8; 20]) -> [u8; ID_LENGTH] {
    let mut limbs = [0_u32; 5];
    for (limb, bytes) in limbs.iter_mut().zip(bytes.chunks_exact(4)) {
        *limb = u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
    }
    let mut text = [b'0'; ID_LENGTH];
    for group in text.chunks_exact_mut(6) {
        let mut rest = 0_u64;
        for limb in limbs.iter_mut().rev() {
            let value = (rest << 32) | u64::from(*limb);
            *limb = u32::try_from(value / SIX_DIGITS).expect("the rest is below the divisor");
            rest = value % SIX_DIGITS;
        }
        for digit in group {
            *digit = DIGITS[usize::try_from(rest % 36).expect("below 36")];
            rest /= 36;
        }
    }
    text
}

/// Whether the number has no more than 19 bytes.
fn fits(text: &[u8; ID_LENGTH]) -> bool {
    let mut limbs = [0_u64; 5];
    for group in text.rchunks_exact(6) {
        let mut carry = group.iter().rev().fold(0, |value, digit| value * 36 + u64::from(digit_value(*digit)));
        for limb in &mut limbs {
            let value = *limb * SIX_DIGITS + carry;
            *limb = value & 0xffff_ffff;
            carry = value >> 32;
        }
    }
    limbs[4] < 1 << 24
}

fn digit_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'z' => digit - b'a' + 10,
        _ => 0,
    }
}

const VERSION: u8 = 1;
const DATACENTER: u16 = 1;
const SIX_DIGITS: u64 = 36_u64.pow(6);
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_reads_as_the_engine_writes_it() {
        let random = u128::from_str_radix("a28f93138273425fabdd43d491e120c8", 16).expect("hex").to_be_bytes();
        let id = Id::from_random(random);
        assert_eq!(id.as_str(), "1oe70n6l4jcqg4a8w8zsyhhwkqcl00");
        assert_eq!("1oe70n6l4jcqg4a8w8zsyhhwkqcl00".parse(), Ok(id));
    }

    #[test]
    fn a_text_that_is_no_id_says_why() {
        assert_eq!("abc".parse::<Id>(), Err(ParseIdError::TooShort));
        assert_eq!("garbage".parse::<Id>(), Err(ParseIdError::Version(232)));
        assert_eq!("GARBAGE".parse::<Id>(), Err(ParseIdError::Character('G')));
        assert_eq!("1oe7é".parse::<Id>(), Err(ParseIdError::Character('é')));
        assert_eq!("1oe70n6l4jcqg4a8w8zsyhhwkqcl0".parse::<Id>(), Err(ParseIdError::Length(29)));
        assert_eq!("1oe70n6l4jcqg4a8w8zsyhhwkqclzz".parse::<Id>(), Err(ParseIdError::Overflow));
    }

    #[test]
    fn the_extremes_are_written_and_read() {
        for random in [[0; 16], [0xff; 16]] {
            let id = Id::from_random(random);
            assert_eq!(id.as_str().parse(), Ok(id));
        }
    }

    proptest! {
        #[test]
        fn every_id_is_read_as_it_was_written(random in any::<[u8; 16]>()) {
            let id = Id::from_random(random);
            prop_assert_eq!(id.as_str().parse(), Ok(id));
        }

        #[test]
        fn whatever_is_read_as_an_id_is_written_the_same(text in "[0-9a-z]{30}|1[0-9a-z]{27}00|\\PC{0,40}") {
            if let Ok(id) = text.parse::<Id>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
