//! Runs a plan, and finds the few steps of it that break the law.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::laws::{Breach, Law};
use crate::plan::{Plan, Planned};
use crate::saboteur::Bug;
use crate::world::{Tally, World};

/// What came of a run.
pub struct Outcome {
    pub breach: Option<Breach>,
    pub log: Vec<String>,
    pub tally: Tally,
}

/// Runs a plan; with a log when somebody wants to read it.
pub fn run(plan: &Plan, bug: Option<Bug>, logged: bool) -> Outcome {
    let mut world = World::new(plan, bug);
    world.log = logged.then(Vec::new);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run(&plan.steps)));
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.breach = Some(Breach { law: Law::NobodyPanics, what: text.unwrap_or_default(), step: world.step() });
    }
    Outcome { breach: world.breach.take(), log: world.log.take().unwrap_or_default(), tally: world.tally }
}

/// Leaves out steps as long as the same law is still broken.
pub fn shrink(plan: &Plan, bug: Option<Bug>, law: Law) -> Plan {
    let mut best = plan.clone();
    let mut tries = 0;
    let mut piece = best.steps.len().div_ceil(2);
    while piece > 0 && tries < TRIES_MAX {
        let mut start = 0;
        while start < best.steps.len() && tries < TRIES_MAX {
            tries += 1;
            let rest = |planned: &[Planned]| -> Vec<Planned> {
                let end = (start + piece).min(planned.len());
                [&planned[..start], &planned[end..]].concat()
            };
            let candidate = Plan { steps: rest(&best.steps), ..best.clone() };
            if run(&candidate, bug, false).breach.is_some_and(|breach| breach.law == law) {
                best = candidate;
            } else {
                start += piece;
            }
        }
        piece /= 2;
    }
    best
}

/// Enough for a few hundred steps.
const TRIES_MAX: usize = 600;
