//! What ends our runner, and what does not.

use std::time::Duration;

use rustix::process::Signal;

use crate::{
    cut::Weather,
    process::{Process, poll},
    stage::Stage,
};

pub async fn a_runner_of_an_unknown_namespace_exits_with_69(stage: &Stage) {
    let mut runner = stage.start_our_runner_with("absent", &["--namespace", "absent"]);
    exits_with_69(&mut runner, "namespace").await;
}

pub async fn a_second_runner_with_the_same_key_makes_the_first_exit_with_69(stage: &Stage) {
    let flags = ["--runner-key", "the-same"];
    let mut first = stage.start_our_runner_with("first", &flags);
    let listed = poll(Duration::from_secs(15), || async {
        let runners = stage.client.get("/runners?namespace=default").await.ok()?.json();
        runners["runners"].as_array()?.iter().any(|runner| runner["key"] == "the-same").then_some(())
    });
    assert!(listed.await.is_some(), "the first runner never connects\n{}", first.tail(20));
    let mut second = stage.start_our_runner_with("second", &flags);
    exits_with_69(&mut first, "evict").await;
    assert!(second.is_running(), "{}", second.tail(20));
    second.signal(Signal::TERM);
    let status = second.exit_within(Duration::from_secs(20)).await.expect("a runner without actors drains quickly");
    assert!(status.success(), "{status}\n{}", second.tail(20));
}

pub async fn an_unreachable_gateway_does_not_end_the_runner(stage: &Stage) {
    let spell = stage.cut.spell(Weather::Down, Duration::from_secs(4));
    let mut runner = stage.start_our_runner_with("early", &["--runner-key", "early"]);
    spell.await.unwrap();
    assert!(runner.is_running(), "{}", runner.tail(20));
    let listed = poll(Duration::from_secs(15), || async {
        let runners = stage.client.get("/runners?namespace=default").await.ok()?.json();
        runners["runners"].as_array()?.iter().any(|runner| runner["key"] == "early").then_some(())
    });
    assert!(listed.await.is_some(), "the runner never connects\n{}", runner.tail(20));
}

/// The exit code for good refusals, and a message that names the reason.
async fn exits_with_69(runner: &mut Process, reason: &str) {
    let status = runner.exit_within(Duration::from_secs(20)).await;
    let status = status.unwrap_or_else(|| panic!("the runner does not exit\n{}", runner.tail(20)));
    assert_eq!(status.code(), Some(69), "{}", runner.tail(20));
    assert!(
        runner.output().to_lowercase().contains(reason),
        "the output does not name {reason:?}\n{}",
        runner.tail(20)
    );
}
