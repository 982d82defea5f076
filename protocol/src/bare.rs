//! BARE primitives.

/// Why a received message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct DecodeError {
    /// Offset in the message.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}
