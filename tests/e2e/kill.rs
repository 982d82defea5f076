//! `kill -9` again and again, under load.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::{POOL, now_ms, runner};
use crate::gateway::{Gateway, PATIENCE};
use crate::http;
use crate::ledger::{Ledger, create};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_gateway_is_killed_under_load() {
    let data = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(data.path(), "127.0.0.1:0").await;
    let runner = runner(&gateway.authority);
    let writers = writers(&gateway.authority).await;
    let ledger = Arc::new(Ledger::default());
    let mut slowest = 0;
    for round in 1..=kills() {
        let before = ledger.acknowledged();
        let load = Load::start(&gateway.authority, &ledger, &writers, round);
        // At a different depth into the load each time, the first almost at once.
        let enough = before + [10, 150, 333, 77][round as usize % 4] as usize;
        let acknowledged = async {
            while ledger.acknowledged() < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, acknowledged).await.expect("the gateway answers");
        load.over();
        gateway = gateway.kill_and_restart(data.path()).await;
        load.ended().await;
        ledger.check(&gateway.authority).await;
        ledger.check_alarms(&gateway.authority).await;
        slowest = slowest.max(gateway.ready["startup_ms"].as_u64().expect("how long it took"));
        println!(
            "round {round}: {} acknowledged, ready after {} ms",
            ledger.acknowledged(),
            gateway.ready["startup_ms"]
        );
    }
    println!("slowest start: {slowest} ms");
    ledger.check(&gateway.authority).await;
    let errors = gateway.errors();
    assert!(errors.is_empty(), "{errors:#?}");
    runner.stop_now().await;
    runner.wait().await;
    assert_eq!(gateway.stop().await, Some(0));
}

/// Actors that live through all rounds.
async fn writers(authority: &str) -> Vec<String> {
    let begin = now_ms();
    let mut writers = Vec::new();
    while writers.len() < WRITERS {
        let answer = create(authority, "PUT", &format!("writer/{}", writers.len())).await.expect("an answer");
        match answer.status {
            200 => writers.push(answer.json()["actor"]["actor_id"].as_str().expect("an id").to_owned()),
            // The pool is known as soon as its runner has connected.
            _ => {
                assert!(now_ms() - begin < 30_000, "{}", answer.text());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    let names = http::send(authority, "GET", "/runners/names?namespace=default", "").await.expect("an answer");
    assert_eq!(names.json()["names"], serde_json::json!([POOL]));
    writers
}

fn kills() -> u32 {
    std::env::var("GREENROOM_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4)
}

const WRITERS: usize = 8;
