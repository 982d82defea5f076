//! What is counted of calls to servers outside: those of actors, reports to a control plane, and traces.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Words, counters, register};

/// The numbers of all egresses.
#[derive(Debug)]
pub(super) struct Outward {
    families: Families,
    known: RwLock<BTreeMap<String, Arc<EgressMetrics>>>,
}

#[derive(Debug, Default)]
struct Families {
    requests: Named<2, Counter>,
    bytes: Named<2, Counter>,
    in_flight: Named<1, Gauge>,
    switches: Named<1, Counter>,
}

/// Labels of which the first is the name of an egress.
type Named<const N: usize, M> = Family<[(&'static str, Arc<str>); N], M>;

/// The numbers of one egress.
#[derive(Debug)]
pub struct EgressMetrics {
    /// Bytes of request bodies.
    pub bytes_out: Counter,
    /// Bytes of response bodies.
    pub bytes_in: Counter,
    /// Calls under way.
    pub in_flight: Gauge,
    /// How often another backend answered than before.
    pub switches: Counter,
    requests: [Counter; 6],
}

/// How a call of an actor ended, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressCall {
    /// With an answer of this status.
    Answered(u16),
    /// Without an answer, or with one that is not passed on.
    Failed,
    /// It was not made: too many are under way.
    Busy,
}

/// What became of a report to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// It was taken.
    Taken,
    /// It was not, and is tried again.
    Failed,
    /// It is not wanted as it is.
    Refused,
}

/// The numbers of reports to a control plane.
#[derive(Debug)]
pub struct UploadMetrics {
    uploads: [Counter; 3],
    lag_seconds: Gauge<f64, AtomicU64>,
}

/// What became of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanFate {
    /// The collector took them.
    Exported,
    /// It did not.
    Failed,
    /// Too many were waiting.
    Dropped,
}

/// Counts spans that were exported, or were not, by a runner or a gateway.
pub fn count_spans(fate: SpanFate, count: usize) {
    SPANS.1[fate as usize].inc_by(count as u64);
}

/// The spans of this process are part of what is scraped here.
pub(super) fn register_spans(registry: &mut Registry) {
    register(registry, "greenroom_trace_spans_total", SPANS.0.clone());
}

impl Outward {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let families = Families::default();
        register(registry, "greenroom_egress_requests_total", families.requests.clone());
        register(registry, "greenroom_egress_bytes_total", families.bytes.clone());
        register(registry, "greenroom_egress_inflight", families.in_flight.clone());
        register(registry, "greenroom_backend_switches_total", families.switches.clone());
        Outward { families, known: RwLock::default() }
    }

    /// The numbers of an egress; its name is a configured one. Beyond a bound, all further names share theirs.
    pub(super) fn egress(&self, name: &str) -> Arc<EgressMetrics> {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return known.clone();
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let name = if known.len() < NAMES_MAX { name } else { "other" };
        known.entry(name.to_owned()).or_insert_with(|| Arc::new(EgressMetrics::new(name, &self.families))).clone()
    }
}

impl EgressMetrics {
    fn new(name: &str, families: &Families) -> Self {
        let name: Arc<str> = name.into();
        let own = [("egress", name.clone())];
        let with = |label: &'static str, word: &str| [("egress", name.clone()), (label, Arc::from(word))];
        EgressMetrics {
            bytes_out: families.bytes.get_or_create_owned(&with("dir", "out")),
            bytes_in: families.bytes.get_or_create_owned(&with("dir", "in")),
            in_flight: families.in_flight.get_or_create_owned(&own),
            switches: families.switches.get_or_create_owned(&own),
            requests: CODES.map(|code| families.requests.get_or_create_owned(&with("code", code))),
        }
    }

    /// Counts a call.
    pub fn called(&self, call: EgressCall) {
        let place = match call {
            EgressCall::Answered(status @ 200..600) => usize::from(status / 100 - 2),
            EgressCall::Answered(_) | EgressCall::Failed => 4,
            EgressCall::Busy => 5,
        };
        self.requests[place].inc();
    }
}

impl UploadMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let (uploads, lag_seconds) = (Words::<1>::default(), Gauge::default());
        register(registry, "greenroom_state_upload_total", uploads.clone());
        register(registry, "greenroom_state_upload_lag_seconds", Gauge::clone(&lag_seconds));
        UploadMetrics { uploads: counters(&uploads, "result", ["taken", "failed", "refused"]), lag_seconds }
    }

    /// Counts a report; `lag` is how long the oldest change has waited that nobody took.
    pub fn uploaded(&self, upload: Upload, lag: Duration) {
        self.uploads[upload as usize].inc();
        self.lag_seconds.set(lag.as_secs_f64());
    }
}

static SPANS: LazyLock<(Words<1>, [Counter; 3])> = LazyLock::new(|| {
    let family = Words::<1>::default();
    let spans = counters(&family, "result", ["exported", "failed", "dropped"]);
    (family, spans)
});

const CODES: [&str; 6] = ["2xx", "3xx", "4xx", "5xx", "failed", "busy"];
/// Egresses that have numbers of their own; far more than an actors file has.
const NAMES_MAX: usize = 200;
