//! How long the gateway waits, and how often it tries.

use std::time::Duration;

/// How long clients are kept waiting. The defaults are the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How often a request is tried.
    pub request_attempts: u32,
    /// How often a socket is tried to be opened.
    pub socket_attempts: u32,
    /// The wait after the first failed attempt; doubles with each.
    pub first_wait: Duration,
    /// How long an actor may take to begin its response.
    pub response_start: Duration,
    /// How long an actor may take to take or refuse a socket.
    pub socket_open: Duration,
    /// How long a client may pause within a request body.
    pub body_pause: Duration,
    /// How long a client may take to answer a close frame.
    pub close: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            request_attempts: 7,
            socket_attempts: 8,
            first_wait: Duration::from_millis(150),
            response_start: Duration::from_secs(300),
            socket_open: Duration::from_secs(15),
            body_pause: Duration::from_secs(60),
            close: Duration::from_secs(5),
        }
    }
}

impl Patience {
    /// The wait after the given failed attempt, counted from 1.
    pub(super) fn wait_after(&self, attempt: u32) -> Duration {
        self.first_wait.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double() {
        let waits: Vec<_> = (1..=7).map(|attempt| Patience::default().wait_after(attempt).as_millis()).collect();
        assert_eq!(waits, [150, 300, 600, 1200, 2400, 4800, 9600]);
        assert!(Patience::default().wait_after(u32::MAX) > Duration::from_secs(1_000));
    }
}
