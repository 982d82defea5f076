//! Bodies that stream, through the whole of `greenroom dev` to a Node app and back.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Daemon;

#[tokio::test]
async fn a_client_that_reads_slowly_costs_little_memory_and_delays_nobody() {
    let mut dev = start();
    let app = printed(&mut dev).await;
    assert!(get(&app, "aborted").await.ends_with('0'));
    let before = dev.peak_memory();
    let mut slow = ask(&app, "GET", &format!("bytes?n={LARGE}"), "").await;
    slow.read_u8().await.unwrap();
    // As much as can be is on its way by now or soon, and others are served.
    for _ in 0..20 {
        assert!(get(&app, "").await.ends_with("ok"));
    }
    let mut received = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match slow.read(&mut buffer).await.unwrap() {
            0 => break,
            bytes => received += bytes,
        }
    }
    assert!(received > LARGE, "{received}");
    let grown = dev.peak_memory() - before;
    assert!(grown < MOST, "{} MiB more", grown >> 20);
    dev.stop().await;
}

#[tokio::test]
async fn an_app_that_reads_slowly_costs_little_memory_and_delays_nobody() {
    let mut dev = start();
    let app = printed(&mut dev).await;
    assert!(get(&app, "aborted").await.ends_with('0'));
    let before = dev.peak_memory();
    let mut upload = ask(&app, "POST", "count", &format!("content-length: {LARGE}\r\n")).await;
    let (mut read, mut write) = upload.split();
    let sending = async {
        let piece = vec![7; 1 << 20];
        for _ in 0..LARGE >> 20 {
            write.write_all(&piece).await.unwrap();
        }
    };
    let others = async {
        for _ in 0..20 {
            assert!(get(&app, "").await.ends_with("ok"));
        }
        assert!(get(&app, "go").await.ends_with("gone"));
    };
    let mut answer = String::new();
    let (.., read) = tokio::join!(sending, others, read.read_to_string(&mut answer));
    read.unwrap();
    assert!(answer.ends_with(&LARGE.to_string()), "{answer}");
    let grown = dev.peak_memory() - before;
    assert!(grown < MOST, "{} MiB more", grown >> 20);
    dev.stop().await;
}

#[tokio::test]
async fn what_is_written_is_there_at_once_and_who_leaves_stops_the_app() {
    let mut dev = start();
    let app = printed(&mut dev).await;
    let mut events = ask(&app, "GET", "events", "").await;
    read_until(&mut events, "data: first").await;
    drop(events);
    says(&app, "aborted", 1).await;
    // Before the answer has begun.
    let hanging = ask(&app, "GET", "hangs", "").await;
    says(&app, "waiting", 1).await;
    drop(hanging);
    says(&app, "aborted", 2).await;
    // In the middle of an upload.
    let mut upload = ask(&app, "POST", "swallows", "content-length: 1000000\r\n").await;
    upload.write_all(&vec![7; 500_000]).await.unwrap();
    says(&app, "waiting", 2).await;
    drop(upload);
    says(&app, "aborted", 3).await;
    dev.stop().await;
}

#[tokio::test]
async fn an_app_that_breaks_off_is_not_taken_for_complete() {
    let mut dev = start();
    let app = printed(&mut dev).await;
    let mut client = ask(&app, "GET", "breaks", "").await;
    read_until(&mut client, "half").await;
    assert!(get(&app, "go").await.ends_with("gone"));
    let mut rest = String::new();
    // The connection may be reset.
    let _ = client.read_to_string(&mut rest).await;
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
    dev.stop().await;
}

fn start() -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("actors.toml");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/streams.mjs");
    std::fs::write(&file, format!("[actors.streams]\ncommand = [\"node\", {script:?}]\n")).unwrap();
    let file = file.to_str().unwrap().to_owned();
    Daemon::start(dir, &["dev", "--listen", "127.0.0.1:0", "--admin", "off", "--actors", &file])
}

/// The app's address: host and port, and the path of its actor.
async fn printed(dev: &mut Daemon) -> (String, String) {
    let url = dev.line("curl http://").await;
    let (host, path) = url.strip_prefix("curl http://").unwrap().split_once('/').unwrap();
    (host.to_owned(), format!("/{path}"))
}

/// A request that is on its way, with these headers more.
async fn ask((host, path): &(String, String), method: &str, rest: &str, headers: &str) -> TcpStream {
    let mut client = TcpStream::connect(host).await.unwrap();
    let head = format!("{method} {path}{rest} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client
}

async fn get(app: &(String, String), rest: &str) -> String {
    let mut answer = String::new();
    ask(app, "GET", rest, "").await.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn read_until(client: &mut TcpStream, text: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        assert!(client.read_buf(&mut read).await.unwrap() > 0, "ended without {text:?}");
    }
}

/// Waits until the app has counted so many.
async fn says(app: &(String, String), what: &str, count: usize) {
    let wait = async { while !get(app, what).await.ends_with(&format!("\r\n\r\n{count}")) {} };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, wait).await.unwrap_or_else(|_| panic!("the app never says {count} {what}"));
}

/// The length of large bodies, in bytes.
const LARGE: usize = 200 << 20;
/// What a large body may cost the daemon, in bytes: some windows and buffers, and nothing like the body.
const MOST: usize = 48 << 20;
