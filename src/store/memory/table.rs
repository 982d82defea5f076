//! Rows that remember how they were when the transaction began.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Rows in key order, and what undoes the changes of the open transaction.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    before: Vec<(K, Option<V>)>,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The changes stay.
    Keep,
    /// The changes never were.
    Undo,
}

impl<K: Ord + Clone, V> Table<K, V> {
    pub(super) fn new() -> Self {
        Self { rows: BTreeMap::new(), before: Vec::new() }
    }

    /// Writes a row, or removes it.
    pub(super) fn set(&mut self, key: K, value: Option<V>) {
        let old = match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        self.before.push((key, old));
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &V> {
        self.rows.values()
    }

    pub(super) fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range)
    }

    pub(super) fn end(&mut self, how: End) {
        match how {
            End::Keep => self.before.clear(),
            End::Undo => {
                while let Some((key, old)) = self.before.pop() {
                    match old {
                        Some(old) => self.rows.insert(key, old),
                        None => self.rows.remove(&key),
                    };
                }
            }
        }
    }
}
