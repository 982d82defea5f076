//! Clients' sockets on which nothing happens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::client::create;
use crate::gateway::{Gateway, RunnerProcess, settle};
use crate::memory::{Table, bytes, count};

/// Opens sockets to a few actors and leaves them alone.
pub fn measure(levels: &[usize]) -> Result<String, String> {
    let mut table = Table::new(
        "Idle sockets of running actors",
        &["sockets", "opened per s", "gateway memory", "per socket", "runner memory", "per socket"],
    );
    let gateway = Gateway::start()?;
    let runner = RunnerProcess::start(gateway.address)?;
    let ids = create(gateway.address, 0, ACTORS, "restart")?;
    runner.has(ACTORS)?;
    settle();
    let (empty_gateway, empty_runner) = (gateway.memory()?, runner.memory()?);
    let mut sockets = Vec::new();
    for &level in levels {
        let begin = Instant::now();
        let added = level - sockets.len();
        while sockets.len() < level {
            sockets.push(open(gateway.address, &ids[sockets.len() % ACTORS])?);
        }
        let rate = (added as f64 / begin.elapsed().as_secs_f64()) as usize;
        settle();
        let (of_gateway, of_runner) = (gateway.memory()?, runner.memory()?);
        let per = |now: u64, empty: u64| bytes(now.saturating_sub(empty) / level as u64);
        table.row(&[
            count(level),
            count(rate),
            bytes(of_gateway),
            per(of_gateway, empty_gateway),
            bytes(of_runner),
            per(of_runner, empty_runner),
        ]);
    }
    Ok(table.finish())
}

fn open(gateway: SocketAddr, actor: &str) -> Result<TcpStream, String> {
    let io = |error: std::io::Error| format!("socket: {error}");
    let mut stream = TcpStream::connect(gateway).map_err(io)?;
    let request = format!(
        "GET /gateway/{actor}/ws HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(io)?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).map_err(io)?;
        answer.push(byte[0]);
    }
    if answer.starts_with(b"HTTP/1.1 101") {
        return Ok(stream);
    }
    Err(format!("socket refused: {}", String::from_utf8_lossy(&answer)))
}

const ACTORS: usize = 10;
