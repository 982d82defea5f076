//! The network between runner and gateway fails for five seconds while work is open.

use std::time::Duration;

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;

use super::traffic::next;
use crate::{
    cut::Weather,
    process::poll,
    stage::{RunnerSide, Stage},
};

const SPELL: Duration = Duration::from_secs(5);

pub async fn five_silent_seconds_in_open_work_pass_unnoticed(stage: &Stage) {
    open_work_survives(stage, Weather::Silent).await;
}

pub async fn a_broken_connection_in_open_work_is_repaired(stage: &Stage) {
    open_work_survives(stage, Weather::Down).await;
}

/// A request that writes during the whole cut, a socket that was open before it, and another actor that has nothing to
/// do: afterwards all of them are as if nothing had happened, and no start hook ran again. The TypeScript runner forgets
/// its sockets when the gateway delivers the start again after a reconnect, so there the socket is not asked.
async fn open_work_survives(stage: &Stage, weather: Weather) {
    let (busy, idle) = (stage.actor("restart").await, stage.actor("restart").await);
    assert_eq!(stage.client.count(&idle, "/").await, 1);
    let mut socket = stage.client.socket(&busy, "/ws").await;
    socket.send(Message::text("before")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("before"));
    assert_eq!(stage.client.count(&busy, "/").await, 1);

    let (client, id) = (stage.client, busy.clone());
    let slow = tokio::spawn(async move { client.get(&format!("/gateway/{id}/slow?ms=100&steps=40")).await });
    written(stage, &busy, "step").await;
    let spell = stage.cut.spell(weather, SPELL);
    spell.await.unwrap();

    let slow = slow.await.unwrap().expect("the open request ends");
    assert_eq!((slow.status, slow.text().as_str()), (200, "2"), "the work that was open goes on and counts once");
    answers(stage, &idle, 2).await;
    if stage.runner_side == RunnerSide::Ours || weather == Weather::Silent {
        socket.send(Message::text("after")).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text("after"), "the socket is still the same");
    }
    for id in [&busy, &idle] {
        stage.assert_started_once_per_generation(id);
        assert_eq!(stage.runs_of(id, "stop"), [].into(), "nobody was stopped");
    }
}

pub async fn a_sleep_asked_for_while_cut_off_still_happens(stage: &Stage) {
    let id = stage.actor("sleep").await;
    assert_eq!(stage.client.count(&id, "/").await, 1);
    stage.client.ask(&id, "/sleep?after=1000").await;
    stage.cut.spell(Weather::Down, SPELL).await.unwrap();
    stage.client.actor_when(&id, "sleep_ts", Duration::from_secs(20)).await;
    stage.hook_ran(&id, "stop", 0).await;
    answers(stage, &id, 2).await;
    stage.assert_started_once_per_generation(&id);
    assert_eq!(stage.client.ask(&id, "/who").await.json()["generation"], 1);
}

pub async fn a_stop_that_ends_while_cut_off_still_arrives(stage: &Stage) {
    let id = stage.actor("sleep").await;
    assert_eq!(stage.client.count(&id, "/").await, 1);
    // The stop hook takes two seconds, so the stop command comes before the cut and its end falls into it.
    stage.client.ask(&id, "/sleep?stop_takes=2000").await;
    stage.hook_ran(&id, "stopping", 0).await;
    stage.cut.spell(Weather::Down, SPELL).await.unwrap();
    stage.hook_ran(&id, "stop", 0).await;
    // An actor whose end got lost would answer nothing until the gateway's stop threshold, half an hour.
    answers(stage, &id, 2).await;
    stage.assert_started_once_per_generation(&id);
}

pub async fn a_deleted_actor_stops_even_when_its_runner_was_cut_off(stage: &Stage) {
    let id = stage.actor("restart").await;
    let spell = stage.cut.spell(Weather::Down, SPELL);
    let gone = stage.client.call("DELETE", &format!("/actors/{id}?namespace=default"), &[], "").await.unwrap();
    assert_eq!(gone.status, 200, "{}", gone.text());
    spell.await.unwrap();
    let stopped = poll(Duration::from_secs(20), || async { stage.runs_of(&id, "stop").get(&0).copied() }).await;
    assert!(stopped.is_some(), "the actor runs on although it was deleted: {:?}", stage.hooks_of(&id));
    stage.assert_started_once_per_generation(&id);
}

/// Waits until the actor has written a key, seen from outside.
async fn written(stage: &Stage, id: &str, key: &str) {
    let key = data_encoding::BASE64.encode(key.as_bytes()).replace('=', "%3D");
    let path = format!("/actors/{id}/kv/keys/{key}?namespace=default");
    let there =
        poll(Duration::from_secs(10), || async { stage.client.get(&path).await.ok().filter(|a| a.status == 200) });
    assert!(there.await.is_some(), "the actor never wrote {key}");
}

/// The next increment gives the expected count; a request may be refused while the runner is on its way back.
pub async fn answers(stage: &Stage, id: &str, expected: u64) {
    let mut last = String::new();
    for _ in 0..5 {
        match stage.client.get(&format!("/gateway/{id}/")).await {
            Ok(answer) if answer.status == 200 => {
                assert_eq!(answer.text(), expected.to_string());
                return;
            }
            Ok(answer) => last = format!("{} {}", answer.status, answer.text()),
            Err(error) => last = error,
        }
    }
    panic!("the actor does not answer: {last}");
}
