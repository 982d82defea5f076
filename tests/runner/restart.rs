//! A runner whose process dies and comes back.

use std::time::Duration;

use greenroom::runner::{Exit, StartFailure};
use tokio::runtime::Runtime;

use crate::actors::Stage;
use crate::gateway::{Gateway, PATIENCE, stop};
use greenroom::protocol::ToClient;

#[test]
fn lives_that_a_killed_process_left_are_told_as_errors_by_the_next() {
    let outside = Runtime::new().unwrap();
    let data = tempfile::tempdir().unwrap();
    let gateway = outside.block_on(Gateway::listen());
    let stage = Stage::new();

    let killed = Runtime::new().unwrap();
    let mut wire = {
        let _inside = killed.enter();
        stage.runner(&gateway).data_dir(data.path()).start().unwrap();
        outside.block_on(gateway.open())
    };
    outside.block_on(async {
        wire.run("a", 4, "probe").await;
        wire.run("b", 0, "probe").await;
    });
    killed.shutdown_background();

    outside.block_on(async {
        let runner = restarted(|| stage.runner(&gateway).data_dir(data.path()).start()).await;
        let mut wire = gateway.open().await;
        for id in ["a", "b"] {
            let reason = wire.stopped(id).await.expect("an error, so that the crash policy applies");
            assert!(reason.contains("restarted"), "{reason}");
        }
        // A stop that the gateway still had for it changes nothing.
        wire.send(ToClient::Commands(vec![stop("a", 4)])).await;
        wire.run("a", 5, "probe").await;
        assert_eq!(runner.actors().await.len(), 1);
    });
}

#[tokio::test]
async fn a_drained_runner_leaves_nothing_to_tell() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).data_dir(data.path()).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    runner.drain(Duration::from_millis(200)).await;
    assert!(wire.stopped("a").await.is_some());
    wire.end().await;
    assert_eq!(runner.wait().await, Exit::Drained);

    restarted(|| Stage::new().runner(&gateway).data_dir(data.path()).start()).await;
    let mut wire = gateway.open().await;
    let events = wire.gather(Duration::from_millis(200), |message| Some(format!("{message:?}"))).await;
    assert_eq!(events, [""; 0]);
}

#[tokio::test]
async fn two_runners_do_not_share_a_data_directory() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::listen().await;
    let _first = Stage::new().runner(&gateway).data_dir(data.path()).start().unwrap();
    let error = Stage::new().runner(&gateway).data_dir(data.path()).start().unwrap_err();
    assert!(matches!(error, StartFailure::DataDir(_)));
    let text = error.to_string();
    assert!(text.contains(&data.path().display().to_string()) && text.contains("--data-dir"), "{text}");
}

/// Starts a runner as soon as its predecessor has let go of the data directory.
async fn restarted<T>(mut start: impl FnMut() -> Result<T, StartFailure>) -> T {
    let started = async {
        loop {
            match start() {
                Ok(started) => return started,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("the data directory is free")
}
