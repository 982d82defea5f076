//! What a seed stands for: the conditions of a run and the steps that are taken in it.

use std::time::Duration;

use greenroom::gateway::core::{Limits, Thresholds};
use greenroom::protocol::Version;

use crate::dice::Dice;

/// Seeds from here on stand for harsher runs, in which more breaks and more happens.
pub const HARSH: u64 = 1_000_000;

/// Seeds from here on are as harsh and stand for more: every version of the protocol beside every other, pools, indexes
/// about to wrap, bodies that use up their credit, runners that forget everything.
pub const WIDE: u64 = 30_000_000;

/// Seeds from here on are as wide, and their runners are never alone with a message: each waits for the turn of the life
/// that it is for.
pub const CROWDED: u64 = 40_000_000;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub conditions: Conditions,
    pub steps: Vec<Planned>,
}

/// A step with the chance of everything that happens until the next: leaving out a step leaves the others as they are.
#[derive(Clone, Debug)]
pub struct Planned {
    pub step: Step,
    pub salt: u64,
}

/// What stays the same for a run.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The peer is a model of the Rivet engine in place of our gateway.
    pub engine: bool,
    pub runners: usize,
    /// Actors and runners are in this many pools.
    pub pools: usize,
    pub slots: u32,
    /// What each runner speaks.
    pub versions: Vec<Version>,
    /// Messages are encoded and decoded on their way, so that what a version cannot say is not said.
    pub encoded: bool,
    /// Messages for actors wait for the turn of a life, for a few milliseconds.
    pub crowded: bool,
    /// What a runner takes for the index of a socket's opening, where our gateway says 0.
    pub first_index: u16,
    pub thresholds: Thresholds,
    pub limits: Limits,
    pub kv_timeout: Duration,
    /// How long a client waits for the beginning of an answer, and for the rest of it.
    pub patience: Duration,
    /// After this long without a word from the gateway a runner takes its connection for broken.
    pub silence: Duration,
    /// How long a message travels, in milliseconds, at least and at most.
    pub travel: (u64, u64),
    /// How long a sync takes, in milliseconds, at most.
    pub sync: u64,
    pub hosts: Hosts,
}

/// How well actors behave.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Of a hundred lives, how many do not come up, how many never say that they are ready, how many crash later, how
    /// many do not stop when they are told to.
    pub fails: u64,
    pub never_ready: u64,
    pub crashes: u64,
    pub deaf: u64,
    /// How long a start may take, after which the host gives up.
    pub start_timeout: Duration,
    /// How long a stop may take, after which the host kills.
    pub stop_grace: Duration,
}

/// Something to do, or to break. Numbers named `pick` choose among what there is at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes.
    Pass(u64),
    /// Time passes and nobody gets to run meanwhile.
    Freeze(u64),
    /// The wall clock is set forward, or back.
    SetClock(u64),
    SetClockBack(u64),
    /// A connection breaks; what was on its way is lost.
    Cut {
        runner: usize,
    },
    /// A connection is dead, and one end or both have yet to find out.
    HalfOpen {
        runner: usize,
        both: bool,
    },
    /// One direction of a connection stands still for a while.
    Stall {
        runner: usize,
        up: bool,
        millis: u64,
    },
    /// The next dials fail.
    RefuseDials {
        runner: usize,
        count: u32,
    },
    /// Another process connects under the key of a runner.
    Double {
        runner: usize,
    },
    /// Syncs take this long for a while.
    SlowDisk(u64),
    /// A commit fails after this many more.
    FailCommit {
        after: u64,
        written: bool,
    },
    /// The gateway is gone, with everything that was not durable.
    KillGateway,
    /// The gateway is stopped politely.
    StopGateway,
    /// A runner is gone.
    KillRunner {
        runner: usize,
    },
    /// A runner is gone with its data directory: what starts in its place has another key and knows nothing.
    LoseRunner {
        runner: usize,
    },
    /// From now on, sockets of sleeping actors on which nothing is under way have had nearly as many messages as there
    /// are indexes.
    Age,
    /// A runner is told to drain.
    Drain {
        runner: usize,
        within: u64,
    },
    /// The runner's owner stops or kills an actor.
    OwnerStops {
        pick: u64,
        kill: bool,
    },
    Crash {
        pick: u64,
    },
    Sleep {
        pick: u64,
    },
    WishEnd {
        pick: u64,
    },
    SetAlarm {
        pick: u64,
        millis: u64,
    },
    Write {
        pick: u64,
    },
    Read {
        pick: u64,
    },
    /// An actor says something on one of its sockets, or closes it.
    Speak {
        pick: u64,
        closes: bool,
    },
    Create {
        key: Option<u8>,
        policy: u8,
    },
    Destroy {
        pick: u64,
    },
    Ask {
        pick: u64,
        repeatable: bool,
    },
    /// A request whose body comes in pieces.
    Upload {
        pick: u64,
        pieces: u32,
    },
    /// A piece of one, or the last.
    UploadMore {
        pick: u64,
    },
    /// Bodies of large pieces that travel on credit, to an actor or from it.
    Send {
        pick: u64,
        pieces: u32,
    },
    Fetch {
        pick: u64,
        pieces: u32,
    },
    OpenSocket {
        pick: u64,
        lasting: bool,
    },
    Say {
        pick: u64,
    },
    Leave {
        pick: u64,
        politely: bool,
    },
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut conditions = Conditions::new(&mut dice, seed % 4 == 3);
        let (harsh, wide) = (seed >= HARSH, seed >= WIDE);
        if wide {
            conditions.widen(&mut dice);
        }
        conditions.crowded = seed >= CROWDED;
        let faults = if harsh { dice.pick(&[30, 60, 120, 200]) } else { dice.pick(&[0, 10, 25, 50, 100]) };
        let steps = dice.between(40, 160);
        let mut planned = vec![Planned { step: Step::Pass(2_000), salt: dice.roll() }];
        for _ in 0..3 {
            let step = Step::Create { key: None, policy: u8::try_from(dice.below(2)).expect("small") };
            planned.push(Planned { step, salt: dice.roll() });
        }
        planned.extend((0..steps).map(|_| {
            let (rarer, rare) = (wide && dice.percent(12), harsh && dice.percent(12));
            let step = match (rarer, rare) {
                (true, _) => Step::draw_rarer(&mut dice, conditions.runners),
                (false, true) => Step::draw_rare(&mut dice),
                (false, false) => Step::draw(&mut dice, faults, conditions.runners),
            };
            Planned { step, salt: dice.roll() }
        }));
        Plan { seed, conditions, steps: planned }
    }
}

impl Conditions {
    fn new(dice: &mut Dice, engine: bool) -> Self {
        let patience = dice.millis(10_000, 60_000);
        let ping_interval = dice.millis(1_000, 3_000);
        let thresholds = Thresholds {
            ping_interval,
            ping_timeout: dice.millis(4_000, 15_000),
            eligible: dice.millis(4_000, 10_000),
            runner_lost: dice.millis(5_000, 20_000),
            actor_start: dice.millis(5_000, 30_000),
            actor_stop: dice.millis(20_000, 600_000),
            destroy_grace: dice.millis(1_000, 5_000),
            actor_ready: dice.millis(5_000, 30_000),
            queue: dice.millis(10_000, 60_000),
            acknowledge: dice.millis(50, 1_000),
            drained: dice.millis(100, 1_000),
            unacknowledged: dice.millis(20_000, 40_000),
            crash_memory: dice.millis(30_000, 600_000),
            ..Thresholds::default()
        };
        let mut limits = Limits::default();
        if dice.percent(20) {
            limits.waiting = 3;
            limits.waiting_per_actor = 2;
            limits.streams = 6;
            limits.backlog = 2;
            limits.loads = 2;
        }
        let bad = dice.pick(&[0, 0, 5, 20]);
        let slowest = dice.pick(&[2, 50, 500, 3_000]);
        let runners = usize::try_from(dice.between(1, 2)).expect("small");
        Conditions {
            engine,
            runners,
            pools: 1,
            slots: u32::try_from(dice.between(2, 10)).expect("small"),
            versions: vec![dice.pick(&[Version::V5, Version::V6, Version::V7, Version::V7]); runners],
            encoded: false,
            crowded: false,
            first_index: 0,
            thresholds,
            limits,
            kv_timeout: dice.millis(5_000, 60_000),
            patience,
            silence: ping_interval * 4,
            travel: (0, slowest),
            sync: dice.pick(&[0, 5, 200, 2_000]),
            hosts: Hosts {
                fails: bad,
                never_ready: bad,
                crashes: bad,
                deaf: bad,
                start_timeout: dice.millis(2_000, 20_000),
                stop_grace: dice.millis(500, 10_000),
            },
        }
    }
}

impl Conditions {
    /// Draws what only wide seeds have.
    fn widen(&mut self, dice: &mut Dice) {
        self.encoded = true;
        self.pools = dice.pick(&[1, 1, 2]);
        self.runners = usize::try_from(dice.between(1, 3)).expect("small").max(self.pools);
        self.versions = (0..self.runners).map(|_| dice.pick(&Version::ALL)).collect();
        if !self.engine && dice.percent(50) {
            self.first_index = u16::MAX - u16::try_from(dice.below(12)).expect("small");
        }
    }

    /// The pool of a runner, or of anything else by its number.
    pub fn pool_of(&self, number: usize) -> &'static str {
        ["pool", "other"][number % self.pools]
    }
}

impl Step {
    /// What only wide seeds have.
    fn draw_rarer(dice: &mut Dice, runners: usize) -> Self {
        let runner = usize::try_from(dice.below(runners as u64)).expect("small");
        let pick = dice.roll() >> 8;
        match dice.below(10) {
            0 => Step::LoseRunner { runner },
            1 => Step::Age,
            2..6 => Step::Send { pick, pieces: u32::try_from(dice.between(1, 12)).expect("small") },
            _ => Step::Fetch { pick, pieces: u32::try_from(dice.between(1, 12)).expect("small") },
        }
    }

    /// What only harsh runs have.
    fn draw_rare(dice: &mut Dice) -> Self {
        let pick = dice.roll() >> 8;
        match dice.below(10) {
            0..3 => Step::Upload { pick, pieces: u32::try_from(dice.between(1, 4)).expect("small") },
            3..9 => Step::UploadMore { pick },
            _ => Step::SetClockBack(dice.between(1, 3_600_000)),
        }
    }

    /// A step; of those that break something, this many of a hundred.
    fn draw(dice: &mut Dice, faults: u64, runners: usize) -> Self {
        let runner = usize::try_from(dice.below(runners as u64)).expect("small");
        let pick = dice.roll() >> 8;
        if dice.percent(faults / 3) {
            return match dice.below(24) {
                0..5 => Step::Cut { runner },
                5..7 => Step::HalfOpen { runner, both: dice.percent(50) },
                7..9 => Step::Stall { runner, up: dice.percent(50), millis: dice.between(100, 12_000) },
                9 => Step::RefuseDials { runner, count: u32::try_from(dice.between(1, 4)).expect("small") },
                10 => Step::Double { runner },
                11..13 => Step::SlowDisk(dice.between(100, 6_000)),
                13 => Step::FailCommit { after: dice.below(20), written: dice.percent(50) },
                14..16 => Step::KillGateway,
                16 => Step::StopGateway,
                17..19 => Step::KillRunner { runner },
                19 => Step::Drain { runner, within: dice.between(0, 12_000) },
                20 => Step::OwnerStops { pick, kill: dice.percent(50) },
                21 => Step::Freeze(dice.between(100, 25_000)),
                22 => Step::SetClock(dice.between(10, 3_600_000)),
                _ => Step::Crash { pick },
            };
        }
        match dice.below(100) {
            0..20 => Step::Pass(dice.between(0, 3_000)),
            20..24 => Step::Pass(dice.between(3_000, 40_000)),
            24..30 => Step::Create {
                key: dice.percent(50).then_some(0).map(|_| u8::try_from(pick % 3).expect("small")),
                policy: u8::try_from(dice.below(3)).expect("small"),
            },
            30..32 => Step::Destroy { pick },
            32..40 => Step::Ask { pick, repeatable: dice.percent(50) },
            40..50 => Step::OpenSocket { pick, lasting: dice.percent(75) },
            50..66 => Step::Say { pick },
            66..68 => Step::Leave { pick, politely: dice.percent(50) },
            68..76 => Step::Write { pick },
            76..80 => Step::Read { pick },
            80..86 => Step::Sleep { pick },
            86..87 => Step::WishEnd { pick },
            87..92 => Step::SetAlarm { pick, millis: dice.between(0, 60_000) },
            92..98 => Step::Speak { pick, closes: false },
            98..99 => Step::Speak { pick, closes: true },
            _ => Step::Crash { pick },
        }
    }
}
