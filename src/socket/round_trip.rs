//! How long the gateway's end of a socket takes to answer, measured by pings of the WebSocket itself.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::telemetry::metrics;

/// The pings of one socket. At most one is waited for.
#[derive(Debug)]
pub(super) struct RoundTrip {
    every: Duration,
    due: Instant,
    asked: Option<Instant>,
    count: u64,
}

impl RoundTrip {
    /// The first ping comes after this time, too: what lasts shorter is not worth a question.
    pub(super) fn every(every: Duration) -> Self {
        RoundTrip { every, due: Instant::now() + every, asked: None, count: 0 }
    }

    /// When to ask next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The next ping's payload. An answer to an earlier one does not count any more.
    pub(super) fn ask(&mut self) -> Bytes {
        let now = Instant::now();
        self.count += 1;
        (self.asked, self.due) = (Some(now), now + self.every);
        self.count.to_be_bytes().to_vec().into()
    }

    /// Notes an answer, if it is the one that is waited for.
    pub(super) fn answered(&mut self, payload: &[u8]) {
        if payload == self.count.to_be_bytes()
            && let Some(asked) = self.asked.take()
        {
            metrics::runner().round_trip.observe(asked.elapsed());
        }
    }
}
