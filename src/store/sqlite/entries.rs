//! The key-value entries of one actor, in SQL.

use std::ops::Bound;

use bytes::Bytes;
use greenroom_protocol::limits::KV_KEY_OVERHEAD;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::store::kv::{Entries, Entry, KeyRange, Next};

/// The entries of an actor, inside the open transaction.
pub(super) struct SqlEntries<'a> {
    connection: &'a Connection,
    actor_id: &'a str,
    /// None until the actor has put something.
    owner: Option<Owner>,
}

#[derive(Clone, Copy)]
struct Owner {
    actor: i64,
    used: i64,
}

impl<'a> SqlEntries<'a> {
    pub(super) fn of(connection: &'a Connection, actor_id: &'a str) -> Result<Self> {
        let owner = connection
            .prepare_cached("SELECT actor, used FROM kv_owner WHERE actor_id = ?1")?
            .query_row([actor_id], |row| Ok(Owner { actor: row.get(0)?, used: row.get(1)? }))
            .optional()?;
        Ok(Self { connection, actor_id, owner })
    }

    /// The number of the actor; it gets one with its first entry.
    fn number(&mut self) -> Result<i64> {
        if let Some(owner) = self.owner {
            return Ok(owner.actor);
        }
        let mut statement = self.connection.prepare_cached("INSERT INTO kv_owner (actor_id, used) VALUES (?1, 0)")?;
        let actor = statement.insert([self.actor_id])?;
        self.owner = Some(Owner { actor, used: 0 });
        Ok(actor)
    }
}

impl Entries for SqlEntries<'_> {
    type Error = rusqlite::Error;

    fn used(&mut self) -> Result<u64> {
        Ok(self.owner.map_or(0, |owner| u64::try_from(owner.used).unwrap_or(0)))
    }

    fn set_used(&mut self, bytes: u64) -> Result<()> {
        let actor = self.number()?;
        let used = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.connection.prepare_cached("UPDATE kv_owner SET used = ?2 WHERE actor = ?1")?.execute([actor, used])?;
        self.owner = Some(Owner { actor, used });
        Ok(())
    }

    fn value_len(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let Some(owner) = self.owner else { return Ok(None) };
        let length: Option<i64> = self
            .connection
            .prepare_cached("SELECT length(value) FROM kv WHERE actor = ?1 AND key = ?2")?
            .query_row(params![owner.actor, key], |row| row.get(0))
            .optional()?;
        Ok(length.map(|length| usize::try_from(length).unwrap_or(0)))
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        let Some(owner) = self.owner else { return Ok(None) };
        self.connection
            .prepare_cached("SELECT key, value, update_ts FROM kv WHERE actor = ?1 AND key = ?2")?
            .query_row(params![owner.actor, key], entry)
            .optional()
    }

    fn scan(
        &mut self,
        range: &KeyRange,
        reverse: bool,
        limit: u64,
        visit: &mut dyn FnMut(Entry) -> Next,
    ) -> Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let (start, end, until) = bounds(range);
        let order = if reverse { "DESC" } else { "ASC" };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT key, value, update_ts FROM kv WHERE actor = ?1 AND key >= ?2 AND {until} ORDER BY key {order} LIMIT ?4"
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![owner.actor, start, end, limit])?;
        while let Some(row) = rows.next()? {
            match visit(entry(row)?) {
                Next::More => {}
                Next::Enough => break,
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, now_ms: i64, exists: bool) -> Result<()> {
        let actor = self.number()?;
        let sql = if exists {
            "UPDATE kv SET value = ?3, update_ts = ?4 WHERE actor = ?1 AND key = ?2"
        } else {
            "INSERT INTO kv (actor, key, value, update_ts) VALUES (?1, ?2, ?3, ?4)"
        };
        self.connection.prepare_cached(sql)?.execute(params![actor, &key[..], &value[..], now_ms])?;
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        self.connection
            .prepare_cached("DELETE FROM kv WHERE actor = ?1 AND key = ?2")?
            .execute(params![owner.actor, key])?;
        Ok(())
    }

    fn delete_range(&mut self, range: &KeyRange) -> Result<u64> {
        let Some(owner) = self.owner else { return Ok(0) };
        let (start, end, until) = bounds(range);
        let matching = format!("FROM kv WHERE actor = ?1 AND key >= ?2 AND {until}");
        let range = params![owner.actor, start, end];
        let freed: i64 = self
            .connection
            .prepare_cached(&format!(
                "SELECT coalesce(sum(length(key) + length(value) + {KV_KEY_OVERHEAD}), 0) {matching}"
            ))?
            .query_row(range, |row| row.get(0))?;
        self.connection.prepare_cached(&format!("DELETE {matching}"))?.execute(range)?;
        Ok(u64::try_from(freed).unwrap_or(0))
    }

    /// Gives the number up; [`tidy`] removes what is stored under it.
    fn clear(&mut self) -> Result<()> {
        let Some(owner) = self.owner.take() else { return Ok(()) };
        self.connection.prepare_cached("DELETE FROM kv_owner WHERE actor = ?1")?.execute([owner.actor])?;
        self.connection.prepare_cached("INSERT INTO kv_dropped (actor) VALUES (?1)")?.execute([owner.actor])?;
        Ok(())
    }
}

/// Removes some entries of dropped storages. True: more may be left.
pub(super) fn tidy(connection: &Connection) -> Result<bool> {
    let dropped: Option<i64> = connection
        .prepare_cached("SELECT actor FROM kv_dropped LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(actor) = dropped else { return Ok(false) };
    let removed = connection
        .prepare_cached("DELETE FROM kv WHERE rowid IN (SELECT rowid FROM kv WHERE actor = ?1 LIMIT ?2)")?
        .execute(params![actor, TIDY_ROWS as i64])?;
    if removed < TIDY_ROWS {
        connection.prepare_cached("DELETE FROM kv_dropped WHERE actor = ?1")?.execute([actor])?;
    }
    Ok(true)
}

/// Start and end of a range, and the SQL that compares with the end as the third parameter.
fn bounds(range: &KeyRange) -> (&[u8], Option<&[u8]>, &'static str) {
    match &range.end {
        Bound::Included(end) => (&range.start, Some(end), "key <= ?3"),
        Bound::Excluded(end) => (&range.start, Some(end), "key < ?3"),
        Bound::Unbounded => (&range.start, None, "?3 IS NULL"),
    }
}

fn entry(row: &Row<'_>) -> Result<Entry> {
    let bytes = |column| Ok::<_, rusqlite::Error>(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?));
    Ok(Entry { key: bytes(0)?, value: bytes(1)?, update_ts: row.get(2)? })
}

/// How many rows one tidying removes: few enough that the writes behind it do not notice.
const TIDY_ROWS: usize = 500;
