//! One run: everybody in it, the clock, and what is about to happen.

mod alarms;
mod clients;
mod credit;
mod durable;
mod gateway;
mod hosts;
mod rest;
mod runners;
mod turns;
mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use greenroom::gateway::core::{ConnectionId, Now, StreamRef};
use greenroom::protocol::{ToClient, ToServer};

use crate::dice::Dice;
use crate::laws::{Breach, Law};
use crate::plan::{Conditions, Plan, Planned, Step};
use crate::saboteur::Bug;

use clients::Clients;
use durable::Ledger;
use gateway::Gateway;
use hosts::Act;
use runners::Runner;
use wire::{Ended, Wire};

/// One run.
pub struct World {
    pub conditions: Conditions,
    pub now: Now,
    began: Instant,
    dice: Dice,
    /// Nothing breaks any more, and actors behave.
    calm: bool,
    /// Sockets of sleeping actors grow old, as far as there are any.
    aging: bool,
    queue: BTreeMap<(Instant, u64), Happening>,
    /// Rises with everything that is numbered.
    numbers: u64,
    gateway: Gateway,
    runners: Vec<Runner>,
    wires: BTreeMap<ConnectionId, Wire>,
    clients: Clients,
    ledger: Ledger,
    bug: Option<Bug>,
    step: Option<usize>,
    pub breach: Option<Breach>,
    /// What happened, line by line, when somebody wants to know.
    pub log: Option<Vec<String>>,
    pub tally: Tally,
}

/// How much a run has seen, to know that it tests something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub events: u64,
    pub starts: u64,
    pub answers: u64,
    pub taken: u64,
    pub writes: u64,
    pub crashes: u64,
    pub reconnects: u64,
    /// Other processes under the key of a runner.
    pub doubles: u64,
    /// Bodies on credit that came to their end.
    pub bodies: u64,
}

/// Something that will happen at its time.
#[derive(Debug)]
enum Happening {
    Dialed {
        runner: usize,
        process: u64,
    },
    /// A message arrives at the gateway.
    Up(ConnectionId, ToServer),
    /// A message arrives at the runner.
    Down(ConnectionId, ToClient),
    /// The gateway hears that a connection is gone.
    GoneUp(ConnectionId),
    /// The runner hears that its connection is gone.
    GoneDown(ConnectionId, Ended),
    /// The gateway has answered the runner's close.
    Answered(ConnectionId, u16),
    /// The runner looks whether it has heard anything.
    Listen(ConnectionId),
    Synced {
        process: u64,
    },
    GatewayUp,
    RunnerUp {
        runner: usize,
    },
    Host {
        runner: usize,
        process: u64,
        act: Act,
    },
    /// A runner handles some of the messages that wait.
    Turn {
        runner: usize,
        process: u64,
    },
    ClientWaited(StreamRef),
    /// A client sends the next piece of a body.
    Piece(StreamRef),
    /// A client has read the next piece of an answer.
    Read(StreamRef),
    ClientRetries {
        number: u64,
    },
    DoubleLeaves(ConnectionId),
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.events += other.events;
        self.starts += other.starts;
        self.answers += other.answers;
        self.taken += other.taken;
        self.writes += other.writes;
        self.crashes += other.crashes;
        self.reconnects += other.reconnects;
        self.doubles += other.doubles;
        self.bodies += other.bodies;
    }
}

macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        if $world.log.is_some() {
            let line = format!($($what)*);
            $world.write_down(line);
        }
    };
}
pub(crate) use note;

impl World {
    pub fn new(plan: &Plan, bug: Option<Bug>) -> Self {
        let now = Now { instant: Instant::now(), wall_ms: 1_700_000_000_000 };
        let conditions = plan.conditions.clone();
        World {
            runners: (0..conditions.runners).map(Runner::new).collect(),
            conditions,
            now,
            began: now.instant,
            dice: Dice::new(plan.seed),
            calm: false,
            aging: false,
            queue: BTreeMap::new(),
            numbers: 0,
            gateway: Gateway::default(),
            wires: BTreeMap::new(),
            clients: Clients::default(),
            ledger: Ledger::default(),
            bug,
            step: None,
            breach: None,
            log: None,
            tally: Tally::default(),
        }
    }

    /// Takes all steps, then lets everything work again and looks what has become of it all.
    pub fn run(&mut self, steps: &[Planned]) {
        self.start_gateway();
        for runner in 0..self.runners.len() {
            self.start_runner(runner);
        }
        for (number, planned) in steps.iter().enumerate() {
            if self.breach.is_some() {
                return;
            }
            self.step = Some(number);
            self.dice = Dice::new(planned.salt);
            note!(self, "step {number}: {:?}", planned.step);
            self.take(&planned.step);
            self.pass(Duration::from_millis(1));
            self.check_books();
        }
        self.step = None;
        if self.breach.is_none() {
            self.rest();
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Pass(millis) => self.pass(Duration::from_millis(millis)),
            Step::Freeze(millis) => {
                let time = Duration::from_millis(millis);
                for by in self.runners.iter_mut().filter_map(|runner| runner.drained_by.as_mut()) {
                    *by += time;
                }
                self.move_clock(self.now.instant + time);
                self.pass(Duration::ZERO);
            }
            Step::SetClock(millis) => self.now.wall_ms += i64::try_from(millis).expect("small"),
            Step::SetClockBack(millis) => {
                self.ledger.clock_set_back(self.now);
                self.now.wall_ms -= i64::try_from(millis).expect("small");
            }
            Step::Cut { runner } => self.cut(runner),
            Step::HalfOpen { runner, both } => self.half_open(runner, both),
            Step::Stall { runner, up, millis } => self.stall(runner, up, Duration::from_millis(millis)),
            Step::RefuseDials { runner, count } => self.runners[runner].refused_dials += count,
            Step::Double { runner } => self.connect_double(runner),
            Step::SlowDisk(millis) => self.gateway.slow_until = Some((self.now.instant + SLOW, millis)),
            Step::FailCommit { after, written } => self.fail_commit(after, written),
            Step::KillGateway => self.kill_gateway(),
            Step::StopGateway => self.stop_gateway(),
            Step::KillRunner { runner } => self.kill_runner(runner),
            Step::LoseRunner { runner } => self.lose_runner(runner),
            Step::Age => self.aging = true,
            Step::Drain { runner, within } => self.drain(runner, Duration::from_millis(within)),
            Step::OwnerStops { pick, kill } => self.owner_stops(pick, kill),
            Step::Crash { pick } => self.crash_life(pick),
            Step::Sleep { pick } => self.wish(pick, true),
            Step::WishEnd { pick } => self.wish(pick, false),
            Step::SetAlarm { pick, millis } => self.set_alarm(pick, millis),
            Step::Write { pick } => self.write(pick),
            Step::Read { pick } => self.read(pick),
            Step::Speak { pick, closes } => self.speak(pick, closes),
            Step::Create { key, policy } => self.create(key, policy),
            Step::Destroy { pick } => self.destroy(pick),
            Step::Ask { pick, repeatable } => self.ask(pick, repeatable),
            Step::Upload { pick, pieces } => self.upload(pick, pieces),
            Step::UploadMore { pick } => self.upload_more(pick),
            Step::Send { pick, pieces } => self.send_body(pick, pieces),
            Step::Fetch { pick, pieces } => self.fetch_body(pick, pieces),
            Step::OpenSocket { pick, lasting } => self.open_socket(pick, lasting),
            Step::Say { pick } => self.say(pick),
            Step::Leave { pick, politely } => self.leave(pick, politely),
        }
    }

    /// Lets time pass; whatever is due on the way happens at its time.
    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        let mut turns = 0_u64;
        while self.breach.is_none() {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let gateway = self.gateway.poll_timeout();
            let runner = self.runners.iter().filter_map(Runner::poll_timeout).min();
            let Some(next) = [queued, gateway, runner].into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.move_clock(next.max(self.now.instant));
            if queued.is_some_and(|at| at <= self.now.instant) {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.tally.events += 1;
                    self.happen(happening);
                }
            } else if gateway.is_some_and(|at| at <= self.now.instant) {
                self.gateway_timeout();
            } else {
                for runner in 0..self.runners.len() {
                    self.runner_timeout(runner);
                }
            }
            turns += 1;
            if turns > TURNS_MAX {
                self.broken(Law::NobodySpins, format!("{turns} things happened within {time:?}"));
            }
        }
        self.move_clock(end.max(self.now.instant));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dialed { runner, process } => self.dialed(runner, process),
            Happening::Up(wire, message) => self.arrives_at_gateway(wire, message),
            Happening::Down(wire, message) => self.arrives_at_runner(wire, message),
            Happening::GoneUp(wire) => self.gone_at_gateway(wire),
            Happening::GoneDown(wire, ended) => self.gone_at_runner(wire, ended),
            Happening::Answered(wire, code) => self.close_answered(wire, code),
            Happening::Listen(wire) => self.listen(wire),
            Happening::Synced { process } => self.synced(process),
            Happening::GatewayUp => self.start_gateway(),
            Happening::RunnerUp { runner } => self.start_runner(runner),
            Happening::Host { runner, process, act } => self.act(runner, process, act),
            Happening::Turn { runner, process } => self.turn(runner, process),
            Happening::ClientWaited(stream) => self.client_waited(stream),
            Happening::Piece(stream) => self.send_piece(stream),
            Happening::Read(stream) => self.client_reads(stream),
            Happening::ClientRetries { number } => self.client_retries(number),
            Happening::DoubleLeaves(wire) => self.double_leaves(wire),
        }
    }

    /// How long somebody takes who is sometimes slow.
    fn slowly(&mut self) -> Duration {
        if self.calm {
            return self.dice.millis(0, 2);
        }
        match self.dice.below(20) {
            0 => self.dice.millis(0, 15_000),
            1..5 => self.dice.millis(0, 2_000),
            _ => self.dice.millis(0, 100),
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        let number = self.number();
        self.queue.insert((self.now.instant + after, number), happening);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn move_clock(&mut self, to: Instant) {
        // In whole milliseconds, so that neither clock gains on the other.
        let before = self.now.instant.duration_since(self.began).as_millis();
        let after = to.duration_since(self.began).as_millis();
        self.now.wall_ms += i64::try_from(after - before).expect("a run is short");
        self.now.instant = to;
    }

    fn broken(&mut self, law: Law, what: String) {
        note!(self, "BROKEN {law:?}: {what}");
        let step = self.step;
        self.breach.get_or_insert(Breach { law, what, step });
    }

    /// Notes a breach unless the law holds.
    fn hold(&mut self, law: Law, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(law, what());
        }
    }

    pub fn step(&self) -> Option<usize> {
        self.step
    }

    pub fn write_down(&mut self, mut line: String) {
        if line.len() > LINE_MAX {
            line.truncate(line.floor_char_boundary(LINE_MAX));
        }
        // They come all the time and say nothing.
        if line.contains("Ping {") || line.contains("Pong {") {
            return;
        }
        let at = self.now.instant.duration_since(self.began);
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9.3} {line}", at.as_secs_f64()));
        }
    }
}

/// Large bodies are not written down.
const LINE_MAX: usize = 2_000;
/// How long a disk stays slow.
const SLOW: Duration = Duration::from_secs(20);
/// More than ever happens between two steps.
const TURNS_MAX: u64 = 100_000;
