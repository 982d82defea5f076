//! Actors that sleep: rows.

use std::time::Instant;

use crate::client::{Client, create, times};
use crate::gateway::{Gateway, RunnerProcess, settle};
use crate::memory::{Table, bytes, count};

/// Creates actors while there is no runner, so that they sleep at once; then looks at, wakes and restarts.
pub fn measure(levels: &[usize]) -> Result<String, String> {
    let mut table = Table::new(
        "Sleeping actors",
        &[
            "actors",
            "created per s",
            "gateway memory",
            "after a restart",
            "on disk",
            "per actor",
            "start after `kill -9`",
            "list of 100, p50 / p99",
            "by id, p50 / p99",
            "by key, p50 / p99",
            "wake and answer, p50 / p99",
        ],
    );
    let mut gateway = Gateway::start()?;
    Client::connect(gateway.address)?.ask(
        "PUT",
        "/runner-configs/scale?namespace=default",
        r#"{"datacenters":{"default":{"normal":{}}}}"#,
    )?;
    let mut created = 0;
    for &level in levels {
        let begin = Instant::now();
        let ids = create(gateway.address, created, level, "sleep")?;
        let rate = (ids.len() as f64 / begin.elapsed().as_secs_f64()) as usize;
        created = level;
        settle();
        let before = gateway.memory()?;
        gateway.kill_and_restart()?;
        let startup = gateway.startup;
        let after = gateway.memory()?;
        let mut client = Client::connect(gateway.address)?;
        let list = times(200, |_| client.ask("GET", "/actors?namespace=default&name=idle", "").map(|_| ()))?;
        let step = ids.len() / CALLS;
        let by_id = times(CALLS, |call| {
            let path = format!("/actors?namespace=default&actor_ids={}", ids[call * step]);
            client.ask("GET", &path, "").map(|_| ())
        })?;
        let by_key = times(CALLS, |call| {
            let path = format!("/actors?namespace=default&name=idle&key=key-{}", call * (created / CALLS));
            client.ask("GET", &path, "").map(|_| ())
        })?;
        let runner = RunnerProcess::start(gateway.address)?;
        let wake = times(CALLS, |call| client.ask("GET", &format!("/gateway/{}/", ids[call * step]), "").map(|_| ()))?;
        for call in 0..CALLS {
            client.ask("GET", &format!("/gateway/{}/sleep", ids[call * step]), "")?;
        }
        runner.has(0)?;
        drop(runner);
        let disk = gateway.on_disk();
        table.row(&[
            count(level),
            count(rate),
            bytes(before),
            bytes(after),
            bytes(disk),
            bytes(disk / level as u64),
            startup.to_string(),
            list,
            by_id,
            by_key,
            wake,
        ]);
    }
    Ok(table.finish())
}

const CALLS: usize = 500;
