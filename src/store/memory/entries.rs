//! The key-value entries of one actor, in memory.

use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::table::Table;
use crate::store::kv::{Entries, Entry, KeyRange, Next, entry_cost};

/// A value and the time of its last put.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    value: Bytes,
    update_ts: i64,
}

/// The entries of an actor.
pub(super) struct MemoryEntries<'a> {
    pub(super) actor_id: Arc<str>,
    pub(super) rows: &'a mut Table<(Arc<str>, Bytes), Stored>,
    pub(super) used: &'a mut Table<Arc<str>, u64>,
}

impl MemoryEntries<'_> {
    fn row(&self, key: &[u8]) -> Option<(Bytes, &Stored)> {
        let key = Bytes::copy_from_slice(key);
        self.rows.get(&(self.actor_id.clone(), key.clone())).map(|stored| (key, stored))
    }

    fn range(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&Bytes, &Stored)> {
        let start = Bound::Included((self.actor_id.clone(), range.start.clone()));
        let end = match &range.end {
            Bound::Included(end) => Bound::Included((self.actor_id.clone(), end.clone())),
            Bound::Excluded(end) => Bound::Excluded((self.actor_id.clone(), end.clone())),
            // The smallest id behind this one.
            Bound::Unbounded => Bound::Excluded((format!("{}\0", self.actor_id).into(), Bytes::new())),
        };
        self.rows.range((start, end)).map(|((_, key), stored)| (key, stored))
    }
}

impl Entries for MemoryEntries<'_> {
    type Error = Infallible;

    fn used(&mut self) -> Result<u64, Infallible> {
        Ok(self.used.get(&self.actor_id).copied().unwrap_or(0))
    }

    fn set_used(&mut self, bytes: u64) -> Result<(), Infallible> {
        self.used.set(self.actor_id.clone(), Some(bytes));
        Ok(())
    }

    fn value_len(&mut self, key: &[u8]) -> Result<Option<usize>, Infallible> {
        Ok(self.row(key).map(|(_, stored)| stored.value.len()))
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Entry>, Infallible> {
        Ok(self.row(key).map(|(key, stored)| entry(&key, stored)))
    }

    fn scan(
        &mut self,
        range: &KeyRange,
        reverse: bool,
        limit: u64,
        visit: &mut dyn FnMut(Entry) -> Next,
    ) -> Result<(), Infallible> {
        let rows = self.range(range);
        let mut rows: Box<dyn Iterator<Item = (&Bytes, &Stored)>> =
            if reverse { Box::new(rows.rev()) } else { Box::new(rows) };
        for _ in 0..limit {
            let Some((key, stored)) = rows.next() else { break };
            match visit(entry(key, stored)) {
                Next::More => {}
                Next::Enough => break,
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, now_ms: i64, _exists: bool) -> Result<(), Infallible> {
        let stored = Stored { value: value.clone(), update_ts: now_ms };
        self.rows.set((self.actor_id.clone(), key.clone()), Some(stored));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Infallible> {
        self.rows.set((self.actor_id.clone(), Bytes::copy_from_slice(key)), None);
        Ok(())
    }

    fn delete_range(&mut self, range: &KeyRange) -> Result<u64, Infallible> {
        let doomed: Vec<_> =
            self.range(range).map(|(key, stored)| (key.clone(), entry_cost(key.len(), stored.value.len()))).collect();
        let mut freed = 0;
        for (key, cost) in doomed {
            freed += cost;
            self.rows.set((self.actor_id.clone(), key), None);
        }
        Ok(freed)
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        self.delete_range(&KeyRange { start: Bytes::new(), end: Bound::Unbounded })?;
        self.used.set(self.actor_id.clone(), None);
        Ok(())
    }
}

fn entry(key: &Bytes, stored: &Stored) -> Entry {
    Entry { key: key.clone(), value: stored.value.clone(), update_ts: stored.update_ts }
}
