//! BARE primitives: numbers, text, data, lists.
//!
//! BARE is strict here where other implementations are lax: a message has exactly one encoding. Numbers are written in
//! the fewest bytes and refused in more, a bool is 0 or 1, a union tag is one byte, a map has no key twice and nothing
//! follows the message. Two ends that read the same bytes can therefore never understand different things.

mod read;
mod repeats;
mod write;

pub(crate) use read::Decoder;
pub(crate) use repeats::first_repeat;
pub(crate) use write::{Length, Sink};

/// Why a received message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct DecodeError {
    /// Offset in the message.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}
