//! The tables, and how a file is recognised as ours.

use std::time::Duration;

use rusqlite::Connection;

use super::Refusal;

/// Sets a connection up for writing, and creates the tables in a new file.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), Refusal> {
    // Reading the header first: a file that is not ours must not be changed.
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let new = application == 0 && version == 0 && tables == 0;
    if !new && application != APPLICATION_ID {
        return Err(Refusal::Said("is a database of another program".to_owned()));
    }
    if !new && version != VERSION {
        return Err(Refusal::Said(format!(
            "has schema version {version}, but this greenroom reads only {VERSION}: it was written by {} greenroom",
            if version > VERSION { "a newer" } else { "an older" }
        )));
    }

    connection.busy_handler(Some(wait_for_the_checkpointer))?;
    connection.set_prepared_statement_cache_capacity(128);
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Refusal::Said(format!("cannot be put in WAL mode (it stays in `{mode}`)")));
    }
    connection.execute_batch(SETTINGS)?;
    if new {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    }
    connection.execute_batch(LATER_INDEXES)?;
    Ok(())
}

/// A lock is met only while the checkpointer begins the log anew, which is short; SQLite's own timeout would sleep up to
/// 100 ms at a time.
fn wait_for_the_checkpointer(tries: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    tries < 30_000
}

/// What a connection needs, as measured: a memory map for reads, and no checkpoint inside a commit.
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA fullfsync = ON;
    PRAGMA checkpoint_fullfsync = ON;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA journal_size_limit = 268435456;
    PRAGMA cache_size = -65536;
    PRAGMA mmap_size = 268435456;
    PRAGMA temp_store = MEMORY;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
";

/// The phases count so that sleeping and destroyed actors, of which there may be very many, are the two highest: the
/// partial indexes on `phase < 7` and `phase < 8` leave them out.
///
/// `actor_input` is apart from `actor`, because the input may have megabytes and a row is written whole whenever the
/// state of its actor changes. `kv` has a row id and a unique index instead of being clustered: rows of a kilobyte
/// would spill to overflow pages. Its actor numbers are never used again, so that what is left of a dropped storage
/// cannot turn up in another.
const TABLES: &str = "
    CREATE TABLE namespace (
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        display_name TEXT NOT NULL,
        create_ts INTEGER NOT NULL
    );

    CREATE TABLE actor (
        num INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        namespace_id TEXT NOT NULL,
        name TEXT NOT NULL,
        key TEXT,
        pool TEXT NOT NULL,
        crash_policy INTEGER NOT NULL,
        phase INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        runner_id TEXT,
        next_command INTEGER NOT NULL,
        command_acknowledged INTEGER NOT NULL,
        last_event INTEGER,
        alarm_at INTEGER,
        wake_after_stop INTEGER NOT NULL,
        restarts INTEGER NOT NULL,
        error_kind INTEGER,
        error_detail TEXT,
        create_ts INTEGER NOT NULL,
        start_ts INTEGER,
        pending_allocation_ts INTEGER,
        connectable_ts INTEGER,
        sleep_ts INTEGER,
        reschedule_ts INTEGER,
        destroy_ts INTEGER
    );
    CREATE UNIQUE INDEX actor_key_holder ON actor (namespace_id, name, key) WHERE phase < 8 AND key IS NOT NULL;
    CREATE INDEX actor_by_key ON actor (namespace_id, name, key, create_ts);
    CREATE INDEX actor_by_name ON actor (namespace_id, name, create_ts);
    CREATE INDEX actor_living_by_name ON actor (namespace_id, name, create_ts) WHERE phase < 8;
    CREATE INDEX actor_awake ON actor (create_ts) WHERE phase < 7;
    CREATE INDEX actor_alarm ON actor (alarm_at) WHERE phase = 7 AND alarm_at IS NOT NULL;

    CREATE TABLE actor_input (
        num INTEGER PRIMARY KEY,
        input BLOB NOT NULL
    );

    CREATE TABLE runner (
        num INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        namespace_id TEXT NOT NULL,
        pool TEXT NOT NULL,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        total_slots INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        create_ts INTEGER NOT NULL,
        last_connected_ts INTEGER NOT NULL,
        last_ping_ts INTEGER NOT NULL,
        drain_ts INTEGER,
        stop_ts INTEGER
    );
    CREATE INDEX runner_present ON runner (create_ts) WHERE stop_ts IS NULL;
    CREATE INDEX runner_by_namespace ON runner (namespace_id, create_ts);
    CREATE INDEX runner_by_pool ON runner (namespace_id, pool, create_ts);
    CREATE INDEX runner_present_by_namespace ON runner (namespace_id, create_ts) WHERE stop_ts IS NULL;
    CREATE INDEX runner_present_by_pool ON runner (namespace_id, pool, create_ts) WHERE stop_ts IS NULL;

    CREATE TABLE actor_name (
        namespace_id TEXT NOT NULL,
        name TEXT NOT NULL,
        metadata TEXT NOT NULL,
        UNIQUE (namespace_id, name)
    );

    CREATE TABLE runner_config (
        namespace_id TEXT NOT NULL,
        pool TEXT NOT NULL,
        drain_on_version_upgrade INTEGER NOT NULL,
        metadata TEXT,
        UNIQUE (namespace_id, pool)
    );

    CREATE TABLE kv_owner (
        actor INTEGER PRIMARY KEY AUTOINCREMENT,
        actor_id TEXT NOT NULL UNIQUE,
        used INTEGER NOT NULL
    );
    CREATE TABLE kv (
        actor INTEGER NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        update_ts INTEGER NOT NULL,
        UNIQUE (actor, key)
    );
    CREATE TABLE kv_dropped (actor INTEGER PRIMARY KEY);
";

/// Came after the first files were written, and are added to those. An older greenroom keeps them up to date without
/// knowing them.
const LATER_INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS actor_destroyed ON actor (destroy_ts) WHERE phase = 8;
    CREATE INDEX IF NOT EXISTS runner_stopped ON runner (stop_ts) WHERE stop_ts IS NOT NULL;
";

/// `GRNR`: marks a file as ours.
const APPLICATION_ID: i64 = 0x4752_4e52;

/// Counts up with every change that an older greenroom could not read.
const VERSION: i64 = 1;
