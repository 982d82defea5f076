//! The table of all metrics: what registries are filled from and what `docs/OPERATIONS.md` shows.

use std::fmt::Write;

/// A metric as it is promised: its name does not change.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// As scraped, the unit in the name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, with their values where these are a closed set.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it says, in a line.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// The table of `docs/OPERATIONS.md`.
#[must_use]
pub fn markdown() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for row in TABLE {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = row
            .labels
            .iter()
            .map(
                |(label, values)| if values.is_empty() { format!("`{label}`") } else { format!("`{label}`: {values}") },
            )
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{}` | {kind} | {} | {} |", row.name, labels.join("; "), row.help);
    }
    table
}

const NAME: (&str, &str) = ("name", "");
const ACTOR_STATES: (&str, &str) = ("state", "starting, running, stopping");
const EGRESS: (&str, &str) = ("egress", "");
const DIRECTION: (&str, &str) = ("dir", "in, out");
const KV_OPERATIONS: (&str, &str) = ("op", "get, list, put, delete, delete_range, drop");

const fn counter(
    name: &'static str,
    labels: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> Description {
    Description { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [(&'static str, &'static str)], help: &'static str) -> Description {
    Description { name, kind: Kind::Gauge, labels, help }
}

const fn seconds(
    name: &'static str,
    labels: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> Description {
    Description { name, kind: Kind::Histogram, labels, help }
}

/// All metrics. `name` is the name of a configured actor, or `other`.
pub static TABLE: &[Description] = &[
    gauge("greenroom_build_info", &[("version", "")], "Always 1; the version is in the label"),
    gauge("greenroom_gateway_connected", &[], "1 while the session with the gateway is initialised"),
    counter(
        "greenroom_gateway_connects_total",
        &[("result", "ok, failed")],
        "Attempts to open a session with the gateway",
    ),
    counter("greenroom_gateway_outage_seconds_total", &[], "Time without a session after the first one"),
    seconds(
        "greenroom_gateway_rtt_seconds",
        &[],
        "From a ping to the gateway's pong, measured each half minute; what waits to be sent before it is part of it",
    ),
    gauge("greenroom_actors", &[NAME, ACTOR_STATES], "Actors of this runner that have not ended"),
    counter(
        "greenroom_actor_starts_total",
        &[NAME, ("reason", "create, wake, restart"), ("result", "ok, failed, stopped")],
        "Starts that came to an end: it serves, it failed, or it was stopped before",
    ),
    seconds("greenroom_actor_start_seconds", &[NAME], "From the command to start until the actor serves"),
    counter(
        "greenroom_actor_stops_total",
        &[NAME, ("reason", "sleep, destroy, stop, drain, lost, replaced, none"), ("code", "ok, error")],
        "Lives that ended; the reason is `none` when nobody told the actor to stop",
    ),
    counter(
        "greenroom_child_exits_total",
        &[NAME, ("kind", "ok, code, signal, killed, oom, unknown")],
        "Ends of child processes: by code 0, by another code, by a signal, killed by us, or SIGKILL that we did not send",
    ),
    gauge("greenroom_slots", &[("kind", "used, total")], "Slots of this runner"),
    counter(
        "greenroom_tunnel_requests_total",
        &[NAME, ("code", "1xx, 2xx, 3xx, 4xx, 5xx, aborted")],
        "Client requests that ended; aborted ones had no complete response",
    ),
    seconds("greenroom_tunnel_request_seconds", &[NAME], "From a request's arrival to the end of its response"),
    gauge("greenroom_tunnel_inflight", &[NAME], "Client requests being served"),
    counter("greenroom_tunnel_bytes_total", &[DIRECTION], "Bytes of bodies and frames; in is towards the actors"),
    gauge("greenroom_ws_connections", &[NAME, ("state", "live")], "Client sockets that an awake actor serves"),
    counter("greenroom_ws_messages_total", &[DIRECTION], "Frames of client sockets; in is towards the actors"),
    gauge(
        "greenroom_ws_unacked_messages",
        &[],
        "Frames of client sockets that outlive their actor's sleep, which the actor has not taken yet, so that the \
         gateway keeps them",
    ),
    counter(
        "greenroom_kv_ops_total",
        &[KV_OPERATIONS, ("result", "ok, refused, unavailable, outcome_unknown, stale, too_many")],
        "Storage requests of actors that were answered",
    ),
    seconds("greenroom_kv_op_seconds", &[("op", KV_OPERATIONS.1)], "From a storage request to its answer"),
    gauge("greenroom_event_backlog", &[], "Events about actors that the gateway has not acknowledged"),
    counter("greenroom_events_total", &[], "Events about actors sent to the gateway"),
    counter("greenroom_event_resends_total", &[], "Events sent again because they were not acknowledged"),
    counter("greenroom_alarm_changes_total", &[], "Changes of the one alarm that the gateway keeps for an actor"),
    gauge("greenroom_alarms_pending", &[], "Alarms of awake actors that are still to be told"),
    seconds(
        "greenroom_alarm_lateness_seconds",
        &[],
        "From an alarm's time to its first telling; the start of a sleeping actor is part of it",
    ),
    counter(
        "greenroom_egress_requests_total",
        &[EGRESS, ("code", "2xx, 3xx, 4xx, 5xx, failed, busy")],
        "Calls of actors to servers outside; failed ones had no answer that is passed on, busy ones were not made",
    ),
    counter(
        "greenroom_egress_bytes_total",
        &[EGRESS, ("dir", "out, in")],
        "Bytes of bodies; out is towards the server",
    ),
    gauge("greenroom_egress_inflight", &[EGRESS], "Calls of actors to servers outside that have not ended"),
    counter(
        "greenroom_backend_switches_total",
        &[EGRESS],
        "How often an actor or job was answered by another backend than before",
    ),
    counter("greenroom_state_upload_total", &[("result", "taken, failed, refused")], "Reports to the control plane"),
    gauge(
        "greenroom_state_upload_lag_seconds",
        &[],
        "How long the oldest change had waited that no control plane had taken, after the last report",
    ),
    counter(
        "greenroom_config_reloads_total",
        &[("result", "ok, refused")],
        "Reloads; refused ones left everything as it was",
    ),
    counter(
        "greenroom_queue_drops_total",
        &[("queue", "streams, request_body, websocket")],
        "Requests and sockets ended because a bounded queue was full",
    ),
    counter(
        "greenroom_actor_log_lines_total",
        &[NAME, ("source", "stdout, stderr")],
        "Lines that child processes wrote",
    ),
    counter(
        "greenroom_log_records_total",
        &[("level", "error, warn, info, debug, trace")],
        "Records written to the log",
    ),
    counter("greenroom_log_dropped_total", &[], "Records that could not be written"),
    gauge(
        "greenroom_gateway_actors",
        &[("phase", "placed, waiting")],
        "Gateway: actors that are awake or on their way, and those that wait for a free slot",
    ),
    gauge("greenroom_gateway_runners", &[], "Gateway: connected runners"),
    gauge(
        "greenroom_gateway_streams",
        &[("state", "open, waiting")],
        "Gateway: client requests and sockets, and those that wait for their actor",
    ),
    gauge("greenroom_gateway_hibernating_sockets", &[], "Gateway: client sockets held for sleeping actors"),
    counter("greenroom_gateway_commits_total", &[("result", "ok, failed")], "Gateway: commits to disk"),
    counter(
        "greenroom_gateway_commit_jobs_total",
        &[],
        "Gateway: requests and changes in commits; by the number of commits, this is the size of a batch",
    ),
    seconds("greenroom_gateway_commit_seconds", &[], "Gateway: duration of a commit, sync included"),
    counter(
        "greenroom_gateway_kv_ops_total",
        &[KV_OPERATIONS, ("result", "ok, refused")],
        "Gateway: storage requests of actors",
    ),
    counter(
        "greenroom_gateway_rejected_requests_total",
        &[("reason", "actor, runner, overload, invalid, forbidden, timeout, other")],
        "Gateway: client requests answered by the gateway instead of an actor",
    ),
    counter(
        "greenroom_trace_spans_total",
        &[("result", "exported, failed, dropped")],
        "Spans of requests; failed ones the collector did not take, dropped ones found the queue full",
    ),
    gauge("greenroom_runtime_workers", &[], "Threads that run the daemon's own work"),
    gauge("greenroom_runtime_tasks", &[], "Tasks of the daemon"),
    gauge("greenroom_runtime_queued_tasks", &[], "Tasks that wait for a thread"),
    counter("process_cpu_seconds_total", &[], "Processor time of this process"),
    gauge("process_resident_memory_bytes", &[], "Memory of this process"),
    gauge("process_start_time_seconds", &[], "When this process started, in seconds since the epoch"),
    gauge("process_threads", &[], "Threads of this process"),
    gauge("process_open_fds", &[], "Open file descriptors of this process"),
    gauge("process_max_fds", &[], "The most file descriptors this process may open"),
];
