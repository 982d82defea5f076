//! Simulation: the runner's session and the gateway's core, connected by a wire that breaks, over a store that fails,
//! with hosts that crash, on a clock that jumps, all from one seed. The laws are checked with everything that happens.
//!
//! A seed that breaks one is printed with the few steps that do, and runs again with
//! `SIM_SEED=… cargo test --test sim replay -- --nocapture`.

mod dice;
mod engine;
mod laws;
mod plan;
mod regressions;
mod saboteur;
mod shrink;
mod world;

use std::env;
use std::time::{Duration, Instant};

use laws::Law;
use plan::{CROWDED, HARSH, Plan, WIDE};
use saboteur::Bug;
use shrink::{run, shrink};
use world::Tally;

#[test]
fn every_law_holds_whatever_breaks_first_half() {
    run_seeds(every_time().step_by(2));
}

#[test]
fn every_law_holds_whatever_breaks_second_half() {
    run_seeds(every_time().skip(1).step_by(2));
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in [1, 2, 3, 4, WIDE + 1, WIDE + 3, CROWDED + 1, CROWDED + 3] {
        let plan = Plan::new(seed);
        let (first, second) = (run(&plan, None, true).log, run(&plan, None, true).log);
        assert!(first.len() > 100, "seed {seed}: only {} lines", first.len());
        for (line, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "seed {seed}, line {line}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

/// A bug of each kind, put between the cores and the rest of the world, is found within what runs every time.
#[test]
fn deliberate_bugs_are_caught() {
    for (bug, laws) in BUGS {
        let caught = (0..SEEDS).find_map(|seed| Some((seed, run(&Plan::new(seed), Some(*bug), false).breach?)));
        let Some((seed, breach)) = caught else { panic!("{bug:?} is not caught by {SEEDS} seeds") };
        println!("{bug:?} is caught by seed {seed}: {breach}");
        assert!(laws.contains(&breach.law), "{bug:?} is caught by seed {seed} as something else: {breach}");
    }
}

/// One seed with all that happens in it, or all those that failed before.
#[test]
fn replay() {
    match env::var("SIM_SEED").ok().map(|seed| seed.parse().expect("SIM_SEED is a number")) {
        Some(seed) => {
            let plan = Plan::new(seed);
            println!("{:#?}", plan.conditions);
            let outcome = run(&plan, None, true);
            if env::var("SIM_LOG").is_ok() || outcome.breach.is_none() {
                outcome.log.iter().for_each(|line| println!("{line}"));
            }
            println!("{:?}", outcome.tally);
            run_seeds([seed]);
        }
        None => {
            run_seeds(regressions::SEEDS.iter().map(|(seed, _)| *seed));
        }
    }
}

/// With `SIM_SURVEY`, which laws that many seeds break.
#[test]
fn survey() {
    let seeds: u64 = env::var("SIM_SURVEY").ok().map_or(0, |seeds| seeds.parse().expect("SIM_SURVEY is a number"));
    let engine = env::var("SIM_ENGINE").is_ok();
    let first = env::var("SIM_FROM").ok().map_or(0, |first| first.parse().expect("SIM_FROM is a number"));
    for seed in (first..first + seeds).filter(|seed| !engine || seed % 4 == 3) {
        if let Some(breach) = run(&Plan::new(seed), None, false).breach {
            println!("seed {seed}: {breach}");
        }
    }
}

/// With `SIM_MINUTES`, as many seeds as there is time for; without, a few that no other test takes.
#[test]
fn seeds_that_nobody_has_seen() {
    let minutes: u64 = env::var("SIM_MINUTES").ok().map_or(0, |minutes| minutes.parse().expect("SIM_MINUTES"));
    let first: u64 = env::var("SIM_FROM").ok().map_or(SEEDS, |first| first.parse().expect("SIM_FROM"));
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let seeds = (first..).take_while(|seed| *seed < first + 4 || Instant::now() < until);
    let count = run_seeds(seeds);
    println!("{count} seeds from {first} on, and every law held");
}

/// The seeds that run with every test run.
fn every_time() -> impl Iterator<Item = u64> {
    (0..SEEDS).chain(HARSH..HARSH + SEEDS).chain(WIDE..WIDE + WIDE_SEEDS).chain(CROWDED..CROWDED + CROWDED_SEEDS)
}

/// Runs seeds until one breaks a law; answers how many there were.
fn run_seeds(seeds: impl IntoIterator<Item = u64>) -> u64 {
    let mut sum = Tally::default();
    let mut count = 0;
    for seed in seeds {
        let plan = Plan::new(seed);
        let outcome = run(&plan, None, false);
        if let Some(breach) = outcome.breach {
            let few = shrink(&plan, None, breach.law);
            let again = run(&few, None, true);
            let last = again.log.len().saturating_sub(LOG_SHOWN);
            again.log[last..].iter().for_each(|line| println!("{line}"));
            few.steps.iter().for_each(|planned| println!("    {:?}", planned.step));
            let few_breach = again.breach.map_or_else(String::new, |breach| breach.to_string());
            panic!(
                "seed {seed} breaks {breach}\nwith {} of {} steps: {few_breach}\n\
                 again: SIM_SEED={seed} cargo test --test sim replay -- --nocapture",
                few.steps.len(),
                plan.steps.len()
            );
        }
        sum.add(outcome.tally);
        count += 1;
    }
    println!("{count} seeds: {sum:?}");
    count
}

/// Deliberate bugs, each with the laws that catch it.
const BUGS: &[(Bug, &[Law])] = &[
    (Bug::SkipCommandAck, &[Law::ACommandIsAcknowledgedSoon]),
    (Bug::SkipEventAck, &[Law::NoEventIsSkipped]),
    (Bug::DeliverAcrossGenerations, &[Law::EventsSayWhatHappened]),
    (Bug::ForgetToResendEvents, &[Law::NoEventIsSkipped, Law::EverybodyAgrees]),
    (Bug::ForgetToResendCommands, &[Law::EverybodyAgrees, Law::AnAcknowledgedCommandIsNotRepeated]),
    (Bug::ForgetToResendMessages, &[Law::ASocketIsReadInOrder, Law::ASocketStaysOpen]),
    (Bug::AcknowledgeEventsBeforeSync, &[Law::NothingIsToldBeforeItIsDurable]),
    (Bug::AnswerStorageBeforeSync, &[Law::AnAcknowledgedWriteStays, Law::NothingIsAcknowledgedBeforeItIsTaken]),
    (Bug::RingEarly, &[Law::AnAlarmIsNotEarly]),
    (Bug::AcknowledgeMessagesBeforeTaken, &[Law::NothingIsAcknowledgedBeforeItIsTaken]),
];

/// How many seeds of each kind run with every test run: well under two minutes on two cores.
const SEEDS: u64 = 2_000;
const WIDE_SEEDS: u64 = 1_500;
const CROWDED_SEEDS: u64 = 500;
/// The end of the log of a run that broke a law.
const LOG_SHOWN: usize = 400;
