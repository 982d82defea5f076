//! Gateways that do not want the runner.

use std::time::Duration;

use greenroom::runner::{Exit, LinkStatus};
use tracing::Level;

use crate::actors::Stage;
use crate::gateway::{Gateway, PATIENCE};
use crate::logs::Logs;

#[tokio::test]
async fn an_evicted_runner_stops_its_actors_and_does_not_come_back() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    let waiting = tokio::spawn({
        let context = runner.actor("a", None).await.unwrap().context;
        async move { context.get("k").await }
    });
    wire.close(1000, "ws.eviction#ray").await;
    let Exit::Refused(reason) = runner.wait().await else { panic!("not refused") };
    assert!(reason.contains("evicted") && reason.contains("--runner-key") && reason.contains("ray"), "{reason}");
    assert!(waiting.await.unwrap().is_err(), "nobody is left waiting");
    assert!(gateway.is_left_alone(Duration::from_millis(1300)).await);
    let status = runner.status();
    assert_eq!((status.link, status.actors), (LinkStatus::Closed, 0));
    assert_eq!(status.reason, Some(reason));
    assert!(runner.actor("a", None).await.is_none());
}

#[tokio::test]
async fn what_a_gateway_refuses_for_good_is_said_in_words_with_the_setting_to_look_at() {
    for (close, says, setting) in [
        ("namespace.not_found#ray", "unknown namespace", "--namespace"),
        ("api.forbidden#ray", "bad token", "--token-file"),
        ("guard.missing_header#ray", "token missing", "--token-file"),
    ] {
        let (logs, _guard) = Logs::capture();
        let gateway = Gateway::listen().await;
        let runner = Stage::new().runner(&gateway).start().unwrap();
        gateway.accept().await.close(1011, close).await;
        let exit = tokio::time::timeout(PATIENCE, runner.wait()).await.unwrap();
        let Exit::Refused(reason) = exit else { panic!("not refused: {exit:?}") };
        assert!(reason.contains(says) && reason.contains(setting), "{reason}");
        assert!(!runner.connected().await);
        let errors = logs.at_least(Level::ERROR);
        assert!(errors.len() == 1 && errors[0].contains(says), "{errors:?}");
    }
}
