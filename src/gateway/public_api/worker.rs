//! `/worker`: what workers tell of themselves, merged and shown. Kept in memory: whoever reports again is there again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::refusal::{Answer, JsonBody};
use crate::gateway::refusal::Refusal;
use crate::report::{Patch, WorkerState};

/// The workers that have reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Workers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    workers: BTreeMap<String, Worker>,
    bytes: usize,
}

#[derive(Debug)]
struct Worker {
    state: WorkerState,
    /// Of its JSON.
    bytes: usize,
    /// When it last reported, in milliseconds since the epoch.
    update_ts: i64,
}

/// `PUT /worker`: merges a report into what is known of the worker that `internal_metadata.runner_key` names.
pub(super) async fn put(State(api): State<Api>, body: JsonBody<Value>) -> Answer<Value> {
    let patch = Patch::from_json(body.0).map_err(|malformed| Refusal::bad_request(malformed.to_string()))?;
    let key = match patch.get_internal("runner_key") {
        None | Some(Value::Null) => NAMELESS.to_owned(),
        Some(Value::String(key)) if !key.is_empty() && key.len() <= KEY_MAX => key.clone(),
        Some(_) => {
            let expected = format!("`internal_metadata.runner_key`: expected a text of 1 to {KEY_MAX} bytes");
            return Err(Refusal::bad_request(expected));
        }
    };
    api.workers.merge(key, patch, now()).map_err(|bytes| {
        Refusal::bad_request(format!("the state of a worker has at most {STATE_MAX} bytes, and now it had {bytes}"))
    })?;
    Ok(Json(json!({})))
}

/// `GET /worker`: all workers, in the order of their keys.
pub(super) async fn list(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "workers": api.workers.list() }))
}

impl Workers {
    /// Merges a report. When there are too many workers, the one that has been silent for longest is forgotten.
    ///
    /// # Errors
    /// The size of the state, which is too large; nothing is changed then.
    fn merge(&self, key: String, patch: Patch, now: i64) -> Result<(), usize> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = known.workers.get(&key).map(|worker| worker.state.clone()).unwrap_or_default();
        state.apply(patch);
        let bytes = state.to_json().to_string().len();
        if bytes > STATE_MAX {
            return Err(bytes);
        }
        let before = known.workers.insert(key.clone(), Worker { state, bytes, update_ts: now });
        known.bytes = known.bytes + bytes - before.map_or(0, |worker| worker.bytes);
        while known.workers.len() > WORKERS_MAX || known.bytes > ALL_MAX {
            let others = known.workers.iter().filter(|(other, _)| **other != key);
            let Some(silent) = others.min_by_key(|(_, worker)| worker.update_ts).map(|(key, _)| key.clone()) else {
                break;
            };
            let forgotten = known.workers.remove(&silent).map_or(0, |worker| worker.bytes);
            known.bytes -= forgotten;
        }
        Ok(())
    }

    fn list(&self) -> Vec<Value> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = known.workers.iter().map(|(key, worker)| {
            let mut shown = worker.state.to_json();
            shown["key"] = json!(key);
            shown["update_ts"] = json!(worker.update_ts);
            shown
        });
        shown.collect()
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a worker is called that does not say who it is.
const NAMELESS: &str = "default";
/// The longest key of a worker, in bytes: that of a runner's.
const KEY_MAX: usize = 256;
/// The largest state of a worker, in bytes of JSON: a runner's own limit for what actors tell, twice.
const STATE_MAX: usize = 2 * 1024 * 1024;
/// Workers that are remembered.
const WORKERS_MAX: usize = 1_000;
/// The states of all of them, in bytes of JSON.
const ALL_MAX: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_was_silent_for_longest_is_forgotten_first() {
        let workers = Workers::default();
        for at in 0..=WORKERS_MAX {
            workers.merge(format!("{at:05}"), Patch::new().set("worker_status", "ready"), at as i64).unwrap();
        }
        let listed = workers.list();
        assert_eq!((listed.len(), &listed[0]["key"]), (WORKERS_MAX, &json!("00001")));

        let large = |at: i64| workers.merge(format!("{at}"), Patch::new().external("x", "y".repeat(1 << 20)), at);
        for at in 10_000..10_100 {
            large(at).unwrap();
        }
        let listed = workers.list();
        assert!(listed.len() < 32 && listed.last().unwrap()["key"] == "10099", "{}", listed.len());
        let too_large = Patch::new().external("z", "y".repeat(STATE_MAX));
        assert!(workers.merge("10099".to_owned(), too_large, 20_000).is_err());
        assert_eq!(workers.list().last().unwrap()["update_ts"], 10_099);
    }
}
