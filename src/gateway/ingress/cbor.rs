//! Whether bytes are CBOR (RFC 8949): one well-formed data item. What it means is the actor's business.

/// Checks that the bytes are exactly one well-formed data item.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut rest = Rest(bytes);
    rest.item(0)?;
    match rest.0 {
        [] => Ok(()),
        _ => Err("more bytes follow the value"),
    }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn item(&mut self, depth: usize) -> Result<(), &'static str> {
        if depth > DEPTH_MAX {
            return Err("values are nested too deeply");
        }
        let [first] = self.array()?;
        let (kind, info) = (first >> 5, first & 0x1f);
        let argument = self.argument(info)?;
        match (kind, argument) {
            (UNSIGNED | NEGATIVE, Some(_)) => Ok(()),
            (BYTES, Some(length)) => self.take(length).map(drop),
            (TEXT, Some(length)) => self.text(length),
            (BYTES | TEXT, None) => self.pieces(kind),
            // However many are announced, each takes a byte: the loop ends with the bytes.
            (ARRAY, Some(count)) => (0..count).try_for_each(|_| self.item(depth + 1)),
            (ARRAY, None) => {
                while !self.at_break()? {
                    self.item(depth + 1)?;
                }
                Ok(())
            }
            (MAP, Some(count)) => (0..count).try_for_each(|_| self.pair(depth)),
            (MAP, None) => {
                while !self.at_break()? {
                    self.pair(depth)?;
                }
                Ok(())
            }
            (TAG, Some(_)) => self.item(depth + 1),
            (SIMPLE, Some(value)) if info == 24 && value < 32 => Err("a simple value is written too long"),
            (SIMPLE, Some(_)) => Ok(()),
            (SIMPLE, None) => Err("a break stands where a value is due"),
            (_, _) => Err("a value has a length it cannot have"),
        }
    }

    fn pair(&mut self, depth: usize) -> Result<(), &'static str> {
        self.item(depth + 1)?;
        self.item(depth + 1)
    }

    /// The number that belongs to a first byte; none when the length is left open.
    fn argument(&mut self, info: u8) -> Result<Option<u64>, &'static str> {
        Ok(match info {
            0..=23 => Some(info.into()),
            24 => Some(u8::from_be_bytes(self.array()?).into()),
            25 => Some(u16::from_be_bytes(self.array()?).into()),
            26 => Some(u32::from_be_bytes(self.array()?).into()),
            27 => Some(u64::from_be_bytes(self.array()?)),
            31 => None,
            _ => return Err("a first byte is reserved"),
        })
    }

    /// The pieces of a text or byte string of open length, each of a known one.
    fn pieces(&mut self, kind: u8) -> Result<(), &'static str> {
        while !self.at_break()? {
            let [first] = self.array()?;
            let length = match self.argument(first & 0x1f)? {
                Some(length) if first >> 5 == kind => length,
                Some(_) | None => return Err("a string has a piece of another kind"),
            };
            match kind {
                TEXT => self.text(length)?,
                _ => self.take(length).map(drop)?,
            }
        }
        Ok(())
    }

    fn text(&mut self, length: u64) -> Result<(), &'static str> {
        match std::str::from_utf8(self.take(length)?) {
            Ok(_) => Ok(()),
            Err(_) => Err("a text is not UTF-8"),
        }
    }

    fn at_break(&mut self) -> Result<bool, &'static str> {
        match self.0 {
            [] => Err(CUT_OFF),
            [BREAK, rest @ ..] => {
                self.0 = rest;
                Ok(true)
            }
            [..] => Ok(false),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (array, rest) = self.0.split_first_chunk().ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(length).map_err(|_| CUT_OFF)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(taken)
    }
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// Ends what has no length of its own.
const BREAK: u8 = 0xff;

const CUT_OFF: &str = "it ends in the middle of a value";

/// How deep values may be nested: as deep as the engine reads them, and far from the end of the stack.
const DEPTH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_well_formed_value_passes() {
        // Numbers of all widths; strings, whole and in pieces; lists and maps, counted and open; tags; simple values.
        for bytes in [
            &b"\x00"[..],
            b"\x18\xff",
            b"\x39\x01\x00",
            b"\x1a\x00\x01\x00\x00",
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x40",
            b"\x42\xff\xfe",
            b"\x62\xc3\xa9",
            b"\x5f\x41\x01\x42\x02\x03\xff",
            b"\x7f\x61a\x60\xff",
            b"\x80",
            b"\x82\x01\x81\x02",
            b"\x9f\x01\x9f\xff\xff",
            b"\xa1\x61a\x01",
            b"\xbf\x61a\xa0\xff",
            b"\xc1\x1a\x00\x00\x00\x00",
            b"\xf4",
            b"\xf6",
            b"\xf8\xff",
            b"\xf9\x3c\x00",
            b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00",
        ] {
            assert_eq!(check(bytes), Ok(()), "{bytes:x?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b""[..],
            b"\x18",
            b"\x19\x00",
            b"\x42\x00",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x61\xff",
            b"\x62\xc3",
            b"\x82\x01",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x9f\x01",
            b"\xa1\x01",
            b"\xbf\x01\xff",
            b"\x5f\x61a\xff",
            b"\x5f\x5f\xff\xff",
            b"\x7f\x61\xc3\x61\xa9\xff",
            b"\x1c",
            b"\x1f",
            b"\xdf\x00",
            b"\xc1",
            b"\xf8\x18",
            b"\xff",
            b"\x00\x00",
        ] {
            check(bytes).expect_err(&format!("{bytes:x?}"));
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX + 1)), Err("values are nested too deeply"));
        check(&nested(1_000_000)).expect_err("too deep");
        check(&vec![0xc1; 1_000_000]).expect_err("too deep");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes);
        }
    }
}
