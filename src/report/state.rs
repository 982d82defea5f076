//! The state of a worker and its patches.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What is known of a worker. The two metadata objects are merged key by key, everything else is replaced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerState {
    top: BTreeMap<String, Value>,
    external: BTreeMap<String, Value>,
    internal: BTreeMap<String, Value>,
}

/// A change of a [`WorkerState`]. In the metadata objects a null removes the key (RFC 7396, one level deep).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    top: BTreeMap<String, Value>,
    external: BTreeMap<String, Value>,
    internal: BTreeMap<String, Value>,
}

/// Why a body is no patch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is something else.
    #[error("expected a JSON object")]
    NoObject,
    /// There is no merging a key into something else than an object.
    #[error("expected an object under `{0}`")]
    Metadata(&'static str),
}

impl Patch {
    /// A patch that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Patch::default()
    }

    /// Sets a key of the state.
    ///
    /// # Panics
    /// For the two metadata keys, which are objects with setters of their own.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        assert!(key != EXTERNAL && key != INTERNAL, "{key} is merged key by key");
        self.top.insert(key.to_owned(), value.into());
        self
    }

    /// Sets a key of `external_metadata`; null removes it.
    #[must_use]
    pub fn external(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.external.insert(key.to_owned(), value.into());
        self
    }

    /// Sets a key of `internal_metadata`; null removes it.
    #[must_use]
    pub fn internal(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.internal.insert(key.to_owned(), value.into());
        self
    }

    /// Reads the body of a report.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn from_json(body: Value) -> Result<Self, Malformed> {
        let Value::Object(mut body) = body else { return Err(Malformed::NoObject) };
        let external = metadata(&mut body, EXTERNAL)?;
        let internal = metadata(&mut body, INTERNAL)?;
        Ok(Patch { top: body.into_iter().collect(), external, internal })
    }

    /// Writes the body of a report.
    #[must_use]
    pub fn to_json(&self) -> Value {
        to_json(&self.top, &self.external, &self.internal)
    }

    /// Takes in a patch that came later: afterwards this one does what both did, in their order.
    pub fn absorb(&mut self, newer: Patch) {
        self.top.extend(newer.top);
        // Nulls are kept: they remove at the receiver what it may know already.
        self.external.extend(newer.external);
        self.internal.extend(newer.internal);
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.top.is_empty() && self.external.is_empty() && self.internal.is_empty()
    }

    /// A value of `internal_metadata`.
    #[must_use]
    pub fn get_internal(&self, key: &str) -> Option<&Value> {
        self.internal.get(key)
    }
}

impl WorkerState {
    /// Changes the state as the patch says.
    pub fn apply(&mut self, patch: Patch) {
        self.top.extend(patch.top);
        for (state, patch) in [(&mut self.external, patch.external), (&mut self.internal, patch.internal)] {
            for (key, value) in patch {
                match value {
                    Value::Null => drop(state.remove(&key)),
                    value => drop(state.insert(key, value)),
                }
            }
        }
    }

    /// The patch that makes this state of an earlier one, and of none: all that is known, and nulls for what is no
    /// more. A receiver that has forgotten everything is whole again after one report.
    #[must_use]
    pub fn whole_after(&self, earlier: &WorkerState) -> Patch {
        let mut patch =
            Patch { top: self.top.clone(), external: self.external.clone(), internal: self.internal.clone() };
        for (patch, earlier) in [(&mut patch.external, &earlier.external), (&mut patch.internal, &earlier.internal)] {
            for key in earlier.keys() {
                patch.entry(key.clone()).or_insert(Value::Null);
            }
        }
        patch
    }

    /// As the receiver shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        to_json(&self.top, &self.external, &self.internal)
    }
}

impl From<Patch> for WorkerState {
    fn from(patch: Patch) -> Self {
        let mut state = WorkerState::default();
        state.apply(patch);
        state
    }
}

fn metadata(body: &mut Map<String, Value>, key: &'static str) -> Result<BTreeMap<String, Value>, Malformed> {
    match body.remove(key) {
        None => Ok(BTreeMap::new()),
        Some(Value::Object(metadata)) => Ok(metadata.into_iter().collect()),
        Some(_) => Err(Malformed::Metadata(key)),
    }
}

fn to_json(
    top: &BTreeMap<String, Value>,
    external: &BTreeMap<String, Value>,
    internal: &BTreeMap<String, Value>,
) -> Value {
    let mut body: Map<String, Value> = top.clone().into_iter().collect();
    for (key, metadata) in [(EXTERNAL, external), (INTERNAL, internal)] {
        if !metadata.is_empty() {
            body.insert(key.to_owned(), Value::Object(metadata.clone().into_iter().collect()));
        }
    }
    Value::Object(body)
}

const EXTERNAL: &str = "external_metadata";
const INTERNAL: &str = "internal_metadata";
