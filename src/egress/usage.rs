//! What was called, counted: for this process's own eyes, and for Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OwnedSemaphorePermit;

use crate::telemetry::metrics::{self, EgressCall, EgressMetrics};

/// What went through an egress since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls that were let through.
    pub requests: u64,
    /// Calls that got no answer; error statuses of the server are answers.
    pub errors: u64,
    /// Bytes of request bodies.
    pub bytes_sent: u64,
    /// Bytes of response bodies.
    pub bytes_received: u64,
}

#[derive(Debug)]
pub(super) struct Counters {
    requests: AtomicU64,
    errors: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    metrics: Arc<EgressMetrics>,
}

/// A call's place among those under way. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<EgressMetrics>,
}

impl Counters {
    pub(super) fn new(egress: &str) -> Self {
        let zero = AtomicU64::default;
        let metrics = metrics::runner().egress(egress);
        Counters { requests: zero(), errors: zero(), sent: zero(), received: zero(), metrics }
    }

    /// A call that was let through had an answer of this status, or none.
    pub(super) fn called(&self, status: Option<u16>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(status.is_none()), Ordering::Relaxed);
        self.metrics.called(status.map_or(EgressCall::Failed, EgressCall::Answered));
    }

    /// A call found no place.
    pub(super) fn busy(&self) {
        self.metrics.called(EgressCall::Busy);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.metrics.bytes_out.inc_by(bytes as u64);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.metrics.bytes_in.inc_by(bytes as u64);
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            bytes_received: self.received.load(Ordering::Relaxed),
        }
    }
}

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit, counters: &Counters) -> Self {
        counters.metrics.in_flight.inc();
        Place { _permit: permit, metrics: counters.metrics.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}
