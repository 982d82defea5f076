//! Clients' requests, new actors and durable puts.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, request};
use super::stack::{Stack, create};
use crate::figures::Quantity;

/// What was measured of one load.
pub type Values = Vec<(Quantity, f64)>;

/// `GET /ping` of one actor, on so many connections at once.
pub async fn requests(stack: &Stack, seconds: f64, connections: usize) -> Result<Values, String> {
    let mut client = Client::connect(stack.address).await?;
    let actor = stack.actor(&mut client).await?;
    let ping = request("GET", &format!("{actor}/ping"), "");
    let (begin, end) = spell(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (mut client, ping) = (Client::connect(stack.address).await?, ping.clone());
        tasks.spawn_local(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let sent = Instant::now();
                let answer = client.send(&ping).await?;
                if answer.status != 200 {
                    return Err(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)));
                }
                if sent >= begin {
                    times.push(sent.elapsed());
                }
            }
            Ok::<_, String>(times)
        });
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = stack.cpu();
    tokio::time::sleep_until(end.into()).await;
    let cpu = stack.cpu().saturating_sub(before);
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task.map_err(|error| error.to_string())??);
    }
    delete(&mut client, &actor).await?;
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map_or(f64::NAN, |t| t.as_secs_f64() * 1e6);
    Ok(vec![
        (Quantity::Rate, times.len() as f64 / (end - begin).as_secs_f64()),
        (Quantity::Cpu, cpu.as_secs_f64() * 1e6 / times.len() as f64),
        (Quantity::P50, at(0.5)),
        (Quantity::P99, at(0.99)),
    ])
}

/// Actors that are created and asked once, so many at once.
pub async fn lives(stack: &Stack, seconds: f64, at_once: usize) -> Result<Values, String> {
    let (begin, end) = spell(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    let address = stack.address;
    for _ in 0..at_once {
        let mut client = Client::connect(address).await?;
        tasks.spawn_local(async move {
            let (mut actors, mut answered) = (Vec::new(), 0_usize);
            while Instant::now() < end {
                let actor = create(&mut client).await?;
                client.ask("GET", &format!("{actor}/ping"), "").await?;
                actors.push(actor);
                let now = Instant::now();
                answered += usize::from(now >= begin && now < end);
            }
            Ok::<_, String>((actors, answered))
        });
    }
    let mut answered = 0;
    let mut actors = Vec::new();
    while let Some(task) = tasks.join_next().await {
        let (some, count) = task.map_err(|error| error.to_string())??;
        actors.push(some);
        answered += count;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for actors in actors {
        let mut client = Client::connect(address).await?;
        tasks.spawn_local(async move {
            for actor in actors {
                delete(&mut client, &actor).await?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.map_err(|error| error.to_string())??;
    }
    Ok(vec![(Quantity::Rate, answered as f64 / (end - begin).as_secs_f64())])
}

/// Puts of one actor, so many at once, as the actor counted them.
pub async fn puts(stack: &Stack, seconds: f64, at_once: usize) -> Result<Values, String> {
    let mut client = Client::connect(stack.address).await?;
    let actor = stack.actor(&mut client).await?;
    let mut count = at_once * 5;
    let mut rate = f64::NAN;
    // First to find out how many fit into the time.
    for _ in 0..2 {
        let path = format!("{actor}/kv?op=put&n={count}&c={at_once}&size=100");
        let answer: Value =
            serde_json::from_slice(&client.ask("GET", &path, "").await?).map_err(|error| error.to_string())?;
        rate = answer["ops_s"].as_f64().ok_or("no ops_s")?;
        count = ((rate * seconds) as usize).max(at_once);
    }
    delete(&mut client, &actor).await?;
    Ok(vec![(Quantity::Rate, rate)])
}

pub async fn delete(client: &mut Client, actor: &str) -> Result<(), String> {
    let Some(id) = actor.strip_prefix("/gateway/") else { return Ok(()) };
    client.ask("DELETE", &format!("/actors/{id}?namespace=default"), "").await.map(drop)
}

/// From when to when to count, after some time to get warm.
fn spell(seconds: f64) -> (Instant, Instant) {
    let begin = Instant::now() + Duration::from_secs_f64(seconds / 4.0);
    (begin, begin + Duration::from_secs_f64(seconds))
}
