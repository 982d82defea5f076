//! The gateway, the network and the runners, and everything that can happen to them.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::cut::{Cut, Weather};
use super::dice::Dice;
use crate::actor::now_ms;
use crate::gateway::{Gateway, PATIENCE};
use crate::http;
use crate::place::{Place, Started, signal};

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
    place: Place,
    pub gateway: Option<Gateway>,
    cut: Cut,
    runner: Started,
    /// Where it has its data, of [`DATA`].
    data: usize,
    pub actors: Vec<String>,
    pub happened: Vec<Happened>,
    dice: Dice,
}

impl Scene {
    /// A gateway, a runner, and some actors.
    pub async fn set(actors: usize, dice: &mut Dice) -> Self {
        let mut place = Place::new("chaos", LOST_AFTER);
        let gateway = place.gateway("127.0.0.1:0").await;
        let port = gateway.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let cut = Cut::before(port).await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/chaos/room.mjs");
        place.write_actors_file(&format!(
            "[actors.room]\ncommand = [\"node\", {script:?}]\nenv = {{ LEDGER = {:?} }}\nstop_grace = \"5s\"\nsandbox = \"off\"\n",
            place.ledger_file()
        ));
        let runner = place.runner(DATA[0], cut.port);
        let (gateway, dice) = (Some(gateway), dice.fork());
        let (created, happened) = (Vec::new(), Vec::new());
        let mut scene = Scene { place, gateway, cut, runner, data: 0, actors: created, happened, dice };
        for number in 0..actors {
            let actor = scene.place.create(scene.authority(), "room", number).await;
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
            Trouble::KillActors => {
                let some = self.some_actors();
                self.place.processes_of(&some).into_iter().for_each(|pid| signal(pid, Signal::KILL));
            }
            Trouble::Sleep => self.put_to_sleep().await,
            Trouble::KillRunner => {
                self.runner.signal(Signal::KILL);
                self.runner.ended().await;
                self.wait_up_to(2_000).await;
                self.runner = self.place.runner(DATA[self.data], self.cut.port);
            }
            Trouble::RestartRunner => {
                self.runner.signal(Signal::TERM);
                assert_eq!(self.runner.ended().await, Some(0), "the runner stops cleanly");
                self.runner = self.place.runner(DATA[self.data], self.cut.port);
            }
            Trouble::ReplaceRunner => {
                self.data = 1 - self.data;
                let new = self.place.runner(DATA[self.data], self.cut.port);
                self.wait_up_to(2_000).await;
                let mut old = std::mem::replace(&mut self.runner, new);
                old.signal(Signal::TERM);
                assert_eq!(old.ended().await, Some(0), "the runner stops cleanly");
            }
            Trouble::Pause => {
                self.runner.signal(Signal::STOP);
                self.wait_up_to(5_000).await;
                self.runner.signal(Signal::CONT);
            }
            Trouble::Cut => self.spell(Weather::Down).await,
            Trouble::Silence => self.spell(Weather::Silent).await,
            Trouble::KillGateway => {
                let mut gateway = self.gateway.take().expect("it runs");
                gateway.kill();
                gateway.ended().await;
                self.gateway = Some(self.place.gateway(&gateway.authority).await);
            }
        }
        self.happened.push(Happened { trouble, from, until: now_ms() });
    }

    /// What the actors have put down so far, oldest first.
    pub fn ledger(&self) -> Vec<Value> {
        self.place.ledger()
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
        self.runner.signal(Signal::TERM);
        let code = self.runner.ended().await;
        self.gateway.take().expect("it runs").stop().await;
        code
    }

    /// Keeps what was written, for somebody to look at.
    pub fn keep(self) -> PathBuf {
        self.place.keep()
    }

    fn some_actors(&mut self) -> Vec<String> {
        let mut actors = self.actors.clone();
        self.dice.shuffle(&mut actors);
        actors.truncate(actors.len().div_ceil(2));
        actors
    }

    async fn spell(&mut self, weather: Weather) {
        let length = Duration::from_millis(self.dice.between(100, 5_000));
        self.cut.spell(weather, length).await.expect("it ends");
    }

    async fn wait_up_to(&mut self, ms: u64) {
        sleep(Duration::from_millis(self.dice.between(0, ms))).await;
    }
}

/// The runner's data, and that of another runner that replaces it.
const DATA: [&str; 2] = ["a", "b"];
/// Short, so that some pauses and cuts are longer.
const LOST_AFTER: &str = "3s";
