//! Polite and impolite ends.

use std::time::Duration;

use greenroom::protocol::{ToClient, ToServer};
use greenroom::runner::Exit;
use tokio::time::{Instant, timeout};
use tracing::Level;

use crate::actors::Stage;
use crate::gateway::{End, Gateway, PATIENCE, Wire, stop, stream};
use crate::logs::Logs;

#[tokio::test]
async fn a_drain_that_the_gateway_helps_with_is_quiet_and_complete() {
    let (logs, _guard) = Logs::capture();
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.run("b", 0, "probe").await;
    let mut status = runner.watch_status();
    runner.drain(Duration::from_secs(12)).await;
    status.wait_for(|status| status.draining).await.unwrap();
    stopping(&mut wire).await;
    wire.send(ToClient::Commands(vec![stop("a", 0), stop("b", 0)])).await;
    assert_eq!(wire.stopped("a").await, None);
    assert_eq!(wire.stopped("b").await, None);
    assert_eq!(wire.end().await, End::Closed(1000, "pegboard.runner_shutdown".to_owned()));
    assert_eq!(runner.wait().await, Exit::Drained);
    assert!(gateway.is_left_alone(Duration::from_millis(200)).await);
    let stops = stage.take().into_iter().filter(|line| line.starts_with("stop")).count();
    assert_eq!(stops, 2);
    assert_eq!(logs.at_least(Level::WARN), [""; 0], "a clean drain is nothing to look at");
}

#[tokio::test]
async fn a_drain_needs_no_help_of_the_gateway() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    runner.drain(Duration::from_millis(800)).await;
    stopping(&mut wire).await;
    let reason = wire.stopped("a").await.expect("nobody asked for this end, so the crash policy applies");
    assert!(reason.contains("runner"), "{reason}");
    wire.end().await;
    assert_eq!(runner.wait().await, Exit::Drained);
    assert_eq!(stage.take(), ["start a@0", "stop a@0 drain"]);
}

#[tokio::test]
async fn a_drain_starts_no_actor() {
    let (mut wire, runner, _stage) = running("stubborn").await;
    runner.drain(Duration::from_secs(2)).await;
    stopping(&mut wire).await;
    wire.start("b", 0, "probe").await;
    assert!(wire.stopped("b").await.expect("an error").contains("drains"));
    wire.cut();
    timeout(PATIENCE, runner.wait()).await.unwrap();
}

#[tokio::test]
async fn a_drain_ends_in_time_whatever_the_actors_do() {
    let (mut wire, runner, _stage) = running("stubborn").await;
    wire.request(stream(1), "a", "/never", None).await;
    let began = Instant::now();
    runner.drain(Duration::from_millis(500)).await;
    assert!(wire.stopped("a").await.is_some());
    wire.end().await;
    assert_eq!(runner.wait().await, Exit::Drained);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_drain_without_a_gateway_ends_and_says_who_was_not_told() {
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.cut();
    drop(gateway);
    runner.drain(Duration::from_millis(500)).await;
    let exit = timeout(PATIENCE, runner.wait()).await.unwrap();
    assert_eq!(exit, Exit::DrainTimeout { actors: 1 });
}

#[tokio::test]
async fn a_runner_that_never_connected_drains_at_once() {
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).start().unwrap();
    let _held = gateway.accept_tcp().await;
    runner.drain(Duration::from_secs(12)).await;
    assert_eq!(timeout(PATIENCE, runner.wait()).await.unwrap(), Exit::Drained);
}

#[tokio::test]
async fn a_gateway_that_closes_during_a_drain_is_told_the_rest_when_it_is_back() {
    let (gateway, mut wire, runner) = running_with_gateway("stubborn").await;
    runner.drain(Duration::from_secs(5)).await;
    stopping(&mut wire).await;
    wire.go_away().await;
    let mut wire = gateway.open().await;
    stopping(&mut wire).await;
    assert!(wire.stopped("a").await.is_some());
    wire.end().await;
    assert_eq!(runner.wait().await, Exit::Drained);
}

#[tokio::test]
async fn stopping_at_once_asks_no_actor_and_still_tells_the_gateway() {
    let (mut wire, runner, stage) = running("stubborn").await;
    wire.run("b", 0, "probe").await;
    let began = Instant::now();
    runner.stop_now().await;
    let (a, b) = (wire.stopped("a").await, wire.stopped("b").await);
    assert!(a.is_some() && b.is_some(), "nobody wanted these ends: {a:?}, {b:?}");
    assert_eq!(wire.end().await, End::Closed(1000, "pegboard.runner_shutdown".to_owned()));
    timeout(PATIENCE, runner.wait()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(stage.take(), ["start a@0", "start b@0"]);
    assert!(runner.sleep(&greenroom::actor::ActorKey::new("a", 0)).await.is_err());
}

#[tokio::test]
async fn stopping_at_once_cuts_a_drain_short() {
    let (mut wire, runner, _stage) = running("stubborn").await;
    runner.drain(Duration::from_secs(60)).await;
    stopping(&mut wire).await;
    runner.stop_now().await;
    assert_eq!(wire.stopped("a").await.map(|_| ()), Some(()));
    wire.end().await;
    timeout(PATIENCE, runner.wait()).await.unwrap();
}

async fn running(name: &str) -> (Wire, greenroom::runner::RunnerHandle, Stage) {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    stage.gate.add_permits(1);
    wire.run("a", 0, name).await;
    (wire, runner, stage)
}

async fn running_with_gateway(name: &str) -> (Gateway, Wire, greenroom::runner::RunnerHandle) {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    stage.gate.add_permits(1);
    wire.run("a", 0, name).await;
    (gateway, wire, runner)
}

async fn stopping(wire: &mut Wire) {
    wire.pick("the announcement of the drain", |message| (*message == ToServer::Stopping).then_some(())).await;
}
