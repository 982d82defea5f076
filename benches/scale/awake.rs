//! Actors that run, in a runner's process.

use std::time::Instant;

use crate::client::{Client, create, times};
use crate::gateway::{Gateway, RunnerProcess, settle};
use crate::memory::{Table, bytes, count};

/// Creates actors that start at once and stay.
pub fn measure(levels: &[usize]) -> Result<String, String> {
    let mut table = Table::new(
        "Running actors",
        &[
            "actors",
            "created and started per s",
            "gateway memory",
            "per actor",
            "runner memory",
            "per actor",
            "start after `kill -9`",
            "request, p50 / p99",
        ],
    );
    let mut gateway = Gateway::start()?;
    let runner = RunnerProcess::start(gateway.address)?;
    let (empty_gateway, empty_runner) = (gateway.memory()?, runner.memory()?);
    let mut created = 0;
    for &level in levels {
        let begin = Instant::now();
        let ids = create(gateway.address, created, level, "restart")?;
        runner.has(level)?;
        let rate = (ids.len() as f64 / begin.elapsed().as_secs_f64()) as usize;
        created = level;
        settle();
        let (of_gateway, of_runner) = (gateway.memory()?, runner.memory()?);
        gateway.kill_and_restart()?;
        let startup = gateway.startup;
        let mut client = Client::connect(gateway.address)?;
        // The first ones wait for the runner to be back.
        let calls = ids.len().min(500);
        for id in ids.iter().take(3) {
            client.ask("GET", &format!("/gateway/{id}/"), "")?;
        }
        let request = times(calls, |call| client.ask("GET", &format!("/gateway/{}/", ids[call]), "").map(|_| ()))?;
        let per = |now: u64, empty: u64| bytes(now.saturating_sub(empty) / level as u64);
        table.row(&[
            count(level),
            count(rate),
            bytes(of_gateway),
            per(of_gateway, empty_gateway),
            bytes(of_runner),
            per(of_runner, empty_runner),
            startup.to_string(),
            request,
        ]);
    }
    Ok(table.finish())
}
