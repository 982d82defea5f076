//! What is special to apps that serve many actors: one process for a name, and servers elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use greenroom::actor::{Outcome, StartReason, StopReason};
use greenroom::host::child_process::{Settings, SharedProcess};
use greenroom::host::upstream::Upstream;
use greenroom::host::{ActorHost, StartActor};
use tempfile::TempDir;

use crate::elsewhere::{Elsewhere, at, parrot};
use crate::stage::{Stage, actor, app, app_with, runs, shell, until};

/// Actors on one host.
struct Troupe {
    directory: Arc<TempDir>,
    host: Arc<dyn ActorHost>,
    /// The first one; the tokens of all are issued here.
    first: Stage,
}

impl Troupe {
    async fn sharing(settings: Settings, linger: Duration) -> Self {
        Self::on(|roots, doors| Arc::new(SharedProcess::lingering(settings, roots, doors, linger))).await
    }

    async fn upstream<const N: usize>(urls: [String; N]) -> Self {
        Self::on(|_, doors| Arc::new(Upstream::new(at(urls), doors, None).unwrap())).await
    }

    /// The first actor of a host.
    async fn on(
        host: impl FnOnce(greenroom::host::child_process::Roots, greenroom::host::Doors) -> Arc<dyn ActorHost>,
    ) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let mut made = None;
        let mut first = Stage::with(directory.clone(), actor("a1", 1), |roots, doors| {
            let host = host(roots, doors);
            made = Some(host.clone());
            host
        });
        first.running().await;
        Troupe { directory, host: made.unwrap(), first }
    }

    fn start(&self, start: StartActor) -> Stage {
        Stage::with(self.directory.clone(), start, |_, _| self.host.clone())
    }

    async fn another(&self, id: &str, generation: u32) -> Stage {
        let reason = if generation == 1 { StartReason::Create } else { StartReason::Wake };
        let mut stage = self.start(StartActor { reason, ..actor(id, generation) });
        stage.running().await;
        stage
    }
}

#[tokio::test]
async fn a_process_of_many_goes_with_the_runtime_of_its_runner() {
    let ran = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let troupe = Troupe::sharing(app(), Duration::from_secs(30)).await;
            troupe.first.text("/pid").await
        })
    });
    let pid = ran.await.unwrap();
    until(|| !runs(&pid)).await;
}

#[tokio::test]
async fn one_process_serves_all_actors_of_a_name_and_knows_them_apart() {
    let troupe = Troupe::sharing(app(), Duration::from_secs(30)).await;
    let mut second = troupe.another("a2", 1).await;
    assert_eq!(troupe.first.text("/pid").await, second.text("/pid").await);
    each_request_says_for_whom_it_is(&troupe, &second).await;

    let environment: BTreeMap<String, String> = serde_json::from_str(&second.text("/environment").await).unwrap();
    assert_eq!(environment["ACTOR_NAME"], "suite");
    for own in ["ACTOR_ID", "ACTOR_KEY", "ACTOR_GENERATION", "ACTOR_START_REASON", "ACTOR_TOKEN_FILE"] {
        assert!(!environment.contains_key(own), "{own}");
    }

    second.stop(StopReason::Sleep).await;
    assert_eq!(troupe.first.tokens.live.lock().unwrap().len(), 1, "only the token of the first is good");
    assert_eq!(troupe.first.text("/ping").await, "pong");
}

#[tokio::test]
async fn a_server_elsewhere_serves_many_and_knows_them_apart() {
    let server = Elsewhere::start(&[]);
    let troupe = Troupe::upstream([server.url()]).await;
    let second = troupe.another("a2", 1).await;
    assert_eq!((troupe.first.text("/pid").await, second.text("/pid").await), (server.pid(), server.pid()));
    each_request_says_for_whom_it_is(&troupe, &second).await;
}

async fn each_request_says_for_whom_it_is(troupe: &Troupe, second: &Stage) {
    for (stage, id) in [(&troupe.first, "a1"), (second, "a2")] {
        let headers = headers(stage).await;
        assert_eq!((&*headers["actor-id"], &*headers["actor-generation"]), (id, "1"));
        assert_eq!(headers["actor-api"], "http://127.0.0.1:9");
        let tokens = troupe.first.tokens.live.lock().unwrap();
        assert_eq!(&*tokens[&headers["actor-token"]].key().id, id);
    }
}

#[tokio::test]
async fn a_slow_actor_does_not_hold_up_the_others() {
    let troupe = Troupe::sharing(app(), Duration::from_secs(30)).await;
    let second = troupe.another("a2", 1).await;
    let none = || greenroom::host::Body::Whole(bytes::Bytes::new());
    let slow: Vec<_> = (0..100).map(|_| troupe.first.send("GET", "/slow", &[], none())).collect();
    assert_eq!(second.text("/arrived").await, "yes");
    assert_eq!(second.text("/ping").await, "pong");
    second.get("/release").await;
    for slow in slow {
        assert_eq!(slow.answer().await.text(), "late");
    }
}

#[tokio::test]
async fn a_crash_of_the_process_ends_all_its_actors_and_the_next_one_starts_it_again() {
    let mut troupe = Troupe::sharing(app(), Duration::from_secs(30)).await;
    let mut second = troupe.another("a2", 1).await;
    let pid = second.text("/pid").await;
    let mut request = second.send("GET", "/crash", &[], greenroom::host::Body::Whole(bytes::Bytes::new()));
    for stage in [&mut troupe.first, &mut second] {
        let reason = stage.failed().await;
        assert!(reason.contains("exited with code 3") && reason.contains("goodbye"), "{reason}");
    }
    assert!(request.try_answer().await.is_none(), "the gateway tries the next life");
    let again = troupe.another("a2", 2).await;
    assert_ne!(again.text("/pid").await, pid);
}

#[tokio::test]
async fn a_process_that_no_actor_uses_is_stopped_after_a_while() {
    let mut troupe = Troupe::sharing(app(), Duration::from_millis(100)).await;
    let pid = troupe.first.text("/pid").await;
    let mut second = troupe.another("a2", 1).await;
    troupe.first.stop(StopReason::Sleep).await;
    assert_eq!(second.text("/pid").await, pid);
    second.stop(StopReason::Sleep).await;
    until(|| !runs(&pid)).await;
    assert_ne!(troupe.another("a1", 2).await.text("/pid").await, pid);
}

#[tokio::test]
async fn a_drain_stops_the_process_with_its_last_actor() {
    let mut troupe = Troupe::sharing(app_with(&[("ON_TERM", "linger")]), Duration::from_secs(30)).await;
    let pid = troupe.first.text("/pid").await;
    let mut second = troupe.another("a2", 1).await;
    troupe.first.stop(StopReason::Drain).await;
    assert_eq!(second.text("/ping").await, "pong");
    second.stop(StopReason::Drain).await;
    assert!(!runs(&pid));
}

#[tokio::test]
async fn a_shared_process_that_does_not_start_says_why_to_everybody_who_waits() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut host: Option<Arc<dyn ActorHost>> = None;
    let mut first = Stage::with(directory.clone(), actor("a1", 1), |roots, doors| {
        let shared = SharedProcess::new(shell("sleep 0.3; echo no database >&2; exit 7"), roots, doors);
        host.insert(Arc::new(shared)).clone()
    });
    let mut second = Stage::with(directory, actor("a2", 1), |_, _| host.clone().unwrap());
    for stage in [&mut first, &mut second] {
        let reason = stage.failed().await;
        assert!(reason.contains("exited with code 7") && reason.contains("no database"), "{reason}");
    }
}

#[tokio::test]
async fn an_actor_stays_on_its_replica_and_moves_when_that_is_down() {
    let mut servers = vec![Elsewhere::start(&[]), Elsewhere::start(&[])];
    let mut troupe = Troupe::upstream([servers[0].url(), servers[1].url()]).await;
    let pid = troupe.first.text("/pid").await;
    troupe.first.stop(StopReason::Sleep).await;
    let mut again = troupe.another("a1", 2).await;
    assert_eq!(again.text("/pid").await, pid, "it comes back to where it was");

    let home = servers.iter().position(|server| server.pid() == pid).unwrap();
    let gone = servers.remove(home);
    let url = gone.url();
    drop(gone);
    let mut request = again.send("GET", "/ping", &[], greenroom::host::Body::Whole(bytes::Bytes::new()));
    let reason = again.failed().await;
    assert!(reason.contains(&format!("the upstream {url} is down")), "{reason}");
    // Tried again by the gateway, or told, when the verdict took its time.
    assert!(request.try_answer().await.is_none_or(|answer| answer.status == 502));
    let moved = troupe.another("a1", 3).await;
    assert_eq!(moved.text("/pid").await, servers[0].pid());
}

#[tokio::test]
async fn with_no_server_that_is_well_the_start_fails_and_says_what_is_wrong_with_each() {
    let sick = parrot("HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let urls = ["unix:/nowhere/app.sock".to_owned(), sick.clone()];
    let mut stage = Stage::new(|_, doors| {
        let settings = greenroom::host::upstream::Settings { health: Some("/health".into()), ..at(urls) };
        Arc::new(Upstream::new(settings, doors, None).unwrap())
    });
    let reason = stage.failed().await;
    assert!(reason.starts_with("no upstream of suite takes the actor: "), "{reason}");
    assert!(reason.contains("unix:/nowhere/app.sock cannot be reached"), "{reason}");
    assert!(reason.contains(&format!("{sick} answered the health check with status 500")), "{reason}");
}

#[tokio::test]
async fn a_server_without_room_sends_the_actor_to_the_next_and_redirects_are_the_clients() {
    let full = parrot("HTTP/1.1 503 Full\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let redirecting =
        parrot("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let troupe = Troupe::upstream([full, redirecting]).await;
    let answer = troupe.first.get("/").await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://127.0.0.1:1/")));
}

#[tokio::test]
async fn a_server_hears_of_start_and_stop_also_when_the_actor_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hooks");
    let server = Elsewhere::start(&[("HOOKS", file.to_str().unwrap())]);
    let mut troupe = Troupe::upstream([server.url()]).await;
    let second = troupe.another("a2", 1).await;
    troupe.first.stop(StopReason::Destroy).await;
    second.handle.kill();
    let mut second = second;
    assert_eq!(second.ended().await, Outcome::Wanted);
    drop(second);
    let expected =
        [("a1", "start", "create"), ("a2", "start", "create"), ("a1", "stop", "destroy"), ("a2", "stop", "stop")];
    let expected: Vec<_> = expected.map(|(id, event, reason)| [id, event, reason].map(str::to_owned)).to_vec();
    until(|| told(&file).len() == expected.len()).await;
    assert_eq!(told(&file), expected);
}

#[tokio::test]
async fn a_refused_start_carries_the_servers_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hooks");
    let server = Elsewhere::start(&[("HOOKS", file.to_str().unwrap()), ("START", "refuse")]);
    let url = server.url();
    let mut stage = Stage::new(|_, doors| Arc::new(Upstream::new(at([url]), doors, None).unwrap()));
    let reason = stage.failed().await;
    assert!(reason.contains("answered the start event with 500: the license has expired"), "{reason}");
}

/// The hooks that were told: actor, event, reason.
fn told(file: &std::path::Path) -> Vec<[String; 3]> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let hooks = text.lines().filter_map(|line| serde_json::from_str::<BTreeMap<String, String>>(line).ok());
    hooks.map(|hook| ["actor-id", "actor-event", "actor-reason"].map(|name| hook[name].clone())).collect()
}

async fn headers(stage: &Stage) -> BTreeMap<String, String> {
    let answer =
        stage.send("GET", "/headers", &[("Actor-Token", "spoofed")], greenroom::host::Body::Whole(bytes::Bytes::new()));
    let headers: Vec<(String, String)> = serde_json::from_slice(&answer.answer().await.body).unwrap();
    headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()
}
