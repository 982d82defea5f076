//! What a runner counts.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use greenroom_protocol::KvRequest;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::outward::{self, EgressMetrics, Outward, UploadMetrics};
use super::process::ProcessCollector;
use super::runtime::RuntimeCollector;
use super::{Format, Seconds, Words, counters, encode, register};

/// The numbers of the runners in a process.
#[derive(Debug)]
pub struct RunnerMetrics {
    /// 1 while the session is initialised.
    pub connected: Gauge,
    /// Sessions that were initialised.
    pub connects: Counter,
    /// Sessions that were not.
    pub failed_connects: Counter,
    /// Slots with an actor.
    pub slots_used: Gauge,
    /// All slots.
    pub slots_total: Gauge,
    /// Bytes towards the actors.
    pub bytes_in: Counter,
    /// Bytes from the actors.
    pub bytes_out: Counter,
    /// Frames towards the actors.
    pub messages_in: Counter,
    /// Frames from the actors.
    pub messages_out: Counter,
    /// Events that the gateway has not acknowledged.
    pub event_backlog: Gauge,
    /// Events sent.
    pub events: Counter,
    /// Events sent again.
    pub event_resends: Counter,
    /// Alarms set or cleared.
    pub alarm_changes: Counter,
    /// Alarms of awake actors that are still to be told.
    pub alarms_pending: Gauge,
    /// How much later than set alarms are told.
    pub alarm_lateness: Seconds,
    /// How long the gateway takes to answer a ping.
    pub round_trip: Seconds,
    /// Frames of client sockets that were not acknowledged to the gateway.
    pub unacked_messages: Gauge,
    /// Reports to the control plane.
    pub uploads: UploadMetrics,
    /// Records that could not be written.
    pub log_dropped: Counter,
    outage_seconds: Counter<f64, AtomicU64>,
    overruns: [Counter; 3],
    log_records: [Counter; 5],
    kv: [KvMetrics; 6],
    reloads: [Counter; 2],
    outward: Outward,
    families: Families,
    other: Arc<ActorMetrics>,
    known: RwLock<BTreeMap<Arc<str>, Arc<ActorMetrics>>>,
    registry: Registry,
}

/// The numbers of the actors of one name. Resolved once for a life, then counting takes no lock.
#[derive(Debug)]
pub struct ActorMetrics {
    /// Requests being served.
    pub inflight: Gauge,
    /// How long requests take.
    pub request_seconds: Seconds,
    /// How long starts take.
    pub start_seconds: Seconds,
    /// Sockets that an awake actor serves.
    pub sockets: Gauge,
    requests: [Counter; 6],
    states: [Gauge; 3],
    log_lines: [Counter; 2],
    exits: [Counter; 6],
    name: Arc<str>,
    starts: Names<3, Counter>,
    stops: Names<3, Counter>,
}

/// Labels of which the first is an actor's name.
type Names<const N: usize, M> = Family<[(&'static str, Arc<str>); N], M>;

#[derive(Debug, Default)]
struct Families {
    states: Names<2, Gauge>,
    starts: Names<3, Counter>,
    start_seconds: Names<1, Seconds>,
    stops: Names<3, Counter>,
    exits: Names<2, Counter>,
    requests: Names<2, Counter>,
    request_seconds: Names<1, Seconds>,
    inflight: Names<1, Gauge>,
    sockets: Names<2, Gauge>,
    log_lines: Names<2, Counter>,
}

#[derive(Debug)]
struct KvMetrics {
    results: [Counter; 6],
    seconds: Seconds,
}

/// Where an actor's life is.
#[expect(missing_docs, reason = "the words say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Starting,
    Running,
    Stopping,
}

/// How a child process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildExit {
    /// With code 0.
    Ok,
    /// With another code.
    Code,
    /// By a signal that was not SIGKILL.
    Signal,
    /// By our SIGKILL.
    Killed,
    /// By a SIGKILL that was not ours: running out of memory looks like this.
    Oom,
    /// Nobody knows.
    Unknown,
}

/// Which stream of a child process.
#[expect(missing_docs, reason = "the words say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// What an actor asks of its storage.
#[expect(missing_docs, reason = "the words say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvOperation {
    Get,
    List,
    Put,
    Delete,
    DeleteRange,
    Drop,
}

impl From<&KvRequest> for KvOperation {
    fn from(request: &KvRequest) -> Self {
        match request {
            KvRequest::Get { .. } => KvOperation::Get,
            KvRequest::List { .. } => KvOperation::List,
            KvRequest::Put { .. } => KvOperation::Put,
            KvRequest::Delete { .. } => KvOperation::Delete,
            KvRequest::DeleteRange { .. } => KvOperation::DeleteRange,
            KvRequest::Drop => KvOperation::Drop,
        }
    }
}

/// How a storage request ended.
#[expect(missing_docs, reason = "the words say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvResult {
    Ok,
    Refused,
    Unavailable,
    OutcomeUnknown,
    Stale,
    TooMany,
}

/// A bounded queue that was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// All places for requests and sockets of the runner.
    Streams,
    /// Pieces of a request's body that wait for an actor.
    RequestBody,
    /// Frames that wait for an actor.
    WebSocket,
}

impl RunnerMetrics {
    /// Names these actors from now on; any other name counts as `other`.
    pub fn know(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if known.len() >= NAMES_MAX {
                return;
            }
            let metrics = || Arc::new(ActorMetrics::new(name.clone(), &self.families));
            known.entry(name.clone()).or_insert_with(metrics);
        }
    }

    /// The numbers of the actors of a name.
    #[must_use]
    pub fn actor(&self, name: &str) -> Arc<ActorMetrics> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).unwrap_or(&self.other).clone()
    }

    /// Counts a time without a session.
    pub fn outage(&self, duration: Duration) {
        self.outage_seconds.inc_by(duration.as_secs_f64());
    }

    /// Counts a storage request that was answered.
    pub fn kv(&self, operation: KvOperation, result: KvResult, took: Duration) {
        let metrics = &self.kv[operation as usize];
        metrics.results[result as usize].inc();
        metrics.seconds.observe(took);
    }

    /// Counts what a full queue cost.
    pub fn overrun(&self, queue: Overrun) {
        self.overruns[queue as usize].inc();
    }

    /// The numbers of an egress of this name.
    #[must_use]
    pub fn egress(&self, name: &str) -> Arc<EgressMetrics> {
        self.outward.egress(name)
    }

    /// Counts a reload that was applied, or one that changed nothing because of a mistake.
    pub fn reloaded(&self, applied: bool) {
        self.reloads[usize::from(!applied)].inc();
    }

    /// Counts a record of the log.
    pub fn log_record(&self, level: &tracing::Level) {
        let level = match *level {
            tracing::Level::ERROR => 0,
            tracing::Level::WARN => 1,
            tracing::Level::INFO => 2,
            tracing::Level::DEBUG => 3,
            _ => 4,
        };
        self.log_records[level].inc();
    }

    /// Everything, as a scraper reads it.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        encode(&self.registry, format)
    }
}

impl Default for RunnerMetrics {
    fn default() -> Self {
        let families = Families::default();
        let mut registry = Registry::default();
        let build: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        register(&mut registry, "greenroom_build_info", build);
        let (connected, event_backlog) = (Gauge::default(), Gauge::default());
        register(&mut registry, "greenroom_gateway_connected", connected.clone());
        register(&mut registry, "greenroom_event_backlog", event_backlog.clone());
        let outage_seconds: Counter<f64, AtomicU64> = Counter::default();
        register(&mut registry, "greenroom_gateway_outage_seconds_total", outage_seconds.clone());
        let slots: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
        register(&mut registry, "greenroom_slots", slots.clone());
        let [connects, failed_connects] =
            words(&mut registry, "greenroom_gateway_connects_total", "result", ["ok", "failed"]);
        let [bytes_in, bytes_out] = words(&mut registry, "greenroom_tunnel_bytes_total", "dir", ["in", "out"]);
        let [messages_in, messages_out] = words(&mut registry, "greenroom_ws_messages_total", "dir", ["in", "out"]);
        let queues = ["streams", "request_body", "websocket"];
        let overruns = words(&mut registry, "greenroom_queue_drops_total", "queue", queues);
        let levels = ["error", "warn", "info", "debug", "trace"];
        let log_records = words(&mut registry, "greenroom_log_records_total", "level", levels);
        let mut counter = |name| {
            let counter: Counter = Counter::default();
            register(&mut registry, name, counter.clone());
            counter
        };
        let (events, event_resends) = (counter("greenroom_events_total"), counter("greenroom_event_resends_total"));
        let (alarm_changes, log_dropped) =
            (counter("greenroom_alarm_changes_total"), counter("greenroom_log_dropped_total"));
        let (alarms_pending, unacked_messages) = (Gauge::default(), Gauge::default());
        register(&mut registry, "greenroom_alarms_pending", alarms_pending.clone());
        register(&mut registry, "greenroom_ws_unacked_messages", unacked_messages.clone());
        let (alarm_lateness, round_trip) = (Seconds::default(), Seconds::default());
        register(&mut registry, "greenroom_alarm_lateness_seconds", alarm_lateness.clone());
        register(&mut registry, "greenroom_gateway_rtt_seconds", round_trip.clone());
        let reloads = words(&mut registry, "greenroom_config_reloads_total", "result", ["ok", "refused"]);
        outward::register_spans(&mut registry);
        let uploads = UploadMetrics::new(&mut registry);
        let outward = Outward::new(&mut registry);
        let (kv_operations, kv_seconds): (Words<2>, Family<_, Seconds>) = Default::default();
        register(&mut registry, "greenroom_kv_ops_total", kv_operations.clone());
        register(&mut registry, "greenroom_kv_op_seconds", kv_seconds.clone());
        let kv = KV_OPERATIONS.map(|operation| KvMetrics {
            results: KV_RESULTS
                .map(|result| kv_operations.get_or_create_owned(&[("op", operation), ("result", result)])),
            seconds: kv_seconds.get_or_create_owned(&[("op", operation)]),
        });
        families.register(&mut registry);
        registry.register_collector(Box::new(ProcessCollector));
        registry.register_collector(Box::new(RuntimeCollector));
        RunnerMetrics {
            connected,
            connects,
            failed_connects,
            slots_used: slots.get_or_create_owned(&[("kind", "used")]),
            slots_total: slots.get_or_create_owned(&[("kind", "total")]),
            bytes_in,
            bytes_out,
            messages_in,
            messages_out,
            event_backlog,
            events,
            event_resends,
            alarm_changes,
            alarms_pending,
            alarm_lateness,
            round_trip,
            unacked_messages,
            uploads,
            reloads,
            outward,
            log_dropped,
            outage_seconds,
            overruns,
            log_records,
            kv,
            other: Arc::new(ActorMetrics::new("other".into(), &families)),
            families,
            known: RwLock::default(),
            registry,
        }
    }
}

impl ActorMetrics {
    fn new(name: Arc<str>, families: &Families) -> Self {
        let own = [("name", name.clone())];
        let with = |label: &'static str, word: &str| [("name", name.clone()), (label, Arc::from(word))];
        ActorMetrics {
            inflight: families.inflight.get_or_create_owned(&own),
            request_seconds: families.request_seconds.get_or_create_owned(&own),
            start_seconds: families.start_seconds.get_or_create_owned(&own),
            sockets: families.sockets.get_or_create_owned(&with("state", "live")),
            requests: CODES.map(|code| families.requests.get_or_create_owned(&with("code", code))),
            states: STATES.map(|state| families.states.get_or_create_owned(&with("state", state))),
            log_lines: SOURCES.map(|source| families.log_lines.get_or_create_owned(&with("source", source))),
            exits: EXITS.map(|kind| families.exits.get_or_create_owned(&with("kind", kind))),
            starts: families.starts.clone(),
            stops: families.stops.clone(),
            name: name.clone(),
        }
    }

    /// Counts a start that came to an end.
    pub fn started(&self, reason: &'static str, result: &'static str) {
        let labels = [("name", self.name.clone()), ("reason", reason.into()), ("result", result.into())];
        self.starts.get_or_create(&labels).inc();
    }

    /// Counts a life that ended.
    pub fn stopped(&self, reason: &'static str, code: &'static str) {
        let labels = [("name", self.name.clone()), ("reason", reason.into()), ("code", code.into())];
        self.stops.get_or_create(&labels).inc();
    }

    /// Counts the end of a child process.
    pub fn child_exit(&self, exit: ChildExit) {
        self.exits[exit as usize].inc();
    }

    /// Counts a request that ended: with this status, or without a complete response.
    pub fn request_ended(&self, status: Option<u16>, took: Duration) {
        let class = match status {
            Some(status @ 100..600) => usize::from(status / 100 - 1),
            Some(_) | None => CODES.len() - 1,
        };
        self.requests[class].inc();
        self.request_seconds.observe(took);
    }

    /// Counts a line that a child process wrote.
    pub fn log_line(&self, source: Source) {
        self.log_lines[source as usize].inc();
    }

    /// How many actors of the name are in a state.
    #[must_use]
    pub fn state(&self, state: State) -> &Gauge {
        &self.states[state as usize]
    }
}

impl State {
    /// The word for people and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        STATES[self as usize]
    }
}

impl Families {
    fn register(&self, registry: &mut Registry) {
        register(registry, "greenroom_actors", self.states.clone());
        register(registry, "greenroom_actor_starts_total", self.starts.clone());
        register(registry, "greenroom_actor_start_seconds", self.start_seconds.clone());
        register(registry, "greenroom_actor_stops_total", self.stops.clone());
        register(registry, "greenroom_child_exits_total", self.exits.clone());
        register(registry, "greenroom_tunnel_requests_total", self.requests.clone());
        register(registry, "greenroom_tunnel_request_seconds", self.request_seconds.clone());
        register(registry, "greenroom_tunnel_inflight", self.inflight.clone());
        register(registry, "greenroom_ws_connections", self.sockets.clone());
        register(registry, "greenroom_actor_log_lines_total", self.log_lines.clone());
    }
}

fn words<const N: usize>(
    registry: &mut Registry,
    name: &'static str,
    label: &'static str,
    words: [&'static str; N],
) -> [Counter; N] {
    let family = Words::<1>::default();
    register(registry, name, family.clone());
    counters(&family, label, words)
}

const STATES: [&str; 3] = ["starting", "running", "stopping"];
const SOURCES: [&str; 2] = ["stdout", "stderr"];
const EXITS: [&str; 6] = ["ok", "code", "signal", "killed", "oom", "unknown"];
const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];
const KV_OPERATIONS: [&str; 6] = ["get", "list", "put", "delete", "delete_range", "drop"];
const KV_RESULTS: [&str; 6] = ["ok", "refused", "unavailable", "outcome_unknown", "stale", "too_many"];

/// Configured names that have numbers of their own; far more than an actors file has.
const NAMES_MAX: usize = 1000;
