//! The first words of a connection.

use greenroom::protocol::{ToClient, ToServer, Version};
use greenroom::runner::{LinkStatus, Runner, StartFailure};

use crate::actors::Stage;
use crate::gateway::{Gateway, stream};

#[tokio::test]
async fn a_runner_introduces_itself_with_all_it_was_told() {
    let gateway = Gateway::listen().await;
    let runner = Stage::new()
        .runner(&gateway)
        .namespace("a b/c")
        .name("pool")
        .key("key&=")
        .token(Some("secret".to_owned().into()))
        .version(3)
        .slots(7)
        .metadata("rack", "r2")
        .start()
        .unwrap();
    let mut wire = gateway.accept().await;
    assert_eq!(wire.uri, "/runners/connect?protocol_version=7&namespace=a%20b%2Fc&runner_key=key%26%3D");
    let header = |name: &str| wire.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    assert_eq!(header("sec-websocket-protocol").as_deref(), Some("rivet, rivet_token.secret"));
    assert_eq!(header("x-greenroom-features").as_deref(), Some("stream, repeated-headers, credit"));
    assert!(header("user-agent").unwrap().starts_with("greenroom/"));

    let mut status = runner.watch_status();
    status.wait_for(|status| status.link == LinkStatus::Greeting).await.unwrap();
    let init = wire.greet().await;
    assert_eq!((&*init.name, init.version, init.total_slots), ("pool", 3, 7));
    let names = init.prepopulate_actor_names.expect("names");
    let names: Vec<&str> = names.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["failing", "gated", "probe", "stubborn"]);
    let metadata: serde_json::Value = serde_json::from_str(&init.metadata.expect("metadata")).unwrap();
    assert_eq!(metadata["rack"], "r2");
    assert_eq!(metadata["greenroom"], env!("CARGO_PKG_VERSION"));

    assert!(runner.connected().await);
    let status = runner.status();
    assert_eq!((status.link, status.runner_id.as_deref()), (LinkStatus::Open, Some("runner-1")));
    assert_eq!(status.reason, None);
}

#[tokio::test]
async fn every_protocol_version_starts_an_actor_and_answers() {
    for version in Version::ALL {
        let gateway = Gateway::listen().await;
        let _runner = Stage::new().runner(&gateway).protocol_version(version).start().unwrap();
        let mut wire = gateway.open().await;
        wire.run("a", 0, "probe").await;
        assert_eq!(wire.get(stream(1), "a", "/who").await, (200, "a@0".to_owned()), "{version}");
    }
}

#[tokio::test]
async fn a_started_actor_is_acknowledged_and_runs_only_when_it_does() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.start("a", 0, "gated").await;
    let acknowledged = |message: &ToServer| match message {
        ToServer::AckCommands(checkpoints) => Some((checkpoints[0].actor_id.to_string(), checkpoints[0].index)),
        _ => None,
    };
    assert_eq!(wire.pick("an acknowledgement", acknowledged).await, ("a".to_owned(), 0));
    assert_eq!(stage.take(), [""; 0], "the start is held up");
    stage.gate.add_permits(1);
    let (index, _) = wire.event("a", |_| true).await;
    assert_eq!(index, 0);
    assert_eq!(stage.take(), ["start a@0"]);
    assert_eq!(runner.status().actors, 1);
}

#[tokio::test]
async fn a_start_that_fails_is_told_with_its_reason() {
    let gateway = Gateway::listen().await;
    let _runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.start("a", 0, "failing").await;
    assert_eq!(wire.stopped("a").await.as_deref(), Some("no such luck"));
    wire.start("b", 0, "unheard-of").await;
    let reason = wire.stopped("b").await.expect("an error");
    assert!(reason.contains("no actor named `unheard-of`") && reason.contains("probe"), "{reason}");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_own_time() {
    let gateway = Gateway::listen().await;
    let _runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    for ts in [-1, 0, i64::MAX] {
        wire.send(ToClient::Ping { ts }).await;
        assert_eq!(wire.receive().await, ToServer::Pong { ts });
    }
}

#[tokio::test]
async fn a_runner_that_could_hold_nothing_does_not_start() {
    for slots in [0, 4_000_001] {
        let started = Runner::builder("http://127.0.0.1:1".parse().unwrap()).slots(slots).start();
        assert!(matches!(started, Err(StartFailure::Slots(refused)) if refused == slots));
    }
}
