//! Actor records in SQL.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Params, Result, Row, named_params, params};

use crate::store::{ActorError, ActorRecord, CrashPolicy, Phase};

/// A part of a list that answers newest first.
#[derive(Clone, Copy)]
pub(super) struct Page {
    pub created_before: Option<i64>,
    pub limit: usize,
}

impl Page {
    pub(super) fn before(self) -> i64 {
        self.created_before.unwrap_or(i64::MAX)
    }

    pub(super) fn limit(self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX)
    }
}

/// Writes a record over the one with its id.
pub(super) fn put(connection: &Connection, actor: &ActorRecord) -> Result<()> {
    let (error_kind, error_detail) = error_columns(actor.error.as_ref());
    let num: i64 = connection.prepare_cached(PUT)?.query_row(
        named_params! {
            ":id": actor.id,
            ":namespace_id": actor.namespace_id,
            ":name": actor.name,
            ":key": actor.key,
            ":pool": actor.pool,
            ":crash_policy": crash_policy_number(actor.crash_policy),
            ":phase": phase_number(actor.phase),
            ":generation": actor.generation,
            ":runner_id": actor.runner_id,
            ":next_command": actor.next_command,
            ":command_acknowledged": actor.command_acknowledged,
            ":last_event": actor.last_event,
            ":alarm_at": actor.alarm_at,
            ":wake_after_stop": actor.wake_after_stop,
            ":restarts": actor.restarts,
            ":error_kind": error_kind,
            ":error_detail": error_detail,
            ":create_ts": actor.create_ts,
            ":start_ts": actor.start_ts,
            ":pending_allocation_ts": actor.pending_allocation_ts,
            ":connectable_ts": actor.connectable_ts,
            ":sleep_ts": actor.sleep_ts,
            ":reschedule_ts": actor.reschedule_ts,
            ":destroy_ts": actor.destroy_ts,
        },
        |row| row.get(0),
    )?;
    match &actor.input {
        // Comparing first: an input of megabytes is not written again with every change of state.
        Some(input) => connection
            .prepare_cached(
                "INSERT INTO actor_input (num, input) VALUES (?1, ?2) \
                 ON CONFLICT (num) DO UPDATE SET input = excluded.input WHERE input IS NOT excluded.input",
            )?
            .execute(params![num, &input[..]])?,
        None => connection.prepare_cached("DELETE FROM actor_input WHERE num = ?1")?.execute([num])?,
    };
    Ok(())
}

pub(super) fn by_id(connection: &Connection, id: &str) -> Result<Option<Box<ActorRecord>>> {
    one(connection, BY_ID, [id])
}

pub(super) fn by_key(
    connection: &Connection,
    namespace_id: &str,
    name: &str,
    key: &str,
) -> Result<Option<Box<ActorRecord>>> {
    one(connection, BY_KEY, [namespace_id, name, key])
}

pub(super) fn list(
    connection: &Connection,
    namespace_id: &str,
    name: &str,
    key: Option<&str>,
    include_destroyed: bool,
    page: Page,
) -> Result<Vec<ActorRecord>> {
    let params = params![namespace_id, name, key, page.before(), page.limit()];
    let tail = list_of(key.is_some(), include_destroyed);
    connection.prepare_cached(&format!("{SELECT_WITHOUT_INPUT} {tail}"))?.query_map(params, record)?.collect()
}

pub(super) fn awake(connection: &Connection) -> Result<Vec<ActorRecord>> {
    many(connection, AWAKE, [])
}

pub(super) fn due(connection: &Connection, now_ms: i64) -> Result<Vec<ActorRecord>> {
    many(connection, DUE, [now_ms])
}

pub(super) fn next_alarm(connection: &Connection) -> Result<Option<i64>> {
    connection.prepare_cached(NEXT_ALARM)?.query_row([], |row| row.get(0))
}

fn one(connection: &Connection, tail: &str, params: impl Params) -> Result<Option<Box<ActorRecord>>> {
    connection
        .prepare_cached(&format!("{SELECT} {tail}"))?
        .query_row(params, |row| record(row).map(Box::new))
        .optional()
}

fn many(connection: &Connection, tail: &str, params: impl Params) -> Result<Vec<ActorRecord>> {
    connection.prepare_cached(&format!("{SELECT} {tail}"))?.query_map(params, record)?.collect()
}

/// Reads the columns of `columns!` by their place: looking them up by name was most of the time it took to start with
/// many actors.
fn record(row: &Row<'_>) -> Result<ActorRecord> {
    Ok(ActorRecord {
        id: row.get(0)?,
        namespace_id: row.get(1)?,
        name: row.get(2)?,
        key: row.get(3)?,
        pool: row.get(4)?,
        crash_policy: crash_policy(row.get(5)?).ok_or_else(|| unknown("crash_policy"))?,
        input: row.get_ref(24)?.as_blob_or_null()?.map(Bytes::copy_from_slice),
        phase: phase(row.get(6)?).ok_or_else(|| unknown("phase"))?,
        generation: row.get(7)?,
        runner_id: row.get(8)?,
        next_command: row.get(9)?,
        command_acknowledged: row.get(10)?,
        last_event: row.get(11)?,
        alarm_at: row.get(12)?,
        wake_after_stop: row.get(13)?,
        restarts: row.get(14)?,
        error: error(row.get(15)?, row.get(16)?)?,
        create_ts: row.get(17)?,
        start_ts: row.get(18)?,
        pending_allocation_ts: row.get(19)?,
        connectable_ts: row.get(20)?,
        sleep_ts: row.get(21)?,
        reschedule_ts: row.get(22)?,
        destroy_ts: row.get(23)?,
    })
}

/// The partial indexes rely on these: see the tables.
fn phase_number(phase: Phase) -> i64 {
    match phase {
        Phase::Pending => 0,
        Phase::Starting => 1,
        Phase::Running => 2,
        Phase::StoppingToSleep => 3,
        Phase::StoppingToDestroy => 4,
        Phase::StoppingToMove => 5,
        Phase::Backoff => 6,
        Phase::Sleeping => 7,
        Phase::Destroyed => 8,
    }
}

fn phase(number: i64) -> Option<Phase> {
    Some(match number {
        0 => Phase::Pending,
        1 => Phase::Starting,
        2 => Phase::Running,
        3 => Phase::StoppingToSleep,
        4 => Phase::StoppingToDestroy,
        5 => Phase::StoppingToMove,
        6 => Phase::Backoff,
        7 => Phase::Sleeping,
        8 => Phase::Destroyed,
        _ => return None,
    })
}

fn crash_policy_number(policy: CrashPolicy) -> i64 {
    match policy {
        CrashPolicy::Restart => 0,
        CrashPolicy::Sleep => 1,
        CrashPolicy::Destroy => 2,
    }
}

fn crash_policy(number: i64) -> Option<CrashPolicy> {
    Some(match number {
        0 => CrashPolicy::Restart,
        1 => CrashPolicy::Sleep,
        2 => CrashPolicy::Destroy,
        _ => return None,
    })
}

fn error_columns(error: Option<&ActorError>) -> (Option<i64>, Option<&str>) {
    match error {
        None => (None, None),
        Some(ActorError::NoCapacity) => (Some(0), None),
        Some(ActorError::Crashed { message }) => (Some(1), message.as_deref()),
        Some(ActorError::RunnerNoResponse { runner_id }) => (Some(2), Some(runner_id)),
        Some(ActorError::RunnerConnectionLost { runner_id }) => (Some(3), Some(runner_id)),
        Some(ActorError::RunnerDrainingTimeout { runner_id }) => (Some(4), Some(runner_id)),
    }
}

fn error(kind: Option<i64>, detail: Option<String>) -> Result<Option<ActorError>> {
    let runner_id = |detail: Option<String>| detail.map(Arc::from).ok_or_else(|| unknown("error_detail"));
    Ok(match kind {
        None => None,
        Some(0) => Some(ActorError::NoCapacity),
        Some(1) => Some(ActorError::Crashed { message: detail }),
        Some(2) => Some(ActorError::RunnerNoResponse { runner_id: runner_id(detail)? }),
        Some(3) => Some(ActorError::RunnerConnectionLost { runner_id: runner_id(detail)? }),
        Some(4) => Some(ActorError::RunnerDrainingTimeout { runner_id: runner_id(detail)? }),
        Some(_) => return Err(unknown("error_kind")),
    })
}

/// A column holds what we never write.
fn unknown(column: &str) -> Error {
    Error::FromSqlConversionFailure(0, Type::Integer, format!("unknown value in column `{column}` of an actor").into())
}

/// The columns of a record in the order in which they are read, before the input.
macro_rules! columns {
    () => {
        "id, namespace_id, name, key, pool, crash_policy, phase, generation, runner_id, next_command, \
         command_acknowledged, last_event, alarm_at, wake_after_stop, restarts, error_kind, error_detail, create_ts, \
         start_ts, pending_allocation_ts, connectable_ts, sleep_ts, reschedule_ts, destroy_ts"
    };
}

const SELECT: &str =
    concat!("SELECT ", columns!(), ", (SELECT input FROM actor_input WHERE actor_input.num = actor.num) FROM actor");

/// For lists: a page of actors with megabytes of input each would fill the memory, and nobody shows inputs.
const SELECT_WITHOUT_INPUT: &str = concat!("SELECT ", columns!(), ", NULL FROM actor");

const BY_ID: &str = "WHERE id = ?1";

const BY_KEY: &str = "WHERE namespace_id = ?1 AND name = ?2 AND key = ?3 AND phase < 8";

// Of actors created in the same millisecond, the one stored later is the newer.
const AWAKE: &str = "WHERE phase < 7 ORDER BY create_ts DESC, num DESC";

const DUE: &str = "WHERE phase = 7 AND alarm_at IS NOT NULL AND alarm_at <= ?1 ORDER BY alarm_at, num LIMIT 1000";

const NEXT_ALARM: &str = "SELECT min(alarm_at) FROM actor WHERE phase = 7 AND alarm_at IS NOT NULL";

fn list_of(with_key: bool, include_destroyed: bool) -> String {
    let with_key = if with_key { "AND key = ?3" } else { "AND ?3 IS NULL" };
    let living = if include_destroyed { "" } else { "AND phase < 8" };
    format!(
        "WHERE namespace_id = ?1 AND name = ?2 {with_key} {living} AND create_ts < ?4 \
         ORDER BY create_ts DESC, num DESC LIMIT ?5"
    )
}

const PUT: &str = "
    INSERT INTO actor (
        id, namespace_id, name, key, pool, crash_policy, phase, generation, runner_id, next_command,
        command_acknowledged, last_event, alarm_at, wake_after_stop, restarts, error_kind, error_detail, create_ts,
        start_ts, pending_allocation_ts, connectable_ts, sleep_ts, reschedule_ts, destroy_ts
    ) VALUES (
        :id, :namespace_id, :name, :key, :pool, :crash_policy, :phase, :generation, :runner_id, :next_command,
        :command_acknowledged, :last_event, :alarm_at, :wake_after_stop, :restarts, :error_kind, :error_detail,
        :create_ts, :start_ts, :pending_allocation_ts, :connectable_ts, :sleep_ts, :reschedule_ts, :destroy_ts
    )
    ON CONFLICT (id) DO UPDATE SET
        namespace_id = excluded.namespace_id, name = excluded.name, key = excluded.key, pool = excluded.pool,
        crash_policy = excluded.crash_policy, phase = excluded.phase, generation = excluded.generation,
        runner_id = excluded.runner_id, next_command = excluded.next_command,
        command_acknowledged = excluded.command_acknowledged, last_event = excluded.last_event,
        alarm_at = excluded.alarm_at, wake_after_stop = excluded.wake_after_stop, restarts = excluded.restarts,
        error_kind = excluded.error_kind, error_detail = excluded.error_detail, create_ts = excluded.create_ts,
        start_ts = excluded.start_ts, pending_allocation_ts = excluded.pending_allocation_ts,
        connectable_ts = excluded.connectable_ts, sleep_ts = excluded.sleep_ts,
        reschedule_ts = excluded.reschedule_ts, destroy_ts = excluded.destroy_ts
    RETURNING num
";

#[cfg(test)]
mod tests {
    use super::super::{open, plan};
    use super::*;

    #[test]
    fn no_query_looks_at_actors_it_does_not_want_nor_sorts_them() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("gateway.db")).unwrap();
        let lists = [(false, false), (false, true), (true, false), (true, true)].map(|(key, all)| list_of(key, all));
        let tails = [BY_ID, BY_KEY, AWAKE, DUE].into_iter().chain(lists.iter().map(String::as_str));
        let queries = tails.map(|tail| format!("{SELECT} {tail}")).chain([NEXT_ALARM.to_owned()]);
        for query in queries {
            let plan = plan(&connection, &query);
            assert!(!plan.contains("TEMP B-TREE"), "{query}\n{plan}");
            assert!(!plan.lines().any(|step| step == "SCAN actor"), "{query}\n{plan}");
        }
        assert!(plan(&connection, &format!("{SELECT} {AWAKE}")).contains("actor_awake"));
        assert!(plan(&connection, &format!("{SELECT} {DUE}")).contains("actor_alarm"));
        assert!(plan(&connection, NEXT_ALARM).contains("actor_alarm"));
    }
}
