//! The names of log fields, for people who search logs: each means the same wherever it stands.
//!
//! Units are a suffix. A record's fields are its own and those of the spans around it.
//!
//! ```
//! use greenroom::telemetry::fields;
//! tracing::info!({ fields::REASON } = "drain", "stopping actor");
//! ```

/// The actor's id at the gateway.
pub const ACTOR_ID: &str = "actor_id";
/// The actor's name: which code it runs.
pub const ACTOR_NAME: &str = "actor_name";
/// Which life of the actor.
pub const GENERATION: &str = "generation";
/// The runner's id at the gateway.
pub const RUNNER_ID: &str = "runner_id";
/// One connection of a runner to its gateway.
pub const SESSION: &str = "session";
/// The gateway a runner is connected to.
pub const ENDPOINT: &str = "endpoint";
/// A namespace at the gateway.
pub const NAMESPACE: &str = "namespace";
/// One client request or socket.
pub const STREAM: &str = "stream";
/// One client request or socket, as the client was told: `x-rivet-ray-id`.
pub const RAY: &str = "ray";
/// The W3C trace that a request belongs to.
pub const TRACE_ID: &str = "trace_id";
/// The address something listens on, or a peer's.
pub const ADDRESS: &str = "address";
/// The process id of an actor.
pub const PID: &str = "pid";
/// `stdout` or `stderr` of an actor.
pub const SOURCE: &str = "source";
/// What an actor wrote: one line.
pub const LINE: &str = "line";
/// Why it happened.
pub const REASON: &str = "reason";
/// What went wrong.
pub const ERROR: &str = "error";
/// Which try this is, from 1.
pub const ATTEMPT: &str = "attempt";
/// How long until the next try, in milliseconds.
pub const DELAY_MS: &str = "delay_ms";
/// How long it took, in milliseconds.
pub const ELAPSED_MS: &str = "elapsed_ms";
/// How many there are.
pub const COUNT: &str = "count";
/// How many more times the same record came within ten seconds and was not written.
pub const REPEATED: &str = "repeated";
/// A size, in bytes.
pub const BYTES: &str = "bytes";
/// The setting that a record is about.
pub const SETTING: &str = "setting";
/// A path of the file system.
pub const PATH: &str = "path";
/// The signal that was received.
pub const SIGNAL: &str = "signal";
