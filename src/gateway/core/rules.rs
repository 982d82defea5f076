//! What becomes of an actor whose life has ended.

use std::time::Duration;

use super::random::Random;
use crate::store::{ActorError, CrashPolicy, Phase};

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The runner says: as wanted.
    Ok,
    /// The runner says: it failed, with its reason.
    Failed(Option<String>),
    /// The runner says nothing any more.
    Lost(ActorError),
}

/// What becomes of an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It sleeps, with what went wrong.
    Sleep(Option<ActorError>),
    /// It is gone for good.
    Destroy(Option<ActorError>),
    /// It starts again, after a growing delay.
    Restart(ActorError),
    /// It starts again at once, elsewhere.
    Move,
}

/// The rule. `phase` is where the actor was, `deleted` says that somebody asked for its destruction from outside.
pub(super) fn after(phase: Phase, deleted: bool, policy: CrashPolicy, ending: Ending) -> Next {
    if deleted {
        return Next::Destroy(None);
    }
    let moving = match phase {
        // It wanted to sleep and its storage is safe: that its runner went away meanwhile takes nothing from it.
        Phase::StoppingToSleep => return Next::Sleep(None),
        Phase::StoppingToMove => true,
        Phase::Starting | Phase::Running | Phase::StoppingToDestroy => false,
        // These have no life that could end.
        Phase::Pending | Phase::Backoff | Phase::Sleeping | Phase::Destroyed => false,
    };
    let error = match ending {
        Ending::Ok | Ending::Failed(_) if moving => {
            return match policy {
                CrashPolicy::Restart => Next::Move,
                CrashPolicy::Sleep => Next::Sleep(None),
                CrashPolicy::Destroy => Next::Destroy(None),
            };
        }
        Ending::Ok => return Next::Destroy(None),
        Ending::Failed(message) => ActorError::Crashed { message },
        Ending::Lost(error) => error,
    };
    match policy {
        CrashPolicy::Restart => Next::Restart(error),
        CrashPolicy::Sleep => Next::Sleep(Some(error)),
        CrashPolicy::Destroy => Next::Destroy(Some(error)),
    }
}

/// How long to wait before the restart after this many restarts; the first comes at once.
pub(super) fn restart_delay(restarts: u32, random: &mut Random) -> Duration {
    match restarts {
        0 => Duration::ZERO,
        further => {
            let doublings = (further - 1).min(DOUBLINGS_MAX);
            Duration::from_millis((2_000 << doublings) + random.below(500))
        }
    }
}

/// The engine's bound: 512 seconds.
const DOUBLINGS_MAX: u32 = 8;
/// No restart is delayed for longer.
pub(super) const RESTART_DELAY_MAX: Duration = Duration::from_millis((2_000 << DOUBLINGS_MAX) + 500);

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [CrashPolicy; 3] = [CrashPolicy::Restart, CrashPolicy::Sleep, CrashPolicy::Destroy];

    #[test]
    fn every_ending_and_policy_has_its_consequence() {
        let failed = Ending::Failed(Some("why".into()));
        let crashed = ActorError::Crashed { message: Some("why".into()) };
        let silent = ActorError::RunnerConnectionLost { runner_id: "r".into() };
        let destroy = || [Next::Destroy(None), Next::Destroy(None), Next::Destroy(None)];
        let sleep = || [Next::Sleep(None), Next::Sleep(None), Next::Sleep(None)];
        let moves = || [Next::Move, Next::Sleep(None), Next::Destroy(None)];
        let suffers =
            |e: &ActorError| [Next::Restart(e.clone()), Next::Sleep(Some(e.clone())), Next::Destroy(Some(e.clone()))];
        let table = [
            (Phase::Running, Ending::Ok, destroy()),
            (Phase::StoppingToDestroy, Ending::Ok, destroy()),
            (Phase::Running, failed.clone(), suffers(&crashed)),
            (Phase::StoppingToSleep, Ending::Ok, sleep()),
            (Phase::StoppingToSleep, failed.clone(), sleep()),
            (Phase::StoppingToMove, Ending::Ok, moves()),
            (Phase::StoppingToMove, failed.clone(), moves()),
            (Phase::Running, Ending::Lost(silent.clone()), suffers(&silent)),
            // Beyond the 24 combinations that were tried with the engine:
            (Phase::Starting, failed.clone(), suffers(&crashed)),
            (Phase::StoppingToDestroy, failed, suffers(&crashed)),
            (Phase::StoppingToSleep, Ending::Lost(silent.clone()), sleep()),
            (Phase::StoppingToMove, Ending::Lost(silent.clone()), suffers(&silent)),
        ];
        for (phase, ending, expected) in table {
            for (policy, expected) in POLICIES.into_iter().zip(expected) {
                assert_eq!(after(phase, false, policy, ending.clone()), expected, "{phase:?} {ending:?} {policy:?}");
                assert_eq!(after(phase, true, policy, ending.clone()), Next::Destroy(None));
            }
        }
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_delay_doubles_up_to_a_bound() {
        let mut random = Random::new([1, 2]);
        assert_eq!(restart_delay(0, &mut random), Duration::ZERO);
        for (restarts, seconds) in [(1, 2), (2, 4), (3, 8), (9, 512), (10, 512), (u32::MAX, 512)] {
            let delay = restart_delay(restarts, &mut random);
            let base = Duration::from_secs(seconds);
            assert!(delay >= base && delay < base + Duration::from_millis(500), "{restarts}: {delay:?}");
        }
    }
}
