//! The gateway, the network and the runners, and everything that can happen to them.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::cut::{Cut, Weather};
use super::dice::Dice;
use crate::actor::now_ms;
use crate::gateway::{Gateway, PATIENCE};
use crate::http;

/// Something that happens to those below the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Processes of actors are killed.
    KillActors,
    /// Actors are put to sleep.
    Sleep,
    /// The runner is killed, and started again after a while.
    KillRunner,
    /// The runner is told to stop, and started again.
    RestartRunner,
    /// Another runner is started, and the old one told to stop.
    ReplaceRunner,
    /// The runner stands still for a while.
    Pause,
    /// The runner's connections are reset, and new ones refused for a while.
    Cut,
    /// Nothing passes between runner and gateway for a while, and nobody is told.
    Silence,
    /// The gateway is killed, and started again on its data.
    KillGateway,
}

impl Trouble {
    pub const BELOW_THE_GATEWAY: [Trouble; 8] = [
        Trouble::KillActors,
        Trouble::Sleep,
        Trouble::KillRunner,
        Trouble::RestartRunner,
        Trouble::ReplaceRunner,
        Trouble::Pause,
        Trouble::Cut,
        Trouble::Silence,
    ];
}

/// When something happened, and until when it lasted.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    pub trouble: Trouble,
    pub from: i64,
    pub until: i64,
}

pub struct Scene {
    folder: TempDir,
    pub gateway: Option<Gateway>,
    cut: Cut,
    runner: Runner,
    started: usize,
    pub actors: Vec<String>,
    pub happened: Vec<Happened>,
    dice: Dice,
}

/// A runner process; which of the two places it has its data in.
struct Runner {
    child: Child,
    place: usize,
}

impl Scene {
    /// A gateway, a runner, and some actors. Every other one sleeps when it crashes, the rest start again at once.
    pub async fn set(actors: usize, dice: &mut Dice) -> Self {
        let folder = TempDir::with_prefix("chaos-").expect("a directory");
        let gateway = start_gateway(&folder, "127.0.0.1:0").await;
        let port = gateway.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let cut = Cut::before(port).await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/chaos/room.mjs");
        let file = format!(
            "[actors.room]\ncommand = [\"node\", {script:?}]\nenv = {{ LEDGER = {:?} }}\nstop_grace = \"5s\"\nsandbox = \"off\"\n",
            folder.path().join(LEDGER)
        );
        std::fs::write(folder.path().join("actors.toml"), file).expect("it is written");
        let runner = start_runner(&folder, cut.port, 0, 0);
        let mut scene = Scene {
            folder,
            gateway: Some(gateway),
            cut,
            runner,
            started: 1,
            actors: Vec::new(),
            happened: Vec::new(),
            dice: dice.fork(),
        };
        for number in 0..actors {
            let actor = scene.create(number).await;
            scene.actors.push(actor);
        }
        scene
    }

    pub fn authority(&self) -> &str {
        &self.gateway.as_ref().expect("it runs").authority
    }

    /// Lets something happen; it is over when this returns.
    pub async fn befall(&mut self, trouble: Trouble) {
        let from = now_ms();
        match trouble {
            Trouble::KillActors => self.kill_actors(),
            Trouble::Sleep => self.put_to_sleep().await,
            Trouble::KillRunner => {
                self.signal(Signal::KILL);
                self.runner_ended().await;
                self.wait_up_to(2_000).await;
                self.start_runner(self.runner.place);
            }
            Trouble::RestartRunner => {
                self.signal(Signal::TERM);
                assert_eq!(self.runner_ended().await, Some(0), "the runner stops cleanly");
                self.start_runner(self.runner.place);
            }
            Trouble::ReplaceRunner => {
                let place = 1 - self.runner.place;
                let new = start_runner(&self.folder, self.cut.port, place, self.started);
                self.started += 1;
                self.wait_up_to(2_000).await;
                let mut old = std::mem::replace(&mut self.runner, new);
                signal(&old.child, Signal::TERM);
                assert_eq!(ended(&mut old.child).await, Some(0), "the runner stops cleanly");
            }
            Trouble::Pause => {
                self.signal(Signal::STOP);
                self.wait_up_to(5_000).await;
                self.signal(Signal::CONT);
            }
            Trouble::Cut => self.spell(Weather::Down).await,
            Trouble::Silence => self.spell(Weather::Silent).await,
            Trouble::KillGateway => {
                let mut gateway = self.gateway.take().expect("it runs");
                gateway.kill();
                gateway.ended().await;
                self.gateway = Some(start_gateway(&self.folder, &gateway.authority).await);
            }
        }
        self.happened.push(Happened { trouble, from, until: now_ms() });
    }

    /// What the actors have put down so far, oldest first.
    pub fn ledger(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join(LEDGER)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Has every actor run, whatever state it is in.
    pub async fn wake_all(&self) {
        for actor in &self.actors {
            let _ = timeout(PATIENCE, http::send(self.authority(), "GET", &format!("/gateway/{actor}/"), "")).await;
        }
    }

    /// Puts some of the actors to sleep, as far as they can be reached.
    pub async fn put_to_sleep(&mut self) {
        for actor in self.some_actors() {
            let path = format!("/gateway/{actor}/sleep");
            let _ = timeout(Duration::from_secs(5), http::send(self.authority(), "GET", &path, "")).await;
        }
    }

    /// Stops the runner; it was the end.
    pub async fn close(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let code = self.runner_ended().await;
        self.gateway.take().expect("it runs").stop().await;
        code
    }

    /// Keeps what was written, for somebody to look at.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    async fn create(&self, number: usize) -> String {
        let policy = ["sleep", "restart"][number % 2];
        let body = serde_json::json!({
            "name": "room", "key": format!("room/{number}"), "runner_name_selector": POOL, "crash_policy": policy,
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = http::send(self.authority(), "PUT", "/actors?namespace=default", body.to_string()).await;
            let answer = answer.expect("an answer");
            if answer.status == 200 {
                return answer.json()["actor"]["actor_id"].as_str().expect("an id").to_owned();
            }
            assert!(Instant::now() < deadline, "{}", answer.text());
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn some_actors(&mut self) -> Vec<String> {
        let mut actors = self.actors.clone();
        self.dice.shuffle(&mut actors);
        actors.truncate(actors.len().div_ceil(2));
        actors
    }

    fn kill_actors(&mut self) {
        let ledger = self.ledger();
        for actor in self.some_actors() {
            let start = ledger.iter().rev().find(|line| line["what"] == "start" && line["actor"] == *actor);
            let Some(pid) = start.and_then(|line| i32::try_from(line["pid"].as_i64()?).ok()) else { continue };
            // It may have ended; then its number may have become somebody else's.
            let command = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
            if command.contains(&format!("ACTOR_ID={actor}\0"))
                && let Some(pid) = Pid::from_raw(pid)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    fn start_runner(&mut self, place: usize) {
        self.runner = start_runner(&self.folder, self.cut.port, place, self.started);
        self.started += 1;
    }

    async fn spell(&mut self, weather: Weather) {
        let length = Duration::from_millis(self.dice.between(100, 5_000));
        self.cut.spell(weather, length).await.expect("it ends");
    }

    async fn wait_up_to(&mut self, ms: u64) {
        sleep(Duration::from_millis(self.dice.between(0, ms))).await;
    }

    fn signal(&self, which: Signal) {
        signal(&self.runner.child, which);
    }

    async fn runner_ended(&mut self) -> Option<i32> {
        ended(&mut self.runner.child).await
    }
}

async fn start_gateway(folder: &TempDir, listen: &str) -> Gateway {
    Gateway::start_losing_runners_after(&folder.path().join("gateway"), listen, LOST_AFTER).await
}

fn start_runner(folder: &TempDir, port: u16, place: usize, number: usize) -> Runner {
    let log = File::create(folder.path().join(format!("runner-{number}.log"))).expect("it is created");
    let child = Command::new(env!("CARGO_BIN_EXE_greenroom"))
        .args([
            "run",
            "--allow-root",
            "--runner-name",
            POOL,
            "--admin",
            "off",
            "--log",
            "debug",
            "--log-format",
            "text",
        ])
        .args(["--endpoint", &format!("http://127.0.0.1:{port}")])
        .arg("--actors")
        .arg(folder.path().join("actors.toml"))
        .arg("--data-dir")
        .arg(folder.path().join(["a", "b"][place]))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a path"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the runner starts");
    Runner { child, place }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
    kill_process(pid, signal).expect("it is told");
}

async fn ended(child: &mut Child) -> Option<i32> {
    timeout(PATIENCE, child.wait()).await.expect("it ends").expect("a status").code()
}

const POOL: &str = "chaos";
const LEDGER: &str = "ledger.jsonl";
/// Short, so that some pauses and cuts are longer.
const LOST_AFTER: &str = "3s";
