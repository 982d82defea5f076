//! Writing: one description of a message serves for measuring and for writing it.

use bytes::{BufMut, BytesMut};

/// Takes the encoded bytes of a message.
pub(crate) trait Sink: Sized {
    /// Whether this pass looks for mistakes that cost time to find; the first of the two passes does.
    const CHECKS: bool;

    /// Appends bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// Appends one byte: a union tag below 128, an enum value, a presence mark.
    fn byte(&mut self, byte: u8);

    /// Appends a length, a count or another variable number, in the fewest bytes.
    #[inline]
    fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Appends two bytes, low first.
    #[inline]
    fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends four bytes, low first.
    #[inline]
    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes, low first.
    #[inline]
    fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes, low first, two's complement.
    #[inline]
    fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends one byte, 0 or 1.
    #[inline]
    fn bool(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    /// Appends a length and the bytes.
    #[inline]
    fn data(&mut self, data: &[u8]) {
        self.uint(data.len() as u64);
        self.raw(data);
    }

    /// Appends a length and the text.
    #[inline]
    fn text(&mut self, text: &str) {
        self.data(text.as_bytes());
    }

    /// Appends a presence mark and, behind it, the value when there is one.
    #[inline]
    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Counts what would be written, so that the buffer grows once and a message that cannot be sent leaves no trace in it.
#[derive(Debug, Default)]
pub(crate) struct Length(pub(crate) usize);

impl Sink for Length {
    const CHECKS: bool = true;

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    #[inline]
    fn byte(&mut self, _: u8) {
        self.0 = self.0.saturating_add(1);
    }
}

impl Sink for BytesMut {
    const CHECKS: bool = false;

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.put_u8(byte);
    }
}
