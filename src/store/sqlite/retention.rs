//! What is kept only for a while: the records of actors that are destroyed and of runners that have stopped.
//!
//! They answer `include_destroyed` and `include_stopped`, and say what went wrong. Without an end they would be the
//! larger part of the file some day. They are removed oldest first, a few at a time, beside the writes.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Result, params};

/// How long records are kept of what is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a destroyed actor or a stopped runner is remembered.
    pub time: Duration,
    /// At most this many destroyed actors, the latest.
    pub actors: u32,
    /// At most this many stopped runners, the latest.
    pub runners: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { time: Duration::from_hours(7 * 24), actors: 100_000, runners: 10_000 }
    }
}

/// Up to when records go, in milliseconds since the epoch; found once, because counting takes a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    actors_until: i64,
    runners_until: i64,
}

impl Pass {
    /// What is to go now.
    pub(super) fn begin(connection: &Connection, retention: Retention, now_ms: i64) -> Result<Self> {
        let age = i64::try_from(retention.time.as_millis()).unwrap_or(i64::MAX);
        let by_age = now_ms.saturating_sub(age);
        let beyond = |query: &str, kept: u32| {
            let time: Option<i64> =
                connection.prepare_cached(query)?.query_row([kept], |row| row.get(0)).optional()?.flatten();
            Ok::<_, rusqlite::Error>(time.map_or(by_age, |time| time.max(by_age)))
        };
        Ok(Pass {
            actors_until: beyond(ACTORS_BEYOND, retention.actors)?,
            runners_until: beyond(RUNNERS_BEYOND, retention.runners)?,
        })
    }

    /// Removes some, and answers how many.
    pub(super) fn step(self, connection: &Connection) -> Result<Removed> {
        connection.prepare_cached(DROP_INPUTS)?.execute(params![self.actors_until, STEP as i64])?;
        let actors = connection.prepare_cached(DROP_ACTORS)?.execute(params![self.actors_until, STEP as i64])?;
        let runners = connection.prepare_cached(DROP_RUNNERS)?.execute(params![self.runners_until, STEP as i64])?;
        Ok(Removed { any: actors + runners > 0, more: actors.max(runners) >= STEP })
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removed {
    /// Something was removed.
    pub any: bool,
    /// There may be more.
    pub more: bool,
}

/// Rows removed at once: few enough that the writes behind them do not notice.
const STEP: usize = 200;

const ACTORS_BEYOND: &str = "SELECT destroy_ts FROM actor WHERE phase = 8 ORDER BY destroy_ts DESC LIMIT 1 OFFSET ?1";

const RUNNERS_BEYOND: &str =
    "SELECT stop_ts FROM runner WHERE stop_ts IS NOT NULL ORDER BY stop_ts DESC LIMIT 1 OFFSET ?1";

const DROP_INPUTS: &str = "DELETE FROM actor_input WHERE num IN \
     (SELECT num FROM actor WHERE phase = 8 AND destroy_ts <= ?1 ORDER BY destroy_ts, num LIMIT ?2)";

const DROP_ACTORS: &str = "DELETE FROM actor WHERE num IN \
     (SELECT num FROM actor WHERE phase = 8 AND destroy_ts <= ?1 ORDER BY destroy_ts, num LIMIT ?2)";

const DROP_RUNNERS: &str = "DELETE FROM runner WHERE num IN \
     (SELECT num FROM runner WHERE stop_ts IS NOT NULL AND stop_ts <= ?1 ORDER BY stop_ts, num LIMIT ?2)";

#[cfg(test)]
mod tests {
    use super::super::{open, plan};
    use super::*;

    #[test]
    fn no_query_looks_at_records_that_stay() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("gateway.db")).unwrap();
        for query in [ACTORS_BEYOND, DROP_INPUTS, DROP_ACTORS] {
            let plan = plan(&connection, query);
            assert!(plan.contains("actor_destroyed") && !plan.contains("TEMP B-TREE"), "{query}\n{plan}");
        }
        for query in [RUNNERS_BEYOND, DROP_RUNNERS] {
            let plan = plan(&connection, query);
            assert!(plan.contains("runner_stopped") && !plan.contains("TEMP B-TREE"), "{query}\n{plan}");
        }
    }
}
