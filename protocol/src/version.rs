//! The protocol versions spoken here.

use std::fmt;

/// A version of the runner protocol. Both directions of a connection speak the version in its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Version {
    /// Acknowledgements carry no generation.
    V4 = 4,
    /// Checkpoints carry the generation.
    V5 = 5,
    /// The gateway tells its stop threshold.
    V6 = 6,
    /// Key ranges can be deleted.
    V7 = 7,
}

/// The version is none of 4 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol version {0} is not supported: expected 4 to 7")]
pub struct UnknownVersion(pub u16);

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Version; 4] = [Version::V4, Version::V5, Version::V6, Version::V7];
    /// The newest version.
    pub const LATEST: Version = Version::V7;
}

impl TryFrom<u16> for Version {
    type Error = UnknownVersion;

    fn try_from(number: u16) -> Result<Self, UnknownVersion> {
        Version::ALL.into_iter().find(|version| *version as u16 == number).ok_or(UnknownVersion(number))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", *self as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_4_to_7_are_versions() {
        for number in 0..=u16::MAX {
            match Version::try_from(number) {
                Ok(version) => assert_eq!(version.to_string(), number.to_string()),
                Err(unknown) => assert_eq!(unknown, UnknownVersion(number)),
            }
            assert_eq!(Version::try_from(number).is_ok(), (4..=7).contains(&number));
        }
    }
}
