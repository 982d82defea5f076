//! What goes beyond the protocol, by agreement of both ends.
//!
//! A runner offers features in the [`FEATURES_HEADER`] of its upgrade request, the gateway grants in the same header of
//! its answer what it knows too. The Rivet engine ignores the header and grants nothing.

use std::fmt;

/// The header of offers and grants.
pub const FEATURES_HEADER: &str = "x-greenroom-features";

/// Features offered or granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Bodies may travel in chunks.
    pub stream: bool,
    /// Repeated header values travel joined by a newline.
    pub repeated_headers: bool,
    /// Bodies in chunks travel only as far as there is credit for them, see [`crate::credit`]. Needs `stream`.
    pub credit: bool,
}

impl Features {
    /// Everything this version knows.
    pub const ALL: Features = Features { stream: true, repeated_headers: true, credit: true };

    /// Reads a header's value; names that are not known are left out.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        let mut features = Features::default();
        for name in value.split(',').map(str::trim) {
            match name {
                STREAM => features.stream = true,
                REPEATED_HEADERS => features.repeated_headers = true,
                CREDIT => features.credit = true,
                _ => {}
            }
        }
        // Credit is for chunks.
        features.credit &= features.stream;
        features
    }

    /// Whether there is none, so that the other end has to be taken for a Rivet engine, with its limits.
    #[must_use]
    pub fn are_none(self) -> bool {
        self == Features::default()
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.stream, STREAM), (self.repeated_headers, REPEATED_HEADERS), (self.credit, CREDIT)];
        for (place, (_, name)) in names.into_iter().filter(|(has, _)| *has).enumerate() {
            write!(f, "{}{name}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

const STREAM: &str = "stream";
const REPEATED_HEADERS: &str = "repeated-headers";
const CREDIT: &str = "credit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_unknown_is_left_out() {
        for features in [Features::default(), Features::ALL, Features { stream: true, ..Features::default() }] {
            assert_eq!(Features::parse(&features.to_string()), features);
        }
        assert_eq!(Features::parse("something-new,repeated-headers , credit,stream"), Features::ALL);
        assert_eq!(Features::ALL.to_string(), "stream, repeated-headers, credit");
        assert!(Features::parse("credit").are_none(), "credit is for chunks");
        assert!(Features::parse("").are_none());
    }
}
