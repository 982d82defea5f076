//! Sockets that hibernate, on which nothing happens.

use std::time::Duration;

use tokio::net::TcpStream;

use super::client::Client;
use super::stack::Stack;

/// Memory of gateway and runner for each socket, in bytes: while its actor is awake, and while it sleeps.
pub async fn idle(stack: &Stack, sockets: usize) -> Result<[f64; 2], String> {
    let mut client = Client::connect(stack.address).await?;
    let actor = stack.actor(&mut client).await?;
    client.ask("GET", &format!("{actor}/ping"), "").await?;
    let path = format!("{actor}/hws");
    // What grows once has grown then.
    let mut open = open(stack, &path, WARM_UP).await?;
    tokio::time::sleep(SETTLE).await;
    let before = stack.memory();
    open.extend(self::open(stack, &path, sockets).await?);
    tokio::time::sleep(SETTLE).await;
    let awake = stack.memory();
    client.ask("GET", &format!("{actor}/sleep"), "").await?;
    tokio::time::sleep(ASLEEP).await;
    let asleep = stack.memory();
    let each = |memory: u64| memory.saturating_sub(before) as f64 / sockets as f64;
    Ok([each(awake), each(asleep)])
}

async fn open(stack: &Stack, path: &str, count: usize) -> Result<Vec<TcpStream>, String> {
    let mut sockets = Vec::with_capacity(count);
    let mut left = count;
    while left > 0 {
        let some = left.min(AT_ONCE);
        left -= some;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..some {
            let (address, path) = (stack.address, path.to_owned());
            tasks.spawn_local(async move { Client::connect(address).await?.upgrade(&path).await });
        }
        while let Some(task) = tasks.join_next().await {
            sockets.push(task.map_err(|error| error.to_string())??);
        }
    }
    Ok(sockets)
}

const WARM_UP: usize = 100;
const AT_ONCE: usize = 32;
const SETTLE: Duration = Duration::from_millis(700);
/// By now an actor that sleeps has given back what it took.
const ASLEEP: Duration = Duration::from_secs(4);
