//! Namespaces, runners and what is known about pools and names, in SQL.

use rusqlite::{Connection, Params, Result, Row, params};

use super::actors::Page;
use crate::store::{ActorName, NamespaceRecord, RunnerConfigRecord, RunnerRecord};

pub(super) fn put_namespace(connection: &Connection, record: &NamespaceRecord) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO namespace (id, name, display_name, create_ts) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET
                 name = excluded.name, display_name = excluded.display_name, create_ts = excluded.create_ts",
        )?
        .execute(params![record.id, record.name, record.display_name, record.create_ts])?;
    Ok(())
}

pub(super) fn namespaces(connection: &Connection) -> Result<Vec<NamespaceRecord>> {
    connection
        .prepare_cached("SELECT id, name, display_name, create_ts FROM namespace ORDER BY create_ts DESC, rowid DESC")?
        .query_map([], |row| {
            Ok(NamespaceRecord {
                id: row.get(0)?,
                name: row.get(1)?,
                display_name: row.get(2)?,
                create_ts: row.get(3)?,
            })
        })?
        .collect()
}

pub(super) fn put_runner(connection: &Connection, record: &RunnerRecord) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO runner (id, namespace_id, pool, key, version, total_slots, metadata, create_ts,
                 last_connected_ts, last_ping_ts, drain_ts, stop_ts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (id) DO UPDATE SET
                 namespace_id = excluded.namespace_id, pool = excluded.pool, key = excluded.key,
                 version = excluded.version, total_slots = excluded.total_slots, metadata = excluded.metadata,
                 create_ts = excluded.create_ts, last_connected_ts = excluded.last_connected_ts,
                 last_ping_ts = excluded.last_ping_ts, drain_ts = excluded.drain_ts, stop_ts = excluded.stop_ts",
        )?
        .execute(params![
            record.id,
            record.namespace_id,
            record.pool,
            record.key,
            record.version,
            record.total_slots,
            record.metadata,
            record.create_ts,
            record.last_connected_ts,
            record.last_ping_ts,
            record.drain_ts,
            record.stop_ts,
        ])?;
    Ok(())
}

pub(super) fn runners(connection: &Connection) -> Result<Vec<RunnerRecord>> {
    select_runners(connection, "WHERE stop_ts IS NULL ORDER BY create_ts DESC, num DESC", [])
}

pub(super) fn runners_of(
    connection: &Connection,
    namespace_id: &str,
    pool: Option<&str>,
    include_stopped: bool,
    page: Page,
) -> Result<Vec<RunnerRecord>> {
    let tail = runners_in(pool.is_some(), include_stopped);
    select_runners(connection, &tail, params![namespace_id, pool, page.before(), page.limit()])
}

fn runners_in(of_pool: bool, include_stopped: bool) -> String {
    let of_pool = if of_pool { "AND pool = ?2" } else { "AND ?2 IS NULL" };
    let present = if include_stopped { "" } else { "AND stop_ts IS NULL" };
    format!("WHERE namespace_id = ?1 {of_pool} {present} AND create_ts < ?3 ORDER BY create_ts DESC, num DESC LIMIT ?4")
}

fn select_runners(connection: &Connection, tail: &str, params: impl Params) -> Result<Vec<RunnerRecord>> {
    connection.prepare_cached(&format!("SELECT * FROM runner {tail}"))?.query_map(params, runner)?.collect()
}

fn runner(row: &Row<'_>) -> Result<RunnerRecord> {
    Ok(RunnerRecord {
        id: row.get("id")?,
        namespace_id: row.get("namespace_id")?,
        pool: row.get("pool")?,
        key: row.get("key")?,
        version: row.get("version")?,
        total_slots: row.get("total_slots")?,
        metadata: row.get("metadata")?,
        create_ts: row.get("create_ts")?,
        last_connected_ts: row.get("last_connected_ts")?,
        last_ping_ts: row.get("last_ping_ts")?,
        drain_ts: row.get("drain_ts")?,
        stop_ts: row.get("stop_ts")?,
    })
}

pub(super) fn put_actor_name(connection: &Connection, record: &ActorName) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO actor_name (namespace_id, name, metadata) VALUES (?1, ?2, ?3)
             ON CONFLICT (namespace_id, name) DO UPDATE SET metadata = excluded.metadata",
        )?
        .execute(params![record.namespace_id, record.name, record.metadata])?;
    Ok(())
}

pub(super) fn actor_names(
    connection: &Connection,
    namespace_id: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<ActorName>> {
    let from = if after.is_some() { "AND name > ?2" } else { "AND ?2 IS NULL" };
    connection
        .prepare_cached(&format!(
            "SELECT namespace_id, name, metadata FROM actor_name WHERE namespace_id = ?1 {from} ORDER BY name LIMIT ?3"
        ))?
        .query_map(params![namespace_id, after, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok(ActorName { namespace_id: row.get(0)?, name: row.get(1)?, metadata: row.get(2)? })
        })?
        .collect()
}

pub(super) fn put_runner_config(connection: &Connection, record: &RunnerConfigRecord) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO runner_config (namespace_id, pool, drain_on_version_upgrade, metadata) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (namespace_id, pool) DO UPDATE SET
                 drain_on_version_upgrade = excluded.drain_on_version_upgrade, metadata = excluded.metadata",
        )?
        .execute(params![record.namespace_id, record.pool, record.drain_on_version_upgrade, record.metadata])?;
    Ok(())
}

pub(super) fn drop_runner_config(connection: &Connection, namespace_id: &str, pool: &str) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM runner_config WHERE namespace_id = ?1 AND pool = ?2")?
        .execute([namespace_id, pool])?;
    Ok(())
}

pub(super) fn runner_configs(connection: &Connection, namespace_id: &str) -> Result<Vec<RunnerConfigRecord>> {
    connection
        .prepare_cached(
            "SELECT namespace_id, pool, drain_on_version_upgrade, metadata FROM runner_config
             WHERE namespace_id = ?1 ORDER BY pool",
        )?
        .query_map([namespace_id], |row| {
            Ok(RunnerConfigRecord {
                namespace_id: row.get(0)?,
                pool: row.get(1)?,
                drain_on_version_upgrade: row.get(2)?,
                metadata: row.get(3)?,
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{open, plan};
    use super::*;

    #[test]
    fn no_query_looks_at_runners_it_does_not_want_nor_sorts_them() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("gateway.db")).unwrap();
        for (of_pool, include_stopped) in [(false, false), (false, true), (true, false), (true, true)] {
            let query = format!("SELECT * FROM runner {}", runners_in(of_pool, include_stopped));
            let plan = plan(&connection, &query);
            assert!(!plan.contains("TEMP B-TREE"), "{query}\n{plan}");
            assert!(plan.starts_with("SEARCH runner USING INDEX"), "{query}\n{plan}");
        }
    }
}
