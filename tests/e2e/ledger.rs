//! What clients were told, and whether it still holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use data_encoding::BASE64;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::actor::{LIVES, now_ms};
use crate::gateway::PATIENCE;
use crate::http;

/// Everything that was acknowledged, and what was asked for without an answer.
#[derive(Default)]
pub struct Ledger(Mutex<Noted>);

#[derive(Default)]
pub struct Noted {
    /// Values by actor and key.
    values: BTreeMap<(String, String), Written>,
    /// Actors that a client was told of, by id.
    created: BTreeSet<String>,
    /// Keys that a client wanted an actor for and got no answer.
    unclear: BTreeSet<String>,
    /// Actors whose end a client was told, or asked for.
    destroyed: BTreeMap<String, bool>,
    /// Actors that were seen asleep, with the life they slept after.
    asleep: BTreeMap<String, String>,
    /// Alarms of actors seen asleep: when, and after which life.
    alarms: BTreeMap<String, (i64, String)>,
    acknowledged: usize,
}

/// The numbers written under a key, which only grow.
#[derive(Clone, Copy, Default)]
struct Written {
    acknowledged: u64,
    sent: u64,
}

impl Ledger {
    /// How many answers there were.
    pub fn acknowledged(&self) -> usize {
        self.lock().acknowledged
    }

    pub fn writing(&self, actor: &str, key: &str, number: u64) {
        self.lock().values.entry((actor.to_owned(), key.to_owned())).or_default().sent = number;
    }

    pub fn written(&self, actor: &str, key: &str, number: u64) {
        let mut noted = self.lock();
        noted.values.entry((actor.to_owned(), key.to_owned())).or_default().acknowledged = number;
        noted.acknowledged += 1;
    }

    pub fn creating(&self, key: &str) {
        self.lock().unclear.insert(key.to_owned());
    }

    pub fn created(&self, key: &str, actor: &str) {
        let mut noted = self.lock();
        noted.unclear.remove(key);
        noted.created.insert(actor.to_owned());
        noted.acknowledged += 1;
    }

    pub fn destroying(&self, actor: &str) {
        self.lock().destroyed.entry(actor.to_owned()).or_insert(false);
    }

    pub fn destroyed(&self, actor: &str) {
        let mut noted = self.lock();
        noted.destroyed.insert(actor.to_owned(), true);
        noted.acknowledged += 1;
    }

    pub fn asleep(&self, actor: &str, life: &str) {
        let mut noted = self.lock();
        noted.asleep.insert(actor.to_owned(), life.to_owned());
        noted.acknowledged += 1;
    }

    pub fn asleep_until(&self, actor: &str, at: i64, life: &str) {
        let mut noted = self.lock();
        noted.alarms.insert(actor.to_owned(), (at, life.to_owned()));
        noted.acknowledged += 1;
    }

    /// Everything holds at this gateway.
    pub async fn check(&self, authority: &str) {
        let noted = std::mem::take(&mut *self.lock());
        for ((actor, key), written) in &noted.values {
            check_value(authority, actor, key, *written).await;
        }
        let ids: Vec<&String> = noted.created.iter().collect();
        for ids in ids.chunks(32) {
            let shown = actors(authority, ids).await;
            for id in ids {
                let actor = shown.get(*id).unwrap_or_else(|| panic!("the acknowledged actor {id} is gone"));
                match noted.destroyed.get(*id) {
                    None => assert!(actor["destroy_ts"].is_null(), "nobody destroyed {actor}"),
                    Some(true) => assert!(actor["destroy_ts"].is_i64(), "its end was acknowledged: {actor}"),
                    Some(false) => {}
                }
            }
        }
        for (actor, _) in noted.destroyed.iter().filter(|(_, told)| **told) {
            assert_eq!(value(authority, actor, LIVES).await, None, "{actor} is gone with its storage");
        }
        for (actor, life) in &noted.asleep {
            let shown = actors(authority, &[actor]).await;
            assert!(shown[actor]["sleep_ts"].is_i64(), "it slept: {}", shown[actor]);
            assert_eq!(value(authority, actor, LIVES).await.as_ref(), Some(life), "nobody woke {actor}");
        }
        *self.lock() = noted;
        self.settle_unclear(authority).await;
    }

    /// Every alarm goes off, none before its time.
    pub async fn check_alarms(&self, authority: &str) {
        let alarms = std::mem::take(&mut self.lock().alarms);
        for (actor, (at, life)) in alarms {
            let woken = async {
                loop {
                    match value(authority, &actor, LIVES).await {
                        Some(now) if now != life => return,
                        Some(_) | None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                    }
                }
            };
            let woken = tokio::time::timeout(PATIENCE, woken).await;
            assert!(woken.is_ok(), "the alarm of {actor}, due at {at}, never went off");
            assert!(now_ms() >= at, "{actor} woke before its alarm");
        }
    }

    /// An actor that was asked for without an answer exists once or not at all; asked for again, it does.
    async fn settle_unclear(&self, authority: &str) {
        let unclear = std::mem::take(&mut self.lock().unclear);
        for key in unclear {
            let first = create(authority, "PUT", &key).await.expect("an answer").json();
            let again = create(authority, "PUT", &key).await.expect("an answer").json();
            assert_eq!(again["created"], false, "{again}");
            assert_eq!(first["actor"]["actor_id"], again["actor"]["actor_id"]);
            self.created(&key, first["actor"]["actor_id"].as_str().expect("an id"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().expect("no panic while it is held")
    }
}

/// Creates an actor with a key.
pub async fn create(authority: &str, method: &str, key: &str) -> Option<http::Answer> {
    let body = serde_json::json!({
        "name": crate::actor::NAME,
        "key": key,
        "runner_name_selector": crate::actor::POOL,
        "crash_policy": "sleep",
    });
    http::send(authority, method, "/actors?namespace=default", body.to_string()).await
}

/// Actors as the API shows them.
pub async fn actors(authority: &str, ids: &[&String]) -> BTreeMap<String, Value> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    let path = format!("/actors?namespace=default&actor_ids={}", ids.join(","));
    let answer = http::send(authority, "GET", &path, "").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = answer.json();
    let shown = shown["actors"].as_array().expect("a list").iter();
    shown.map(|actor| (actor["actor_id"].as_str().expect("an id").to_owned(), actor.clone())).collect()
}

/// A stored value, asked for from outside.
pub async fn value(authority: &str, actor: &str, key: &str) -> Option<String> {
    let key = BASE64.encode(key.as_bytes());
    let key = utf8_percent_encode(&key, NON_ALPHANUMERIC);
    let path = format!("/actors/{actor}/kv/keys/{key}?namespace=default");
    let answer = http::send(authority, "GET", &path, "").await.expect("an answer");
    match answer.status {
        200 => {
            let value = BASE64.decode(answer.json()["value"].as_str().expect("a value").as_bytes()).expect("base64");
            Some(String::from_utf8(value).expect("text"))
        }
        400 => None,
        _ => panic!("{}", answer.text()),
    }
}

async fn check_value(authority: &str, actor: &str, key: &str, written: Written) {
    let stored = value(authority, actor, key).await;
    let Written { acknowledged, sent } = written;
    match &stored {
        None => assert_eq!(acknowledged, 0, "{actor} {key}: the acknowledged {acknowledged} is gone"),
        Some(text) => {
            // What was written is a number and filling that follows from it, so that half a value is noticed.
            let number: u64 = text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
            assert_eq!(*text, content(number), "{actor} {key}");
            assert!((acknowledged..=sent).contains(&number), "{actor} {key}: {number} in {acknowledged}..={sent}");
        }
    }
}

/// What is written under a number: of lengths that fit a page of the database, and that do not.
pub fn content(number: u64) -> String {
    let filling = usize::try_from(number * 37 % 6_000).expect("small");
    format!("{number} {}", "x".repeat(filling))
}
