//! Clients that write, create and set alarms through whatever happens, and note what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::scene::{Scene, Told};
use crate::actor::now_ms;
use crate::chaos::dice::Dice;
use crate::http;
use crate::ledger::content;

/// Everything that clients were told, kept by nobody but them.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Values by actor and key. A key that a write was left unanswered for is not written again: the write may happen
    /// late.
    pub values: BTreeMap<(String, String), Written>,
    pub created: BTreeSet<String>,
    /// Alarms by actor and name: when they are due.
    alarms: BTreeMap<(String, String), i64>,
    /// Numbers that were given out.
    last: u64,
    /// Requests with a good answer, and without.
    answered: u64,
    unanswered: u64,
    writes: u64,
}

/// The numbers written under a key, which only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub acknowledged: u64,
    pub sent: u64,
}

/// The clients between two checks.
pub struct Load {
    ledger: Arc<Mutex<Acknowledged>>,
    over: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Client {
    authority: String,
    ledger: Arc<Mutex<Acknowledged>>,
    over: watch::Receiver<bool>,
    dice: Dice,
}

impl Acknowledged {
    /// Alarms that should have been told by now and were not.
    pub fn alarms_not_told(&self, told: &[Told]) -> Vec<(String, String, i64)> {
        let told: BTreeSet<(&str, &str)> = told.iter().map(|told| (&*told.actor, &*told.name)).collect();
        let missing = self.alarms.iter().filter(|((actor, name), _)| !told.contains(&(&**actor, &**name)));
        missing.map(|((actor, name), due)| (actor.clone(), name.clone(), *due)).collect()
    }
}

impl Load {
    pub fn start(scene: &Scene, ledger: Acknowledged, dice: &mut Dice) -> Self {
        let ledger = Arc::new(Mutex::new(ledger));
        let over = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let mut client = || Client {
            authority: scene.door(),
            ledger: Arc::clone(&ledger),
            over: over.subscribe(),
            dice: dice.fork(),
        };
        for (place, actor) in scene.actors.iter().enumerate() {
            // The others have nothing to do but alarms, and sleep between them.
            if place % 2 == 0 {
                tasks.spawn(client().write(actor.clone()));
                tasks.spawn(client().write(actor.clone()));
            }
            tasks.spawn(client().set_alarms(actor.clone()));
        }
        tasks.spawn(client().create());
        Load { ledger, over, tasks }
    }

    /// Lets them finish what they are at.
    pub async fn over(mut self) -> Acknowledged {
        self.over.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client fails");
        }
        std::mem::take(&mut *self.ledger.lock().expect("no panic while it is held"))
    }
}

impl Client {
    async fn write(mut self, actor: String) {
        let mut key = format!("k{}", self.number());
        while !self.is_over() {
            let number = self.number();
            let place = (actor.clone(), key.clone());
            self.ledger().values.entry(place.clone()).or_default().sent = number;
            let path = format!("/gateway/{actor}/put?{key}");
            if self.ask("PUT", &path, content(number)).await.is_some() {
                let mut ledger = self.ledger();
                ledger.values.entry(place).or_default().acknowledged = number;
                ledger.writes += 1;
            } else {
                key = format!("k{number}");
            }
            self.pause(0, 20).await;
        }
    }

    async fn set_alarms(mut self, actor: String) {
        while !self.is_over() {
            // Some are due before whatever happens next, some are long after.
            let due = now_ms() + i64::try_from(self.dice.between(100, 5_000)).expect("small");
            let name = format!("n{}-{due}", self.number());
            let path = format!("/gateway/{actor}/alarm?{name}@{due}");
            if self.ask("POST", &path, String::new()).await.is_some() {
                self.ledger().alarms.insert((actor.clone(), name), due);
            }
            // Too soon for some to be told awake.
            if self.dice.between(0, 3) == 0 {
                self.ask("POST", &format!("/gateway/{actor}/sleep"), String::new()).await;
            }
            self.pause(300, 1_500).await;
        }
    }

    async fn create(mut self) {
        while !self.is_over() {
            let body = serde_json::json!({
                "name": super::scene::GUEST,
                "key": format!("created/{}", self.number()),
                "runner_name_selector": super::scene::POOL,
                "crash_policy": "sleep",
            });
            if let Some(answer) = self.ask("PUT", "/actors?namespace=default", body.to_string()).await {
                let id = answer.json()["actor"]["actor_id"].as_str().expect("an id").to_owned();
                self.ledger().created.insert(id);
            }
            self.pause(100, 500).await;
        }
    }

    /// The answer, if it was given in time and says that it was done.
    async fn ask(&self, method: &str, path: &str, body: String) -> Option<http::Answer> {
        let answer = timeout(PATIENCE, http::send(&self.authority, method, path, body)).await.ok().flatten();
        let done = answer.filter(|answer| answer.status == 200);
        if done.is_some() {
            self.ledger().answered += 1;
        } else {
            self.ledger().unanswered += 1;
            sleep(Duration::from_millis(100)).await;
        }
        done
    }

    async fn pause(&mut self, low: u64, high: u64) {
        sleep(Duration::from_millis(self.dice.between(low, high))).await;
    }

    fn number(&self) -> u64 {
        let mut ledger = self.ledger();
        ledger.last += 1;
        ledger.last
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    fn ledger(&self) -> MutexGuard<'_, Acknowledged> {
        self.ledger.lock().expect("no panic while it is held")
    }
}

impl fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Acknowledged { values, created, alarms, answered, unanswered, writes, last: _ } = self;
        let (keys, created, alarms) = (values.len(), created.len(), alarms.len());
        write!(f, "{answered} good answers and {unanswered} others; acknowledged: ")?;
        write!(f, "{writes} writes of {keys} keys, {created} actors, {alarms} alarms")
    }
}

/// How long a client waits for an answer; then it does not know.
const PATIENCE: Duration = Duration::from_secs(3);
