//! One actor, or all of them.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Refusal, sentence, wants_json};
use super::explain::sentences;
use super::state::Shared;
use crate::actor::Outcome;
use crate::runner::{ActorLife, LifeState, LifeWish};
use crate::telemetry::metrics::{Source, State as Phase};
use crate::telemetry::output::{self, Line, OutputReader};
use crate::telemetry::rfc3339;

/// An actor: its life now or its last one, and the one before.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) life: ActorLife,
    pub(super) before: Option<ActorLife>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    name: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Logs {
    #[serde(default)]
    follow: bool,
    lines: Option<usize>,
    format: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Form {
    format: Option<String>,
}

/// The actors that have not ended; with `?all=true` also the last ones that have.
pub(super) async fn list(State(shared): State<Shared>, Query(wanted): Query<Wanted>) -> Result<Json<Value>, Refusal> {
    let lives = shared.lives().await?;
    let of_name = |life: &&ActorLife| wanted.name.as_deref().is_none_or(|name| *name == *life.start.name);
    let (live, ended): (Vec<_>, Vec<_>) = lives.iter().filter(of_name).partition(|life| is_live(life));
    let all_told = |lives: Vec<&ActorLife>| -> Vec<Value> { lives.into_iter().map(told).collect() };
    let mut body = json!({ "actors": all_told(live) });
    if wanted.all {
        body["ended"] = all_told(ended).into();
    }
    Ok(Json(body))
}

pub(super) async fn show(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let found = find(shared.lives().await?, &id)?;
    let mut body = told(&found.life);
    body["last_stop"] = found.before.as_ref().map(told_stop).into();
    body["explanation"] = sentences(&found, &shared.link().0).into();
    Ok(Json(body))
}

/// Why an actor is awake, why it stopped last, and what it waits for.
pub(super) async fn explain(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(form): Query<Form>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let found = find(shared.lives().await?, &id)?;
    let sentences = sentences(&found, &shared.link().0);
    let body = json!({ "id": &*found.life.start.key.id, "explanation": sentences });
    Ok(sentence(StatusCode::OK, sentences.join("\n"), &body, wants_json(form.format.as_deref(), &headers)))
}

/// Asks for an actor's sleep, as the actor itself could.
pub(super) async fn sleep(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let life = live(find(shared.lives().await?, &id)?)?;
    shared.runner.sleep(&life.start.key).await.map_err(|gone| Refusal::no_answer(gone.to_string()))?;
    Ok(accepted(&life, "asked to sleep; the gateway has it stopped, and the next request wakes it"))
}

/// Stops an actor with an error, which never costs state by itself: its crash policy says what follows.
pub(super) async fn stop(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let life = live(find(shared.lives().await?, &id)?)?;
    let outcome = Outcome::Failed("stopped by an operator".to_owned());
    shared.runner.stop(&life.start.key, outcome).await.map_err(|gone| Refusal::no_answer(gone.to_string()))?;
    Ok(accepted(&life, "is being stopped; its crash policy says what follows"))
}

/// The last lines that an actor's process wrote, and with `?follow=true` those that come.
pub(super) async fn logs(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(wanted): Query<Logs>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let lines = wanted.lines.unwrap_or(LINES);
    // Lines are kept for longer than lives, so the exact id of an actor that nobody remembers will do, and so will a
    // name whose actors share a process.
    let reader = match lines_of(&id, &id, lines) {
        Some(reader) => Some(reader),
        None => {
            let start = find(shared.lives().await?, &id)?.life.start;
            lines_of(&start.key.id, &start.name, lines)
        }
    };
    let as_json = wants_json(wanted.format.as_deref(), &headers);
    let content_type = if as_json { "application/x-ndjson" } else { "text/plain; charset=utf-8" };
    let Some((mut reader, of_all)) = reader else {
        // It may run in this process, or has not written yet.
        return Ok(([(CONTENT_TYPE, content_type)], Body::empty()).into_response());
    };
    let mut first = String::new();
    while let Some(line) = reader.try_next() {
        first += &written(&line, of_all, as_json);
    }
    if !wanted.follow {
        return Ok(([(CONTENT_TYPE, content_type)], first).into_response());
    }
    let rest = futures_util::stream::unfold((Some(first), reader), move |(first, mut reader)| async move {
        let text = match first {
            Some(first) => first,
            None => written(&reader.next().await?, of_all, as_json),
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), (None, reader)))
    });
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(rest)).into_response())
}

/// The lines of an actor, else those of the process that it shares with the others of its name; and whether they are
/// of all of them.
fn lines_of(id: &str, name: &str, lines: usize) -> Option<(OutputReader, bool)> {
    let own = || output::reader(id, lines).map(|reader| (reader, id.starts_with(&output::process_of(""))));
    let shared = || output::reader(&output::process_of(name), lines).map(|reader| (reader, true));
    own().or_else(shared)
}

fn written(line: &Line, of_all: bool, as_json: bool) -> String {
    let source = match line.source {
        Source::Stdout => "stdout",
        Source::Stderr => "stderr",
    };
    let at = rfc3339(line.at);
    if as_json {
        let mut record = json!({ "at": at, "generation": line.generation, "source": source, "line": &*line.text });
        if of_all {
            // Which of its actors a shared process wrote it for, only the line itself can say.
            record["shared"] = true.into();
            record["generation"] = Value::Null;
        }
        return format!("{record}\n");
    }
    format!("{at} {source} {}\n", line.text)
}

/// The actor that is meant: by its id, a prefix of it, or its key or name when only one has it.
fn find(lives: Vec<ActorLife>, wanted: &str) -> Result<Found, Refusal> {
    let ids = |meant: &dyn Fn(&ActorLife) -> bool| -> BTreeSet<Arc<str>> {
        lives.iter().filter(|life| meant(life)).map(|life| life.start.key.id.clone()).collect()
    };
    let candidates = [
        ids(&|life| *life.start.key.id == *wanted),
        ids(&|life| is_live(life) && is_called(life, wanted)),
        ids(&|life| is_called(life, wanted)),
        ids(&|life| is_live(life) && life.start.key.id.starts_with(wanted)),
        ids(&|life| life.start.key.id.starts_with(wanted)),
    ];
    let Some(candidates) = candidates.into_iter().find(|ids| !ids.is_empty()) else {
        let says = format!("no actor here has the id, key or name {wanted:?}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "no_such_actor", says)
            .hint("`greenroom actors list` shows those that are awake; the gateway knows those that sleep"));
    };
    let mut candidates = candidates.into_iter();
    let id = candidates.next().expect("a set that is not empty was looked for");
    if candidates.len() > 0 {
        let some: Vec<String> = [id].into_iter().chain(candidates).take(5).map(|id| id.to_string()).collect();
        let says = format!("{wanted:?} is more than one actor: {}", some.join(", "));
        return Err(Refusal::new(StatusCode::CONFLICT, "ambiguous", says).hint("give more of the id"));
    }
    let mut lives: Vec<ActorLife> = lives.into_iter().filter(|life| life.start.key.id == id).collect();
    lives.sort_by_key(|life| life.start.key.generation);
    let life = lives.pop().expect("the id comes from one of them");
    Ok(Found { life, before: lives.pop() })
}

fn is_called(life: &ActorLife, wanted: &str) -> bool {
    *life.start.name == *wanted || life.start.actor_key.as_ref().is_some_and(|key| **key == *wanted)
}

fn live(found: Found) -> Result<ActorLife, Refusal> {
    if is_live(&found.life) {
        return Ok(found.life);
    }
    let says = format!("the actor {} is not awake", found.life.start.key.id);
    Err(Refusal::new(StatusCode::CONFLICT, "not_awake", says))
}

fn is_live(life: &ActorLife) -> bool {
    matches!(life.state, LifeState::Live(_))
}

fn accepted(life: &ActorLife, says: &str) -> Response {
    let body = json!({ "id": &*life.start.key.id, "generation": life.start.key.generation, "message": says });
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

fn told(life: &ActorLife) -> Value {
    let state = match &life.state {
        LifeState::Live(state) => state.as_str(),
        LifeState::Ended(_) => "ended",
    };
    let wish = life.wish.map(|wish| match wish {
        LifeWish::Sleep => "sleep",
        LifeWish::Destroy => "destroy",
    });
    json!({
        "id": &*life.start.key.id,
        "name": &*life.start.name,
        "key": life.start.actor_key.as_deref(),
        "generation": life.start.key.generation,
        "state": state,
        "since": rfc3339(life.since),
        "for_s": life.since.elapsed().unwrap_or_default().as_secs(),
        "started_at": rfc3339(life.started_at),
        "start_reason": life.start.reason.as_str(),
        "stop_reason": life.stop_reason.map(crate::actor::StopReason::as_str),
        "wish": wish,
        "requests": life.requests,
        "oldest_request_ms": life.oldest_request.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "sockets": life.sockets,
        "last_error": error(life),
    })
}

fn told_stop(life: &ActorLife) -> Value {
    json!({
        "generation": life.start.key.generation,
        "at": rfc3339(life.since),
        "reason": life.stop_reason.map(crate::actor::StopReason::as_str),
        "error": error(life),
    })
}

fn error(life: &ActorLife) -> Option<&str> {
    match &life.state {
        LifeState::Ended(Outcome::Failed(why)) => Some(why),
        LifeState::Ended(Outcome::Wanted) | LifeState::Live(Phase::Starting | Phase::Running | Phase::Stopping) => None,
    }
}

/// Lines shown unless a caller says how many.
const LINES: usize = 100;

#[cfg(test)]
mod tests;
