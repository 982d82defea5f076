//! Sockets of the TypeScript runner that outlive their actor, on our gateway.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::client::Socket;
use crate::{process::poll, stage::Stage};

pub async fn a_socket_of_the_typescript_runner_outlives_its_actor(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let mut socket = stage.client.socket(&id, "/hws").await;
    let mut quiet = stage.client.socket(&id, "/hws/quiet").await;
    echo(&mut socket, "one").await;
    for generation in 0..3 {
        sleep(stage, &id, generation).await;
        // The first message wakes the actor, the second finds it awake.
        echo(&mut socket, "wake up").await;
        echo(&mut socket, "still there?").await;
        assert!(stage.runs_of(&id, "start").contains_key(&(generation + 1)));
    }
    assert_eq!(count(stage, &id, "ws_open"), 2, "no socket was opened anew");

    // A client that leaves while the actor sleeps wakes it once more.
    sleep(stage, &id, 3).await;
    let bye = CloseFrame { code: 4000.into(), reason: "bye".into() };
    socket.close(Some(bye)).await.expect("closes");
    let told = poll(Duration::from_secs(15), || async { (count(stage, &id, "ws_close") > 0).then_some(()) });
    assert!(told.await.is_some(), "the actor never heard of it");
    echo(&mut quiet, "I am still here").await;
    let hooks = stage.hooks_of(&id);
    let closes: Vec<_> = hooks.iter().filter(|hook| hook["hook"] == "ws_close").collect();
    assert_eq!(closes.len(), 1, "{closes:?}");
    assert_eq!((&closes[0]["code"], &closes[0]["reason"]), (&json!(4000), &json!("bye")));
    assert_eq!(stage.runs_of(&id, "start"), (0..=4).map(|generation| (generation, 1)).collect());
}

async fn sleep(stage: &Stage, id: &str, generation: u64) {
    stage.client.ask(id, "/sleep").await;
    stage.client.actor_when(id, "sleep_ts", Duration::from_secs(15)).await;
    stage.hook_ran(id, "stop", generation).await;
}

async fn echo(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.expect("sent");
    let answer = timeout(Duration::from_secs(15), socket.next()).await.expect("an answer in time");
    assert_eq!(answer.expect("open").expect("readable"), Message::text(text));
}

fn count(stage: &Stage, id: &str, hook: &str) -> usize {
    stage.hooks_of(id).iter().filter(|entry| entry["hook"] == hook).count()
}
