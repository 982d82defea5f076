//! Sockets that stay open while their actor has no process, through everything that can end one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{client::Socket, cut::Weather, process::poll, stage::Stage};

pub async fn a_sleeping_actors_socket_wakes_it_and_every_message_arrives_in_order(stage: &Stage) {
    let id = stage.room("sleep").await;
    let mut loud = Talker::open(stage, &id, "loud").await;
    let mut quiet = Talker::open(stage, &id, "quiet").await;
    for round in 0..3 {
        loud.say(5).await;
        heard(stage, &id, &loud).await;
        let last = format!(":{}", loud.said);
        loud.hears(|text| text.ends_with(&last)).await;
        put_to_sleep(stage, &id).await;
        loud.say(5).await;
        heard(stage, &id, &loud).await;
        assert_eq!(generation(stage, &id).await, round + 1, "one wake for all of them");
    }
    put_to_sleep(stage, &id).await;
    // What an actor says in the moment it wakes reaches those too whose sockets have nothing to do with the waking.
    stage.client.ask(&id, "/say?text=morning").await;
    loud.hears(|text| text == "morning").await;
    quiet.hears(|text| text == "morning").await;
    quiet.say(1).await;
    heard(stage, &id, &quiet).await;
    assert_eq!(hooks(stage, &id, "open").len(), 2, "no socket was opened twice");
}

pub async fn a_socket_closed_while_its_actor_sleeps_is_told_once(stage: &Stage) {
    let id = stage.room("sleep").await;
    let (mut leaves, mut stays) = (Talker::open(stage, &id, "leaves").await, Talker::open(stage, &id, "stays").await);
    leaves.say(2).await;
    heard(stage, &id, &leaves).await;
    put_to_sleep(stage, &id).await;
    // The engine wakes the actor for it, unless its process was still about to end; then the next life is told.
    leaves.close().await;
    stays.say(3).await;
    heard(stage, &id, &stays).await;
    closed(stage, &id, &leaves, Duration::from_secs(20)).await;
    put_to_sleep(stage, &id).await;
    stays.say(3).await;
    heard(stage, &id, &stays).await;
    let closes = hooks(stage, &id, "close");
    assert_eq!(closes.len(), 1, "{closes:?}");
    assert_eq!((&closes[0]["code"], &closes[0]["reason"]), (&4001.into(), &"enough".into()), "{closes:?}");
}

pub async fn a_crash_leaves_hibernating_sockets_open(stage: &Stage) {
    for policy in ["sleep", "restart"] {
        let id = stage.room(policy).await;
        let mut talker = Talker::open(stage, &id, policy).await;
        talker.say(3).await;
        heard(stage, &id, &talker).await;
        stage.client.ask(&id, "/crash").await;
        talker.say(20).await;
        heard(stage, &id, &talker).await;
        assert!(generation(stage, &id).await >= 1, "it is another life");
    }
}

pub async fn a_cut_in_the_middle_of_traffic_loses_no_message(stage: &Stage) {
    let id = stage.room("restart").await;
    let mut talker = Talker::open(stage, &id, "talker").await;
    let mut listener = Talker::open(stage, &id, "listener").await;
    talker.say(3).await;
    let spell = stage.cut.spell(Weather::Down, Duration::from_secs(3));
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        talker.say(1).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    spell.await.unwrap();
    heard(stage, &id, &talker).await;

    // Messages that nothing follows: nobody would notice that they are missing.
    let spell = stage.cut.spell(Weather::Down, Duration::from_secs(2));
    listener.say(2).await;
    spell.await.unwrap();
    heard(stage, &id, &listener).await;
    stage.client.ask(&id, "/say?text=still+here").await;
    listener.hears(|text| text == "still here").await;
    talker.hears(|text| text == "still here").await;
    stage.assert_started_once_per_generation(&id);
    assert_eq!(generation(stage, &id).await, 0, "nobody was stopped for it");
}

pub async fn a_killed_runner_is_replaced_and_its_hibernating_sockets_go_on(stage: &Stage) {
    let id = stage.room("restart").await;
    let mut talker = Talker::open(stage, &id, "talker").await;
    talker.say(5).await;
    heard(stage, &id, &talker).await;
    let mut runner = stage.signal_runner(Signal::KILL).await;
    runner.exit_within(Duration::from_secs(5)).await.expect("a killed process ends");
    talker.say(5).await;
    stage.ensure_runner().await;
    talker.say(5).await;
    heard(stage, &id, &talker).await;
    assert_eq!(hooks(stage, &id, "open").len(), 1, "it is still the same socket");
}

pub async fn a_destroyed_actors_hibernating_sockets_are_closed(stage: &Stage) {
    let (deleted, goes) = (stage.room("sleep").await, stage.room("sleep").await);
    let mut of_deleted = Talker::open(stage, &deleted, "of deleted").await;
    let mut of_gone = Talker::open(stage, &goes, "of gone").await;
    let gone = stage.client.call("DELETE", &format!("/actors/{deleted}?namespace=default"), &[], "").await.unwrap();
    assert_eq!(gone.status, 200, "{}", gone.text());
    stage.client.ask(&goes, "/destroy").await;
    for talker in [&mut of_deleted, &mut of_gone] {
        let end = talker.ended().await;
        assert!(end.is_some(), "{} hears nothing of the end", talker.name);
    }
}

/// A client that says 1, 2, 3, …
struct Talker {
    name: String,
    sink: SplitSink<Socket, Message>,
    said: u64,
    heard: tokio::sync::mpsc::UnboundedReceiver<Message>,
    reader: JoinHandle<()>,
}

impl Talker {
    /// Connects, and waits until the actor has taken the socket.
    async fn open(stage: &Stage, id: &str, name: &str) -> Self {
        let (sink, mut stream) = stage.client.socket(id, &format!("/{}", name.replace(' ', "-"))).await.split();
        let (sender, heard) = tokio::sync::mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let talker = Talker { name: name.to_owned(), sink, said: 0, heard, reader };
        let there = poll(Duration::from_secs(15), || async { socket_of(stage, id, &talker.name).map(|_| ()) }).await;
        assert!(there.is_some(), "the actor never heard of {name}: {:?}", stage.hooks_of(id));
        talker
    }

    async fn say(&mut self, count: u64) {
        for _ in 0..count {
            self.said += 1;
            let said = self.sink.send(Message::text(self.said.to_string())).await;
            if said.is_err() {
                let heard: Vec<Message> = std::iter::from_fn(|| self.heard.try_recv().ok()).collect();
                panic!("{}: the socket is gone after {heard:?}", self.name);
            }
        }
    }

    async fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::from(4001), reason: "enough".into() };
        self.sink.send(Message::Close(Some(frame))).await.unwrap();
    }

    async fn hears(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut others = Vec::new();
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            while let Some(message) = self.heard.recv().await {
                match message {
                    Message::Text(text) if wanted(&text) => return true,
                    other => others.push(other),
                }
            }
            false
        });
        let found = found.await.unwrap_or(false);
        assert!(found, "{} never heard it, only {others:?}", self.name);
    }

    /// How the gateway closed the socket.
    async fn ended(&mut self) -> Option<u16> {
        tokio::time::timeout(Duration::from_secs(15), async {
            while let Some(message) = self.heard.recv().await {
                if let Message::Close(frame) = message {
                    return frame.map_or(1005, |frame| u16::from(frame.code));
                }
            }
            1006
        })
        .await
        .ok()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Waits until the actor was told everything that a client said; then it was told each in order, none skipped, and only
/// in another life again: what was not taken durably when the last one crashed.
async fn heard(stage: &Stage, id: &str, talker: &Talker) {
    let told = || {
        let Some(socket) = socket_of(stage, id, &talker.name) else { return Vec::new() };
        let mut told = hooks(stage, id, "message");
        told.retain(|hook| hook["ws"] == socket);
        told
    };
    let last = talker.said.to_string();
    let all = poll(Duration::from_secs(45), || async {
        told().last().is_some_and(|hook| hook["body"] == last.as_str()).then_some(())
    });
    let all = all.await;
    let told = told();
    let bodies: Vec<&str> = told.iter().filter_map(|hook| hook["body"].as_str()).collect();
    assert!(all.is_some(), "{} said up to {last}, the actor was told {bodies:?}", talker.name);
    let mut once: BTreeMap<u64, &str> = BTreeMap::new();
    let mut before: Option<(u64, u64)> = None;
    for hook in &told {
        let (seq, body) = (hook["seq"].as_u64().unwrap(), hook["body"].as_str().unwrap());
        let life = hook["generation"].as_u64().unwrap();
        let in_order =
            before.is_none_or(|(before, earlier)| seq == before || seq == before + 1 || seq < before && life > earlier);
        assert!(in_order, "out of order: {bodies:?}");
        assert_eq!(*once.entry(seq).or_insert(body), body, "another frame under the same number");
        before = Some((seq, life));
    }
    let expected: Vec<String> = (1..=talker.said).map(|number| number.to_string()).collect();
    assert_eq!(once.into_values().collect::<Vec<_>>(), expected, "each once");
}

async fn closed(stage: &Stage, id: &str, talker: &Talker, limit: Duration) {
    let socket = socket_of(stage, id, &talker.name).expect("it was open");
    let told = poll(limit, || async { hooks(stage, id, "close").into_iter().find(|hook| hook["ws"] == socket) }).await;
    assert!(told.is_some(), "the actor never heard that {} left: {:?}", talker.name, stage.hooks_of(id));
}

async fn put_to_sleep(stage: &Stage, id: &str) {
    stage.client.ask(id, "/sleep").await;
    stage.client.actor_when(id, "sleep_ts", Duration::from_secs(15)).await;
}

async fn generation(stage: &Stage, id: &str) -> u64 {
    stage.client.ask(id, "/who").await.json()["generation"].as_u64().expect("a generation")
}

fn socket_of(stage: &Stage, id: &str, name: &str) -> Option<Value> {
    let path = format!("/{}", name.replace(' ', "-"));
    let open = hooks(stage, id, "open").into_iter().find(|hook| hook["path"] == path.as_str())?;
    Some(open["ws"].clone())
}

fn hooks(stage: &Stage, id: &str, hook: &str) -> Vec<Value> {
    stage.hooks_of(id).into_iter().filter(|seen| seen["hook"] == hook).collect()
}
