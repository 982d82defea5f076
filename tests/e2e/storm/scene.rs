//! Gateway, runner, actors' processes and the networks between them, each of which can fail.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::chaos::cut::{Cut, Weather};
use crate::chaos::dice::Dice;
use crate::gateway::{Gateway, PATIENCE};
use crate::http;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    KillGateway,
    PauseGateway,
    /// The network between clients and gateway.
    CutClients,
    KillRunner,
    PauseRunner,
    /// The network between runner and gateway: connections are reset.
    CutRunner,
    /// The same, and nobody is told.
    SilenceRunner,
    KillActors,
    PauseActors,
    /// The app that serves many actors.
    KillApp,
    PauseApp,
    /// The network between runner and app.
    CutApp,
}

/// Processes of actors with a process each, and where their app is.
pub struct Scene {
    folder: TempDir,
    gateway: Option<Gateway>,
    /// Between clients and gateway.
    door: Cut,
    /// Between runner and gateway.
    wire: Cut,
    /// Between runner and app.
    hall: Cut,
    runner: Child,
    app: Child,
    app_port: u16,
    started: usize,
    pub actors: Vec<String>,
    /// What goes on and ends by itself.
    ongoing: Vec<JoinHandle<()>>,
    dice: Dice,
}

/// An alarm that an actor was told.
#[derive(Clone, Debug)]
pub struct Told {
    pub actor: String,
    pub name: String,
    /// When, in milliseconds since the epoch.
    pub at: i64,
}

impl Trouble {
    pub const ALL: [Trouble; 12] = [
        Trouble::KillGateway,
        Trouble::PauseGateway,
        Trouble::CutClients,
        Trouble::KillRunner,
        Trouble::PauseRunner,
        Trouble::CutRunner,
        Trouble::SilenceRunner,
        Trouble::KillActors,
        Trouble::PauseActors,
        Trouble::KillApp,
        Trouble::PauseApp,
        Trouble::CutApp,
    ];
}

impl Told {
    /// When it was due: its name ends with it.
    pub fn due(&self) -> Option<i64> {
        self.name.split_once('-')?.1.parse().ok()
    }
}

impl Scene {
    pub async fn set(dice: &mut Dice) -> Self {
        let folder = TempDir::with_prefix("storm-").expect("a directory");
        let gateway = start_gateway(folder.path(), "127.0.0.1:0").await;
        let port = gateway.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let (door, wire) = (Cut::before(port).await, Cut::before(port).await);
        // Free a moment ago; it has to be the same after every start.
        let free = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let app_port = free.local_addr().expect("a bound socket has an address").port();
        drop(free);
        let hall = Cut::before(app_port).await;
        let app = start_app(folder.path(), app_port);
        let file = format!(
            "[actors.{CLERK}]\ncommand = [\"node\", {SCRIPT:?}]\nenv = {{ LEDGER = {:?} }}\nsandbox = \"off\"\n\
             sleep_after = \"1s\"\nstop_grace = \"3s\"\n\n\
             [actors.{GUEST}]\nupstream = [\"http://127.0.0.1:{}\"]\nsleep_after = \"1s\"\nstop_grace = \"3s\"\n",
            folder.path().join(LEDGER),
            hall.port,
        );
        std::fs::write(folder.path().join("actors.toml"), file).expect("it is written");
        let runner = start_runner(folder.path(), wire.port, 0);
        let mut scene = Scene {
            folder,
            gateway: Some(gateway),
            door,
            wire,
            hall,
            runner,
            app,
            app_port,
            started: 1,
            actors: Vec::new(),
            ongoing: Vec::new(),
            dice: dice.fork(),
        };
        for number in 0..CLERKS + GUESTS {
            let kind = if number < CLERKS { CLERK } else { GUEST };
            let actor = scene.create(kind, number).await;
            scene.actors.push(actor);
        }
        scene
    }

    /// Where the gateway itself listens.
    pub fn authority(&self) -> &str {
        &self.gateway.as_ref().expect("it runs").authority
    }

    /// Where clients find it.
    pub fn door(&self) -> String {
        format!("127.0.0.1:{}", self.door.port)
    }

    /// Lets something happen. Often it is over when this returns; else the next thing happens on top of it.
    pub async fn befall(&mut self, trouble: Trouble) {
        let length = self.length();
        match trouble {
            Trouble::KillGateway => {
                let mut gateway = self.gateway.take().expect("it runs");
                gateway.kill();
                gateway.ended().await;
                self.gateway = Some(start_gateway(self.folder.path(), &gateway.authority).await);
            }
            Trouble::PauseGateway => {
                let pid = self.gateway.as_ref().expect("it runs").pid();
                self.pause(vec![pid], length);
            }
            Trouble::CutClients => self.ongoing.push(self.door.spell(Weather::Down, length)),
            Trouble::KillRunner => {
                signal(pid_of(&self.runner), Signal::KILL);
                ended(&mut self.runner).await;
                sleep(length / 2).await;
                self.runner = start_runner(self.folder.path(), self.wire.port, self.started);
                self.started += 1;
            }
            Trouble::PauseRunner => self.pause(vec![pid_of(&self.runner)], length),
            Trouble::CutRunner => self.ongoing.push(self.wire.spell(Weather::Down, length)),
            Trouble::SilenceRunner => self.ongoing.push(self.wire.spell(Weather::Silent, length)),
            Trouble::KillActors => self.clerks().into_iter().for_each(|pid| signal(pid, Signal::KILL)),
            Trouble::PauseActors => {
                let clerks = self.clerks();
                self.pause(clerks, length);
            }
            Trouble::KillApp => {
                signal(pid_of(&self.app), Signal::KILL);
                ended(&mut self.app).await;
                sleep(length / 2).await;
                self.app = start_app(self.folder.path(), self.app_port);
            }
            Trouble::PauseApp => self.pause(vec![pid_of(&self.app)], length),
            Trouble::CutApp => {
                let weather = if self.dice.between(0, 2) == 0 { Weather::Down } else { Weather::Silent };
                self.ongoing.push(self.hall.spell(weather, length));
            }
        }
        if self.dice.between(0, 3) > 0 {
            self.calm().await;
        }
    }

    /// Waits until everything that goes on is over.
    pub async fn calm(&mut self) {
        for over in std::mem::take(&mut self.ongoing) {
            over.await.expect("it ends");
        }
    }

    /// Has processes stand still for a while.
    fn pause(&mut self, processes: Vec<Pid>, length: Duration) {
        processes.iter().for_each(|pid| signal(*pid, Signal::STOP));
        self.ongoing.push(tokio::spawn(async move {
            sleep(length).await;
            processes.iter().for_each(|pid| signal(*pid, Signal::CONT));
        }));
    }

    /// Actors that do not serve within a minute, for a person.
    pub async fn unreachable(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for actor in &self.actors {
            let begin = Instant::now();
            let mut last = String::from("no answer");
            let served = async {
                let path = format!("/gateway/{actor}/");
                loop {
                    let asked = http::send(self.authority(), "GET", &path, "");
                    match timeout(Duration::from_secs(20), asked).await.ok().flatten() {
                        Some(answer) if answer.status == 200 => return,
                        Some(answer) => last = format!("{} {}", answer.status, answer.text()),
                        None => last = "no answer".to_owned(),
                    }
                    sleep(Duration::from_millis(200)).await;
                }
            };
            if timeout(PATIENCE, served).await.is_err() {
                wrong.push(format!("{actor} does not serve after {:?}: {last}", begin.elapsed()));
            }
        }
        wrong
    }

    /// The alarms that actors have put down.
    pub fn alarms_told(&self) -> Vec<Told> {
        let lines = self.ledger();
        let alarms = lines.iter().filter(|line| line["what"] == "alarm");
        let text = |line: &Value, field: &str| line[field].as_str().expect("a text").to_owned();
        alarms
            .map(|line| Told {
                actor: text(line, "actor"),
                name: text(line, "name"),
                at: line["at"].as_i64().expect("a time"),
            })
            .collect()
    }

    /// What the gateway called an error since it was started last.
    pub fn errors(&self) -> Vec<Value> {
        self.gateway.as_ref().expect("it runs").errors()
    }

    /// Stops all of it; how runner and gateway ended.
    pub async fn close(mut self) -> (Option<i32>, Option<i32>) {
        signal(pid_of(&self.runner), Signal::TERM);
        let runner = ended(&mut self.runner).await;
        (runner, self.gateway.take().expect("it runs").stop().await)
    }

    /// Keeps what was written, for somebody to look at.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    async fn create(&self, kind: &str, number: usize) -> String {
        let policy = ["sleep", "restart"][number % 2];
        let body = serde_json::json!({
            "name": kind, "key": format!("storm/{number}"), "runner_name_selector": POOL, "crash_policy": policy,
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

    fn ledger(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join(LEDGER)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Some of the processes that serve one actor each.
    fn clerks(&mut self) -> Vec<Pid> {
        let lines = self.ledger();
        let mut clerks = self.actors[..CLERKS].to_vec();
        self.dice.shuffle(&mut clerks);
        clerks.truncate(CLERKS.div_ceil(2));
        let newest = clerks.iter().filter_map(|actor| {
            let start = lines.iter().rev().find(|line| line["what"] == "start" && line["actor"] == **actor)?;
            let pid = i32::try_from(start["pid"].as_i64()?).ok()?;
            // It may have ended; then its number may have become somebody else's.
            let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environment.contains(&format!("ACTOR_ID={actor}\0")) { Pid::from_raw(pid) } else { None }
        });
        newest.collect()
    }

    /// Usually shorter than anybody's patience, sometimes longer than the gateway keeps actors of a runner that is
    /// away, now and then longer than it waits for a sign of life.
    fn length(&mut self) -> Duration {
        Duration::from_millis(match self.dice.between(0, 40) {
            0 => self.dice.between(15_000, 18_000),
            1..10 => self.dice.between(3_000, 5_000),
            _ => self.dice.between(50, 1_500),
        })
    }
}

async fn start_gateway(folder: &Path, listen: &str) -> Gateway {
    Gateway::start_losing_runners_after(&folder.join("gateway"), listen, LOST_AFTER).await
}

fn start_runner(folder: &Path, port: u16, number: usize) -> Child {
    let log = File::create(folder.join(format!("runner-{number}.log"))).expect("it is created");
    Command::new(env!("CARGO_BIN_EXE_greenroom"))
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
        .arg(folder.join("actors.toml"))
        .arg("--data-dir")
        .arg(folder.join("runner"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a path"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the runner starts")
}

fn start_app(folder: &Path, port: u16) -> Child {
    Command::new("node")
        .arg(SCRIPT)
        .env("PORT", port.to_string())
        .env("LEDGER", folder.join(LEDGER))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the app starts")
}

fn signal(pid: Pid, signal: Signal) {
    // It may have ended by now.
    let _ = kill_process(pid, signal);
}

fn pid_of(child: &Child) -> Pid {
    child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs")
}

async fn ended(child: &mut Child) -> Option<i32> {
    timeout(PATIENCE, child.wait()).await.expect("it ends").expect("a status").code()
}

pub const POOL: &str = "storm";
/// Actors with a process each.
const CLERK: &str = "clerk";
/// Actors of the app.
pub const GUEST: &str = "guest";
const CLERKS: usize = 4;
const GUESTS: usize = 3;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/storm/clerk.mjs");
const LEDGER: &str = "ledger.jsonl";
/// Short, so that some pauses and cuts are longer.
const LOST_AFTER: &str = "2s";
