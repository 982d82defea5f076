//! Reading: every step is checked against what is left of the message before anything is allocated.

use bytes::Bytes;
use bytestring::ByteString;

use super::{DecodeError, first_repeat};
use crate::limits::{FRAME_MAX, ITEMS_MAX};

/// A place in a received message.
pub(crate) struct Decoder<'a> {
    frame: &'a Bytes,
    rest: &'a [u8],
}

type Read<T> = Result<T, DecodeError>;

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    pub(crate) fn new(frame: &'a Bytes) -> Read<Self> {
        if frame.len() > FRAME_MAX {
            return Err(DecodeError { at: FRAME_MAX, what: "the message is longer than any may be" });
        }
        Ok(Decoder { frame, rest: frame })
    }

    /// Ends the reading.
    #[inline]
    pub(crate) fn finish<T>(self, message: T) -> Read<T> {
        if self.rest.is_empty() { Ok(message) } else { Err(self.refuse("bytes follow the message")) }
    }

    /// Reads a union tag or an enum value.
    #[inline]
    pub(crate) fn tag(&mut self) -> Read<Tag> {
        let at = self.at();
        let [value] = self.array()?;
        Ok(Tag { value, at })
    }

    /// Reads two bytes, low first.
    #[inline]
    pub(crate) fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Reads four bytes, low first.
    #[inline]
    pub(crate) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads eight bytes, low first.
    #[inline]
    pub(crate) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads eight bytes, low first, two's complement.
    #[inline]
    pub(crate) fn i64(&mut self) -> Read<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Reads one byte, 0 or 1.
    #[inline]
    pub(crate) fn bool(&mut self) -> Read<bool> {
        match self.tag()? {
            Tag { value: 0, .. } => Ok(false),
            Tag { value: 1, .. } => Ok(true),
            tag => Err(tag.unknown("a bool is neither 0 nor 1")),
        }
    }

    /// Reads a presence mark and the value behind it.
    #[inline]
    pub(crate) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.tag()? {
            Tag { value: 0, .. } => Ok(None),
            Tag { value: 1, .. } => read(self).map(Some),
            tag => Err(tag.unknown("the mark of an optional is neither 0 nor 1")),
        }
    }

    /// Reads as many bytes as the array has.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else { return Err(self.ends_early()) };
        self.rest = rest;
        Ok(*bytes)
    }

    /// Reads a length and that many bytes, which stay where they are.
    #[inline]
    pub(crate) fn data(&mut self) -> Read<Bytes> {
        let start = self.at();
        let length = self.uint()?;
        if length > self.rest.len() as u64 {
            return Err(DecodeError { at: start, what: "a length points beyond the end of the message" });
        }
        let from = self.at();
        let data = self.frame.slice(from..from + length as usize);
        self.rest = &self.rest[length as usize..];
        Ok(data)
    }

    /// Reads a length and that many bytes of UTF-8, which stay where they are.
    #[inline]
    pub(crate) fn text(&mut self) -> Read<ByteString> {
        let start = self.at();
        ByteString::try_from(self.data()?).map_err(|_| DecodeError { at: start, what: "a text is not UTF-8" })
    }

    /// Reads a count and that many items, each at least `smallest` bytes long.
    #[inline]
    pub(crate) fn list<T>(&mut self, smallest: usize, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let start = self.at();
        let count = self.uint()?;
        if count > (self.rest.len() / smallest) as u64 {
            return Err(DecodeError { at: start, what: "a count is higher than the rest of the message has room for" });
        }
        if count > ITEMS_MAX as u64 {
            return Err(DecodeError { at: start, what: "a list or map has more items than any may have" });
        }
        // The count is the peer's claim: beyond the first allocation the list grows with the items that really come.
        let first = (FIRST_ALLOCATION / size_of::<T>().max(1)).max(1);
        let mut items = Vec::with_capacity(first.min(count as usize));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Reads a count and that many data.
    pub(crate) fn data_list(&mut self) -> Read<Vec<Bytes>> {
        self.list(1, Self::data)
    }

    /// Reads a count and that many pairs of a text and a value, no text twice.
    pub(crate) fn map<T>(&mut self, mut value: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<(ByteString, T)>> {
        let mut start = Decoder { ..*self };
        let entries = self.list(2, |from| Ok((from.text()?, value(from)?)))?;
        match first_repeat(&entries) {
            None => Ok(entries),
            Some(repeat) => {
                start.uint()?;
                for _ in 0..repeat {
                    start.text()?;
                    value(&mut start)?;
                }
                Err(start.refuse("a key stands twice in a map"))
            }
        }
    }

    /// Reads a variable number in its shortest form.
    #[inline]
    fn uint(&mut self) -> Read<u64> {
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_uint(),
        }
    }

    fn long_uint(&mut self) -> Read<u64> {
        let mut value = 0;
        for (place, byte) in self.rest.iter().enumerate() {
            if place == 9 && *byte > 1 {
                return Err(self.refuse("a number has more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                if *byte == 0 {
                    return Err(self.refuse("a number is not in its shortest form"));
                }
                self.rest = &self.rest[place + 1..];
                return Ok(value);
            }
        }
        Err(self.ends_early())
    }

    /// The offset of the next byte.
    #[inline]
    fn at(&self) -> usize {
        self.frame.len() - self.rest.len()
    }

    #[cold]
    fn ends_early(&self) -> DecodeError {
        DecodeError { at: self.frame.len(), what: "the message ends too early" }
    }

    /// Refuses the message because of what stands here.
    #[cold]
    pub(crate) fn refuse(&self, what: &'static str) -> DecodeError {
        DecodeError { at: self.at(), what }
    }
}

/// A union tag or an enum value, with its place.
pub(crate) struct Tag {
    /// The number.
    pub(crate) value: u8,
    at: usize,
}

impl Tag {
    /// Refuses the message because nothing has this number.
    #[cold]
    pub(crate) fn unknown(&self, what: &'static str) -> DecodeError {
        DecodeError { at: self.at, what }
    }
}

/// What a list takes before its first item is read, in bytes: room for every honest list but the longest.
const FIRST_ALLOCATION: usize = 16 * 1024;
