//! What a new actor is made of.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::CrashPolicy;

/// What a new actor is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateActor {
    /// Namespace name.
    pub namespace: Arc<str>,
    /// Actor name.
    pub name: Arc<str>,
    /// Actor key.
    pub key: Option<Arc<str>>,
    /// The pool: `runner_name_selector`.
    pub pool: Arc<str>,
    /// What happens after a crash.
    pub crash_policy: CrashPolicy,
    /// Opaque start input.
    pub input: Option<Bytes>,
}
