//! What actors add to the state of their worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

/// The keys that actors have set in `external_metadata`, each with the actor that wrote it last. They stay when the
/// actor sleeps; null removes them.
#[derive(Clone, Debug, Default)]
pub struct ActorMetadata {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    owner: Arc<str>,
    value: Value,
    bytes: usize,
}

/// Why a patch changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataRefusal {
    /// The runner tells this itself.
    #[error("`{0}` is told by the runner itself")]
    Reserved(String),
    /// One actor wants too much.
    #[error("the metadata of one actor has at most {max} bytes, and with this it had {bytes}")]
    ActorFull {
        /// What it came to.
        bytes: usize,
        /// What it may come to.
        max: usize,
    },
    /// All together want too much.
    #[error("the metadata of all actors of this runner has at most {max} bytes, and with this it had {bytes}")]
    RunnerFull {
        /// What it came to.
        bytes: usize,
        /// What it may come to.
        max: usize,
    },
}

impl ActorMetadata {
    /// Merges an actor's patch: the last who writes a key has it, null removes it. Says whether anything changed.
    ///
    /// # Errors
    /// [`MetadataRefusal`]; nothing is changed then.
    pub fn patch(&mut self, owner: &Arc<str>, patch: Map<String, Value>) -> Result<bool, MetadataRefusal> {
        if let Some(key) = patch.keys().find(|key| RESERVED.contains(&key.as_str())) {
            return Err(MetadataRefusal::Reserved(key.clone()));
        }
        let kept = self.entries.iter().filter(|(key, _)| !patch.contains_key(*key));
        let (mut own, mut all) = (0, 0);
        for (_, entry) in kept {
            all += entry.bytes;
            own += if entry.owner == *owner { entry.bytes } else { 0 };
        }
        let added: usize = patch.iter().map(|(key, value)| size(key, value)).sum();
        if own + added > ACTOR_MAX {
            return Err(MetadataRefusal::ActorFull { bytes: own + added, max: ACTOR_MAX });
        }
        if all + added > RUNNER_MAX {
            return Err(MetadataRefusal::RunnerFull { bytes: all + added, max: RUNNER_MAX });
        }
        let mut changed = false;
        for (key, value) in patch {
            if value.is_null() {
                changed |= self.entries.remove(&key).is_some();
            } else {
                let bytes = size(&key, &value);
                let before = self.entries.insert(key, Entry { owner: owner.clone(), value: value.clone(), bytes });
                changed |= before.is_none_or(|before| before.value != value);
            }
        }
        Ok(changed)
    }

    /// All of it, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), &entry.value))
    }

    /// What one actor wrote last.
    #[must_use]
    pub fn of(&self, owner: &str) -> Map<String, Value> {
        let own = self.entries.iter().filter(|(_, entry)| &*entry.owner == owner);
        own.map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }
}

/// What a key costs, in bytes of JSON. A null costs nothing: it takes away.
fn size(key: &str, value: &Value) -> usize {
    if value.is_null() { 0 } else { key.len() + value.to_string().len() + "\"\":,".len() }
}

/// Keys of `external_metadata` that the runner tells itself.
pub const RESERVED: &[&str] = &["actors", "slots"];

/// What one actor may set, in bytes of JSON: enough to say how it is doing, too little to be a store.
const ACTOR_MAX: usize = 64 * 1024;
/// What all actors of a runner may set, in bytes of JSON: it travels with every report.
const RUNNER_MAX: usize = 1024 * 1024;
