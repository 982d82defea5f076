//! What a gateway counts.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::outward;
use super::process::ProcessCollector;
use super::runtime::RuntimeCollector;
use super::{Format, KvOperation, Seconds, Words, counters, encode, register};

/// The numbers of the gateways in a process.
#[derive(Debug)]
pub struct GatewayMetrics {
    commits: [Counter; 2],
    commit_seconds: Seconds,
    commit_jobs: Counter,
    kv: [[Counter; 2]; 6],
    rejected: [Counter; 7],
    placed: Gauge,
    waiting: Gauge,
    runners: Gauge,
    streams: Gauge,
    waiting_streams: Gauge,
    hibernating_sockets: Gauge,
    registry: Registry,
}

/// What a gateway looks up when it is asked, instead of counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayNumbers {
    /// Actors that are awake or on their way, on a runner.
    pub placed: usize,
    /// Actors that wait for a free slot.
    pub waiting: usize,
    /// Runners with a connection.
    pub runners: usize,
    /// Open streams between clients and actors.
    pub streams: usize,
    /// Streams that wait for their actor.
    pub waiting_streams: usize,
    /// Client sockets held for sleeping actors.
    pub hibernating_sockets: usize,
}

/// Why a client's request did not reach an actor, or got no answer from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such actor, or it crashed, or it is being destroyed.
    Actor,
    /// No runner has room, or its runner went away.
    Runner,
    /// A bound of the gateway is reached.
    Overload,
    /// The request is not right.
    Invalid,
    /// The token is missing or wrong.
    Forbidden,
    /// The actor was not ready, or did not answer, in time.
    Timeout,
    /// Anything else.
    Other,
}

impl GatewayMetrics {
    /// Counts a commit of this many requests and changes.
    pub fn commit(&self, ok: bool, jobs: usize, took: Duration) {
        self.commit_jobs.inc_by(jobs as u64);
        self.commits[usize::from(!ok)].inc();
        self.commit_seconds.observe(took);
    }

    /// Counts a storage request.
    pub fn kv(&self, operation: KvOperation, refused: bool) {
        self.kv[operation as usize][usize::from(refused)].inc();
    }

    /// Counts a request that the gateway answered in the actor's place.
    pub fn rejected(&self, reason: Rejection) {
        self.rejected[reason as usize].inc();
    }

    /// Everything, as a scraper reads it.
    #[must_use]
    pub fn encode(&self, numbers: GatewayNumbers, format: Format) -> String {
        let set = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.placed, numbers.placed);
        set(&self.waiting, numbers.waiting);
        set(&self.runners, numbers.runners);
        set(&self.streams, numbers.streams);
        set(&self.waiting_streams, numbers.waiting_streams);
        set(&self.hibernating_sockets, numbers.hibernating_sockets);
        encode(&self.registry, format)
    }
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let build = Gauges::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        register(&mut registry, "greenroom_build_info", build);
        let commits = Words::<1>::default();
        register(&mut registry, "greenroom_gateway_commits_total", commits.clone());
        let commit_seconds = Seconds::default();
        register(&mut registry, "greenroom_gateway_commit_seconds", commit_seconds.clone());
        let commit_jobs = Counter::default();
        register(&mut registry, "greenroom_gateway_commit_jobs_total", Counter::clone(&commit_jobs));
        let kv = Words::<2>::default();
        register(&mut registry, "greenroom_gateway_kv_ops_total", kv.clone());
        let rejected = Words::<1>::default();
        register(&mut registry, "greenroom_gateway_rejected_requests_total", rejected.clone());
        let (phases, streams) = (Gauges::default(), Gauges::default());
        register(&mut registry, "greenroom_gateway_actors", phases.clone());
        register(&mut registry, "greenroom_gateway_streams", streams.clone());
        let (runners, hibernating_sockets) = (Gauge::default(), Gauge::default());
        register(&mut registry, "greenroom_gateway_runners", runners.clone());
        register(&mut registry, "greenroom_gateway_hibernating_sockets", hibernating_sockets.clone());
        outward::register_spans(&mut registry);
        registry.register_collector(Box::new(ProcessCollector));
        registry.register_collector(Box::new(RuntimeCollector));
        let operations = ["get", "list", "put", "delete", "delete_range", "drop"];
        let reasons = ["actor", "runner", "overload", "invalid", "forbidden", "timeout", "other"];
        GatewayMetrics {
            commits: counters(&commits, "result", ["ok", "failed"]),
            commit_seconds,
            commit_jobs,
            kv: operations.map(|operation| {
                ["ok", "refused"].map(|result| kv.get_or_create_owned(&[("op", operation), ("result", result)]))
            }),
            rejected: counters(&rejected, "reason", reasons),
            placed: phases.get_or_create_owned(&[("phase", "placed")]),
            waiting: phases.get_or_create_owned(&[("phase", "waiting")]),
            streams: streams.get_or_create_owned(&[("state", "open")]),
            waiting_streams: streams.get_or_create_owned(&[("state", "waiting")]),
            runners,
            hibernating_sockets,
            registry,
        }
    }
}

/// Gauges with one label of a closed set.
type Gauges = Family<[(&'static str, &'static str); 1], Gauge>;
