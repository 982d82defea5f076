//! `greenroom dev`: what it prints works.

use std::path::Path;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::http::request_text;
use crate::process::Daemon;

#[tokio::test]
async fn the_printed_addresses_answer_and_the_count_outlives_sleep_and_restart() {
    let mut dev = start(tempfile::tempdir().unwrap());
    let (counter, socket) = printed(&mut dev).await;
    assert_eq!(get(&counter).await, (200, "1\n".to_owned()));

    let (mut socket, _) = tokio_tungstenite::connect_async(socket).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("2 hello"));
    socket.close(None).await.unwrap();

    assert_eq!(get(&format!("{counter}sleep")).await.0, 202);
    assert_eq!(get(&counter).await, (200, "3\n".to_owned()));

    let (echo, socket) = printed(&mut dev).await;
    assert_eq!(request("POST", &echo, "body").await, (200, "body".to_owned()));
    let (mut socket, _) = tokio_tungstenite::connect_async(socket).await.unwrap();
    socket.send(Message::binary(vec![0, 255])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![0, 255]));

    let data = dev.stop().await;
    let mut dev = start(data);
    let (counter, _) = printed(&mut dev).await;
    assert_eq!(get(&counter).await, (200, "4\n".to_owned()));
    dev.stop().await;
}

#[tokio::test]
async fn actors_of_a_file_keep_their_count_over_sleep_and_restart() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/counter");
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("actors.toml");
    let actor = |name: &str, program: &str, script: &str| {
        let script = examples.join(script);
        format!("[actors.{name}]\ncommand = [{program:?}, {script:?}]\nwebsocket = \"proxy\"\n")
    };
    std::fs::write(&file, actor("node", "node", "counter.mjs") + &actor("python", "python3", "counter.py")).unwrap();
    let start = |data| start_with(data, &["--actors", file.to_str().unwrap()]);

    let mut dev = start(data);
    for _ in 0..2 {
        let (counter, socket) = printed(&mut dev).await;
        assert_eq!(get(&counter).await, (200, "1\n".to_owned()));
        assert_eq!(get(&format!("{counter}sleep")).await.0, 202);
        assert_eq!(get(&counter).await, (200, "2\n".to_owned()));
        let (mut socket, _) = tokio_tungstenite::connect_async(socket).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("3 hello"));
    }
    let data = dev.stop().await;
    let mut dev = start(data);
    for _ in 0..2 {
        let (counter, _) = printed(&mut dev).await;
        assert_eq!(get(&counter).await, (200, "4\n".to_owned()));
    }
    dev.stop().await;
}

#[tokio::test]
async fn an_alarm_wakes_a_script_without_a_server_and_idleness_puts_it_to_sleep() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/counter/counter.sh");
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("actors.toml");
    let actor = format!("[actors.script]\ncommand = [\"bash\", {script:?}]\nlisten = \"pull\"\nsleep_after = \"5s\"\n");
    std::fs::write(&file, actor).unwrap();
    let mut dev = start_with(data, &["--actors", file.to_str().unwrap()]);
    let (counter, socket) = printed(&mut dev).await;
    dev.record("actor runs").await;
    assert_eq!(get(&counter).await, (200, "1\n".to_owned()));
    let (mut socket, _) = tokio_tungstenite::connect_async(socket).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("2 hello"));
    assert_eq!(get(&format!("{counter}remind")).await.0, 202);
    assert_eq!(get(&format!("{counter}sleep")).await.0, 202);
    dev.record("actor stopped").await;
    // Nobody asks for anything, and still it runs again, does its work and goes back to sleep.
    dev.record("actor runs").await;
    dev.record("nothing to do; asking to sleep").await;
    dev.record("actor stopped").await;
    assert_eq!(get(&counter).await, (200, "4\n".to_owned()));
    dev.stop().await;
}

#[tokio::test]
async fn the_printed_request_for_another_actor_is_right() {
    let mut dev = start(tempfile::tempdir().unwrap());
    let line = dev.line("curl -X PUT").await;
    let [_, url, _, _, _, body, ..] = line.split('\'').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let (status, answer) = request("PUT", url, body).await;
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["created"], true);
    let id = answer["actor"]["actor_id"].as_str().unwrap();
    let gateway = url.split_once("/actors").unwrap().0;
    assert_eq!(get(&format!("{gateway}/gateway/{id}/")).await, (200, "1\n".to_owned()));
    dev.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut gateway = Daemon::start(tempfile::tempdir().unwrap(), &["gateway", "--listen", &address]);
    let record = gateway.record("the gateway cannot go on").await;
    assert!(record["error"].as_str().unwrap().contains(&address), "{record}");
    assert_eq!(gateway.exit_code().await, 70);
}

fn start(data: tempfile::TempDir) -> Daemon {
    start_with(data, &[])
}

fn start_with(data: tempfile::TempDir, arguments: &[&str]) -> Daemon {
    Daemon::start(data, &[&["dev", "--listen", "127.0.0.1:0", "--admin", "off"], arguments].concat())
}

/// The next two addresses that `dev` prints.
async fn printed(dev: &mut Daemon) -> (String, String) {
    let curl = dev.line("curl http://").await;
    let socket = dev.line("ws://").await;
    (curl.strip_prefix("curl ").unwrap().to_owned(), socket)
}

pub async fn get(url: &str) -> (u16, String) {
    request("GET", url, "").await
}

pub async fn request(method: &str, url: &str, body: &str) -> (u16, String) {
    let headers = [("content-type", "application/json")];
    request_text(method, url, &headers, Bytes::copy_from_slice(body.as_bytes())).await
}
