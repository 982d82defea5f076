//! Why an actor is awake, why it stopped last, and what it waits for, in sentences.

use std::time::SystemTime;

use super::actors::Found;
use crate::actor::{Outcome, StartReason, StopReason};
use crate::host::{AwakeReason, Work};
use crate::runner::{ActorLife, LifeState, LifeWish, LinkStatus, Status};
use crate::telemetry::metrics::State;
use crate::telemetry::rfc3339;

/// The sentences about one actor.
pub(super) fn sentences(found: &Found, status: &Status) -> Vec<String> {
    let Found { life, before } = found;
    let mut said = vec![started(life)];
    match &life.state {
        LifeState::Live(State::Starting) => {
            said.push(format!("It is starting{}: it does not serve yet.", ago(life.since)));
            if life.requests + life.sockets > 0 {
                said.push(format!(
                    "{} and {} wait for it.",
                    count(life.requests, "request"),
                    count(life.sockets, "socket")
                ));
            }
        }
        LifeState::Live(State::Running) => awake(life, &mut said),
        LifeState::Live(State::Stopping) => {
            let why = life.stop_reason.map_or("it is to end at once", why_stopped);
            said.push(format!("It is being stopped{} because {why}.", ago(life.since)));
            if life.requests > 0 {
                said.push(format!(
                    "It waits for {} to finish, for at most half of its stop_grace.",
                    count(life.requests, "request")
                ));
            } else {
                said.push("It has until the end of its stop_grace, then it is killed.".to_owned());
            }
        }
        LifeState::Ended(outcome) => said.push(ended("It is not awake here: it ended", life, outcome)),
    }
    if let Some(before) = before
        && let LifeState::Ended(outcome) = &before.state
    {
        let what = format!("The life before, generation {}, ended", before.start.key.generation);
        said.push(ended(&what, before, outcome));
    }
    if status.link != LinkStatus::Open {
        let why = status.reason.as_deref().unwrap_or("still connecting");
        said.push(format!("The gateway is away ({why}): no requests come, and stops and sleeps wait for it."));
    }
    said
}

fn started(life: &ActorLife) -> String {
    let start = &life.start;
    let key = start.actor_key.as_ref().map(|key| format!(" with the key {key:?}")).unwrap_or_default();
    let why = match start.reason {
        StartReason::Create => "it was created",
        StartReason::Wake => "a request, a message or an alarm woke it",
        StartReason::Restart => "its life before crashed or was lost",
    };
    let (name, generation, at) = (&start.name, start.key.generation, rfc3339(life.started_at));
    format!("The actor {name}{key} was started at {at} as generation {generation} because {why}.")
}

fn awake(life: &ActorLife, said: &mut Vec<String>) {
    said.push(format!("It serves{}.", ago(life.since)));
    if let Some(age) = life.oldest_request {
        said.push(format!("Its oldest request is {:.1} s old.", age.as_secs_f64()));
    }
    said.extend(life.awake_because.iter().map(sentence));
    match life.wish {
        Some(LifeWish::Sleep) => {
            said.push("It asked to sleep and waits for the gateway to have it stopped.".to_owned())
        }
        Some(LifeWish::Destroy) => {
            said.push("It asked to be destroyed and waits for the gateway to have it stopped.".to_owned());
        }
        None => {}
    }
}

fn sentence(reason: &AwakeReason) -> String {
    match reason {
        AwakeReason::Work(Work::Request, requests) => format!("{} keeps it awake.", count(*requests, "request")),
        AwakeReason::Work(Work::Socket, sockets) => {
            format!("{} that it holds itself keeps it awake.", count(*sockets, "client socket"))
        }
        AwakeReason::Work(Work::Event, events) => {
            format!("{} that it is told, or is to be told, keeps it awake.", count(*events, "event"))
        }
        AwakeReason::Work(Work::Workflow, workflows) => format!("{} keeps it awake.", count(*workflows, "workflow")),
        AwakeReason::Work(Work::Job, jobs) => format!("{} keeps it awake.", count(*jobs, "job")),
        AwakeReason::KeepAwake(name, left) => {
            format!("The lease {name:?} keeps it awake for at most {:.1} s more.", left.as_secs_f64())
        }
        AwakeReason::AlarmSoon(_) => "An alarm is due, so that it is not worth to sleep.".to_owned(),
        AwakeReason::IdleFor { idle, of } => format!(
            "It has had nothing to do for {:.1} s and is put to sleep after {:.1} s (sleep_after).",
            idle.as_secs_f64(),
            of.as_secs_f64()
        ),
        AwakeReason::NeverSleeps => "Its sleep_after is never: it stays awake until it asks to sleep (POST /v1/sleep) \
                                     or is told to."
            .to_owned(),
    }
}

fn ended(what: &str, life: &ActorLife, outcome: &Outcome) -> String {
    let at = format!("{what} at {}", rfc3339(life.since));
    match (outcome, life.stop_reason) {
        (Outcome::Failed(why), None) => format!("{at} by itself: {why}"),
        (Outcome::Failed(why), Some(reason)) => format!("{at} because {}, not in order: {why}", why_stopped(reason)),
        (Outcome::Wanted, Some(reason)) => format!("{at} because {}.", why_stopped(reason)),
        (Outcome::Wanted, None) if life.wish == Some(LifeWish::Destroy) => format!("{at} on its own wish, for good."),
        (Outcome::Wanted, None) => format!("{at} on its own wish; the next request or alarm wakes it."),
    }
}

fn why_stopped(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Sleep => "it asked to sleep",
        StopReason::Destroy => "it asked to be destroyed",
        StopReason::Stop => "the gateway or an operator said so",
        StopReason::Drain => "the runner drains",
        StopReason::Lost => "the gateway was away for so long that it may already run elsewhere",
        StopReason::Replaced => "a newer generation of it is to start",
    }
}

fn ago(since: SystemTime) -> String {
    let ago = SystemTime::now().duration_since(since).unwrap_or_default();
    format!(" since {} ({} s)", rfc3339(since), ago.as_secs())
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
