//! Gateway, runner, actors' processes and the networks between them, each of which can fail.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::chaos::cut::{Cut, Weather};
use crate::chaos::dice::Dice;
use crate::gateway::{Gateway, PATIENCE};
use crate::http;
use crate::place::{Place, Started, signal};

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
    place: Place,
    gateway: Option<Gateway>,
    /// Between clients and gateway.
    door: Cut,
    /// Between runner and gateway.
    wire: Cut,
    /// Between runner and app.
    hall: Cut,
    runner: Started,
    app: Started,
    app_port: u16,
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
        let mut place = Place::new(POOL, LOST_AFTER);
        let gateway = place.gateway("127.0.0.1:0").await;
        let port = gateway.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let (door, wire) = (Cut::before(port).await, Cut::before(port).await);
        // Free a moment ago; it has to be the same after every start.
        let free = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let app_port = free.local_addr().expect("a bound socket has an address").port();
        drop(free);
        let hall = Cut::before(app_port).await;
        let app = start_app(&place, app_port);
        place.write_actors_file(&format!(
            "[actors.{CLERK}]\ncommand = [\"node\", {SCRIPT:?}]\nenv = {{ LEDGER = {:?} }}\nsandbox = \"off\"\n\
             sleep_after = \"1s\"\nstop_grace = \"3s\"\n\n\
             [actors.{GUEST}]\nupstream = [\"http://127.0.0.1:{}\"]\nsleep_after = \"1s\"\nstop_grace = \"3s\"\n",
            place.ledger_file(),
            hall.port,
        ));
        let runner = place.runner(DATA, wire.port);
        let mut scene = Scene {
            place,
            gateway: Some(gateway),
            door,
            wire,
            hall,
            runner,
            app,
            app_port,
            actors: Vec::new(),
            ongoing: Vec::new(),
            dice: dice.fork(),
        };
        for number in 0..CLERKS + GUESTS {
            let kind = if number < CLERKS { CLERK } else { GUEST };
            let actor = scene.place.create(scene.authority(), kind, number).await;
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
                self.gateway = Some(self.place.gateway(&gateway.authority).await);
            }
            Trouble::PauseGateway => {
                let pid = self.gateway.as_ref().expect("it runs").pid();
                self.pause(vec![pid], length);
            }
            Trouble::CutClients => self.ongoing.push(self.door.spell(Weather::Down, length)),
            Trouble::KillRunner => {
                self.runner.signal(Signal::KILL);
                self.runner.ended().await;
                sleep(length / 2).await;
                self.runner = self.place.runner(DATA, self.wire.port);
            }
            Trouble::PauseRunner => self.pause(vec![self.runner.pid()], length),
            Trouble::CutRunner => self.ongoing.push(self.wire.spell(Weather::Down, length)),
            Trouble::SilenceRunner => self.ongoing.push(self.wire.spell(Weather::Silent, length)),
            Trouble::KillActors => self.clerks().into_iter().for_each(|pid| signal(pid, Signal::KILL)),
            Trouble::PauseActors => {
                let clerks = self.clerks();
                self.pause(clerks, length);
            }
            Trouble::KillApp => {
                self.app.signal(Signal::KILL);
                self.app.ended().await;
                sleep(length / 2).await;
                self.app = start_app(&self.place, self.app_port);
            }
            Trouble::PauseApp => self.pause(vec![self.app.pid()], length),
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
        let lines = self.place.ledger();
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
        self.runner.signal(Signal::TERM);
        let runner = self.runner.ended().await;
        (runner, self.gateway.take().expect("it runs").stop().await)
    }

    /// Keeps what was written, for somebody to look at.
    pub fn keep(self) -> PathBuf {
        self.place.keep()
    }

    /// Some of the processes that serve one actor each.
    fn clerks(&mut self) -> Vec<Pid> {
        let mut clerks = self.actors[..CLERKS].to_vec();
        self.dice.shuffle(&mut clerks);
        clerks.truncate(CLERKS.div_ceil(2));
        self.place.processes_of(&clerks)
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

fn start_app(place: &Place, port: u16) -> Started {
    let mut command = Command::new("node");
    command.arg(SCRIPT).env("PORT", port.to_string()).env("LEDGER", place.ledger_file());
    Started::start(command)
}

pub const POOL: &str = "storm";
/// Actors with a process each.
const CLERK: &str = "clerk";
/// Actors of the app.
pub const GUEST: &str = "guest";
const CLERKS: usize = 4;
const GUESTS: usize = 3;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/storm/clerk.mjs");
/// The name of the runner's data, which every new one takes over.
const DATA: &str = "runner";
/// Short, so that some pauses and cuts are longer.
const LOST_AFTER: &str = "2s";
