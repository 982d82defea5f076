//! Records to store, with everything filled in.

use bytes::Bytes;
use greenroom::store::{ActorRecord, CrashPolicy, Phase, RunnerRecord};

/// An actor of name `counter` in namespace `ns`.
pub fn actor(id: &str) -> ActorRecord {
    ActorRecord {
        id: id.into(),
        namespace_id: "ns".into(),
        name: "counter".into(),
        key: None,
        pool: "default".into(),
        crash_policy: CrashPolicy::Sleep,
        input: Some(Bytes::from_static(b"input")),
        phase: Phase::Running,
        generation: 3,
        runner_id: Some("runner".into()),
        next_command: 4,
        command_acknowledged: true,
        last_event: Some(5),
        alarm_at: None,
        wake_after_stop: true,
        restarts: 6,
        error: None,
        create_ts: 1_000,
        start_ts: Some(1_001),
        pending_allocation_ts: Some(1_002),
        connectable_ts: Some(1_003),
        sleep_ts: None,
        reschedule_ts: None,
        destroy_ts: None,
    }
}

/// A runner of pool `default` in namespace `ns`.
pub fn runner(id: &str) -> RunnerRecord {
    RunnerRecord {
        id: id.into(),
        namespace_id: "ns".into(),
        pool: "default".into(),
        key: "key".into(),
        version: 2,
        total_slots: 3,
        metadata: "{}".into(),
        create_ts: 1_000,
        last_connected_ts: 1_001,
        last_ping_ts: 1_002,
        drain_ts: None,
        stop_ts: None,
    }
}
