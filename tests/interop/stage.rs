//! One gateway, one runner, the network between them, and what was seen of the hooks.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    client::Client,
    cut::Cut,
    engine::Engine,
    greenroom::{Gateway, RunnerPlace},
    process::{Process, poll},
    scenarios, ts_runner,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GatewaySide {
    RealEngine,
    Ours,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunnerSide {
    TypeScript,
    Ours,
}

/// One entry of the list.
pub struct Scenario {
    pub name: &'static str,
    pub play: fn(Arc<Stage>) -> BoxFuture<'static, ()>,
    /// Which pairings it is for.
    pub fits: fn(GatewaySide, RunnerSide) -> bool,
}

/// What a scenario works with. The runner reaches the gateway through `cut`; clients reach it directly.
pub struct Stage {
    pub gateway_side: GatewaySide,
    pub runner_side: RunnerSide,
    pub client: Client,
    pub cut: Cut,
    pub pool: &'static str,
    place: RunnerPlace,
    runner: Mutex<Option<Process>>,
    gateway: GatewayProcess,
    hooks: PathBuf,
    keys: AtomicU32,
    made: std::sync::Mutex<Vec<String>>,
    _folder: TempDir,
}

enum GatewayProcess {
    Engine(Engine),
    Ours(Gateway),
}

/// Plays every fitting scenario in order on one pair of processes; a failed one does not keep the others from running.
/// With `SCENARIO` set, only those whose name contains it.
pub async fn play(gateway_side: GatewaySide, runner_side: RunnerSide) {
    let stage = Arc::new(Stage::set(gateway_side, runner_side).await);
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut failed = Vec::new();
    for scenario in scenarios::ALL {
        if !(scenario.fits)(gateway_side, runner_side) || !scenario.name.contains(&only) {
            continue;
        }
        let started = Instant::now();
        stage.ensure_runner().await;
        let task = tokio::spawn((scenario.play)(stage.clone()));
        let abort = task.abort_handle();
        let outcome = match tokio::time::timeout(SCENARIO_LIMIT, task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(panic)) => Err(message(panic)),
            Err(_) => {
                abort.abort();
                Err(format!("not finished within {SCENARIO_LIMIT:?}"))
            }
        };
        let seconds = started.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => eprintln!("ok     {seconds:5.1} s  {} ({gateway_side:?}, {runner_side:?})", scenario.name),
            Err(why) => {
                eprintln!("FAILED {seconds:5.1} s  {} ({gateway_side:?}, {runner_side:?}): {why}", scenario.name);
                failed.push(format!("{}: {why}\n{}", scenario.name, stage.tails(25).await));
            }
        }
        stage.clear().await;
    }
    assert!(
        failed.is_empty(),
        "{} failed on {gateway_side:?} with {runner_side:?}\n\n{}",
        failed.len(),
        failed.join("\n")
    );
}

impl Stage {
    async fn set(gateway_side: GatewaySide, runner_side: RunnerSide) -> Self {
        let (gateway, port) = match gateway_side {
            GatewaySide::RealEngine => {
                let engine = Engine::start().await;
                let port = engine.port;
                (GatewayProcess::Engine(engine), port)
            }
            GatewaySide::Ours => {
                let gateway = Gateway::start().await;
                let port = gateway.port;
                (GatewayProcess::Ours(gateway), port)
            }
        };
        let cut = Cut::before(port).await;
        let folder = TempDir::with_prefix("interop-hooks-").expect("a temporary folder");
        let hooks = folder.path().join("hooks.jsonl");
        let pool = "pool";
        let place = RunnerPlace::new(cut.port, pool, &hooks);
        Self {
            gateway_side,
            runner_side,
            client: Client::new(port),
            cut,
            pool,
            place,
            runner: Mutex::new(None),
            gateway,
            hooks,
            keys: AtomicU32::new(0),
            made: std::sync::Mutex::default(),
            _folder: folder,
        }
    }

    /// Starts a runner unless one is running, and waits until actors can be created on it.
    pub async fn ensure_runner(&self) {
        let mut runner = self.runner.lock().await;
        if runner.as_mut().is_some_and(Process::is_running) {
            return;
        }
        let started = now_ms();
        *runner = Some(self.start_runner());
        drop(runner);
        let ready = poll(Duration::from_secs(20), || async {
            if self.connected_since(started).await {
                return Some(true);
            }
            (!self.runner.lock().await.as_mut().is_some_and(Process::is_running)).then_some(false)
        });
        assert!(ready.await == Some(true), "the runner never became visible\n{}", self.tails(25).await);
    }

    /// Another process of the same runner, not watched by the stage.
    pub fn start_runner(&self) -> Process {
        match self.runner_side {
            RunnerSide::TypeScript => ts_runner::start(self.cut.port, self.pool, &self.hooks),
            RunnerSide::Ours => self.place.start(),
        }
    }

    /// One more runner of ours beside the stage's own: a data folder of its own, and more flags.
    pub fn start_our_runner_with(&self, data: &str, flags: &[&str]) -> Process {
        self.place.start_with(data, flags)
    }

    /// Takes the runner away with a signal; gives the process for its exit and its output.
    pub async fn signal_runner(&self, signal: Signal) -> Process {
        let runner = self.runner.lock().await.take().expect("a runner is running");
        runner.signal(signal);
        runner
    }

    /// A fresh actor that is up and running.
    pub async fn actor(&self, crash_policy: &str) -> String {
        let id = self.create(&self.fresh_key(), crash_policy).await;
        self.client.actor_when(&id, "connectable_ts", Duration::from_secs(15)).await;
        id
    }

    /// An actor of the runner's pool, which may not be up yet. It lives until the scenario ends.
    pub async fn create(&self, key: &str, crash_policy: &str) -> String {
        let id = self.client.create(self.pool, key, crash_policy).await;
        self.made.lock().unwrap().push(id.clone());
        id
    }

    /// A fresh actor that takes its sockets as events, up and running. Only our runner hosts it.
    pub async fn room(&self, crash_policy: &str) -> String {
        let id = self.client.create_named("room", self.pool, &self.fresh_key(), crash_policy).await;
        self.made.lock().unwrap().push(id.clone());
        self.client.actor_when(&id, "connectable_ts", Duration::from_secs(15)).await;
        id
    }

    /// Deletes what a scenario made, so that the next one does not share the machine with it.
    async fn clear(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        for id in made {
            let _ = self.client.call("DELETE", &format!("/actors/{id}?namespace=default"), &[], "").await;
        }
    }

    pub fn fresh_key(&self) -> String {
        format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed))
    }

    /// The hooks of an actor seen so far, oldest first.
    pub fn hooks_of(&self, id: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.hooks).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|hook| hook["actor"] == id)
            .collect()
    }

    /// How often a hook ran for each generation of an actor.
    pub fn runs_of(&self, id: &str, hook: &str) -> BTreeMap<u64, usize> {
        let mut runs = BTreeMap::new();
        for seen in self.hooks_of(id).iter().filter(|seen| seen["hook"] == hook) {
            *runs.entry(seen["generation"].as_u64().expect("a hook has a generation")).or_default() += 1;
        }
        runs
    }

    /// Waits until a hook ran for a generation.
    pub async fn hook_ran(&self, id: &str, hook: &str, generation: u64) {
        self.hook_ran_within(id, hook, generation, Duration::from_secs(15)).await;
    }

    pub async fn hook_ran_within(&self, id: &str, hook: &str, generation: u64, limit: Duration) {
        let ran = poll(limit, || async { self.runs_of(id, hook).contains_key(&generation).then_some(()) }).await;
        assert!(ran.is_some(), "no {hook} hook for generation {generation} within {limit:?}: {:?}", self.hooks_of(id));
    }

    /// The law that no start hook runs twice for one generation. The TypeScript runner is known to break it when the
    /// gateway delivers a start again, so there the breach is only reported.
    pub fn assert_started_once_per_generation(&self, id: &str) {
        for hook in ["start", "start_event"] {
            let runs = self.runs_of(id, hook);
            let once = runs.values().all(|count| *count == 1);
            match self.runner_side {
                RunnerSide::Ours => assert!(once, "{hook} hooks per generation: {runs:?}"),
                RunnerSide::TypeScript if !once => eprintln!("       as known: {hook} hooks per generation {runs:?}"),
                RunnerSide::TypeScript => {}
            }
        }
    }

    /// The last lines of every process and of the hooks, for a failure.
    pub async fn tails(&self, count: usize) -> String {
        let gateway = match &self.gateway {
            GatewayProcess::Engine(engine) => engine.process.tail(count),
            GatewayProcess::Ours(gateway) => gateway.process.tail(count),
        };
        let runner = match &*self.runner.lock().await {
            Some(runner) => runner.tail(count),
            None => "---- no runner\n".to_owned(),
        };
        let hooks = std::fs::read_to_string(&self.hooks).unwrap_or_default();
        let hooks: Vec<_> = hooks.lines().collect();
        let hooks = hooks[hooks.len().saturating_sub(count)..].join("\n");
        format!("{gateway}{runner}---- hooks\n{hooks}\n")
    }

    /// Whether a runner of the pool connected after that time; an older entry may be one that just died.
    async fn connected_since(&self, since_ms: u64) -> bool {
        let config = self.client.get("/runner-configs?namespace=default").await;
        let runners = self.client.get("/runners?namespace=default").await;
        let (Ok(config), Ok(runners)) = (config, runners) else { return false };
        let configured = config.json()["runner_configs"][self.pool].is_object();
        // A runner that comes back under the identity it had says so in its log: the engine keeps the time of the first
        // connection.
        let says_so = self.runner_side == RunnerSide::Ours
            && self
                .runner
                .lock()
                .await
                .as_ref()
                .is_some_and(|runner| runner.output().contains("connected to the gateway"));
        let connected = runners.json()["runners"].as_array().is_some_and(|runners| {
            runners.iter().any(|runner| {
                let connected_ts = runner["last_connected_ts"].as_u64().unwrap_or(0);
                runner["name"] == self.pool
                    && (connected_ts >= since_ms || says_so && !runner["metadata"].is_null())
                    && runner["drain_ts"].is_null()
            })
        });
        configured && connected
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(now.as_millis()).expect("milliseconds fit for a long time")
}

fn message(panic: tokio::task::JoinError) -> String {
    let Ok(panic) = panic.try_into_panic() else { return "cancelled".to_owned() };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => {
            panic.downcast::<&str>().map_or_else(|_| "a panic without words".to_owned(), |text| text.to_string())
        }
    }
}

/// Longer than any deadline inside a scenario: the engine alone may take 30 s to declare a runner lost.
const SCENARIO_LIMIT: Duration = Duration::from_secs(120);
