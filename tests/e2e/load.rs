//! Clients that write, create, destroy, and send actors to sleep, until the gateway is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::actor::{LIVES, now_ms};
use crate::http;
use crate::ledger::{Ledger, actors, content, create, value};

/// The clients of one round.
pub struct Load {
    tasks: JoinSet<()>,
    over: Arc<AtomicBool>,
}

/// What every client knows.
#[derive(Clone)]
struct Client {
    authority: String,
    ledger: Arc<Ledger>,
    /// The gateway is being killed: requests may go unanswered from here on.
    over: Arc<AtomicBool>,
    round: u32,
}

impl Load {
    /// Lets them all begin. `writers` are actors that exist.
    pub fn start(authority: &str, ledger: &Arc<Ledger>, writers: &[String], round: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client =
            Client { authority: authority.to_owned(), ledger: Arc::clone(ledger), over: Arc::clone(&over), round };
        let mut tasks = JoinSet::new();
        for actor in writers {
            tasks.spawn(client.clone().write(actor.clone()));
        }
        for number in 0..CREATORS {
            tasks.spawn(client.clone().create(number));
        }
        tasks.spawn(client.clone().sleep());
        tasks.spawn(client.set_alarms());
        Load { tasks, over }
    }

    /// From here on the gateway may be gone.
    pub fn over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Waits until all have noticed.
    pub async fn ended(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client fails");
        }
    }
}

impl Client {
    /// Writes ever greater numbers under a few keys.
    async fn write(self, actor: String) {
        for number in u64::from(self.round) * 1_000_000 + 1.. {
            let key = format!("k{}", number % 5);
            self.ledger.writing(&actor, &key, number);
            let path = format!("/gateway/{actor}/put?{key}");
            match self.send("PUT", &path, content(number)).await {
                Some(200) => self.ledger.written(&actor, &key, number),
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Creates actors, and destroys every third.
    async fn create(self, creator: u32) {
        for number in 0.. {
            let key = format!("{}/{creator}/{number}", self.round);
            let Some(actor) = self.make(&key).await else { return };
            if number % 3 == 0 {
                self.ledger.destroying(&actor);
                match self.send("DELETE", &format!("/actors/{actor}?namespace=default"), String::new()).await {
                    Some(200) => self.ledger.destroyed(&actor),
                    Some(_) => {}
                    None => return,
                }
            }
        }
    }

    /// Sends actors to sleep that nobody wakes again.
    async fn sleep(self) {
        for number in 0.. {
            let Some(actor) = self.make(&format!("{}/sleeper/{number}", self.round)).await else { return };
            if self.send("GET", &format!("/gateway/{actor}/sleep"), String::new()).await.is_none() {
                return;
            }
            let Some(life) = self.asleep(&actor).await else { return };
            self.ledger.asleep(&actor, &life);
        }
    }

    /// Sends actors to sleep that an alarm wakes: some while the gateway is gone, some after.
    async fn set_alarms(self) {
        for number in 0.. {
            let Some(actor) = self.make(&format!("{}/alarm/{number}", self.round)).await else { return };
            let at = now_ms() + 500 + 700 * (number % 4);
            if self.send("GET", &format!("/gateway/{actor}/sleep-until?{at}"), String::new()).await.is_none() {
                return;
            }
            let Some(life) = self.asleep(&actor).await else { return };
            // When it has gone off already there is nothing left to wait for.
            if now_ms() + 200 < at {
                self.ledger.asleep_until(&actor, at, &life);
            }
        }
    }

    /// A new actor; nothing when the gateway is gone.
    async fn make(&self, key: &str) -> Option<String> {
        self.ledger.creating(key);
        loop {
            match create(&self.authority, "PUT", key).await {
                Some(answer) if answer.status == 200 => {
                    let actor = answer.json()["actor"]["actor_id"].as_str().expect("an id").to_owned();
                    self.ledger.created(key, &actor);
                    return Some(actor);
                }
                Some(answer) => assert!(self.is_over(), "{}", answer.text()),
                None => {
                    assert!(self.is_over(), "the gateway is there");
                    return None;
                }
            }
        }
    }

    /// Waits until the API shows an actor asleep, and answers after which life; nothing when the gateway is gone.
    async fn asleep(&self, actor: &str) -> Option<String> {
        let client = self.clone();
        let actor = actor.to_owned();
        // Whatever fails here fails because the gateway is gone.
        let seen = tokio::spawn(async move {
            loop {
                if actors(&client.authority, &[&actor]).await[&actor]["sleep_ts"].is_i64() {
                    return value(&client.authority, &actor, LIVES).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        match seen.await {
            Ok(life) => life,
            Err(_) => {
                assert!(self.is_over(), "the gateway is there");
                None
            }
        }
    }

    /// The status of the answer; nothing when the gateway is gone.
    async fn send(&self, method: &str, path: &str, body: String) -> Option<u16> {
        match http::send(&self.authority, method, path, body).await {
            Some(answer) => {
                assert!(answer.status == 200 || self.is_over(), "{} {}", answer.status, answer.text());
                Some(answer.status)
            }
            None => {
                assert!(self.is_over(), "the gateway is there");
                None
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

const CREATORS: u32 = 3;
