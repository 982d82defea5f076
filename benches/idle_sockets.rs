//! What a client's socket costs the gateway while its actor sleeps.
//!
//! `cargo bench --bench idle_sockets` starts `greenroom gateway` as a process of its own, plays one runner and many
//! clients, lets every client say something once, puts the actor to sleep, and divides the growth of the gateway's
//! memory by the number of sockets. Then one client speaks, and all the others are still there.

use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use greenroom::protocol::{
    Checkpoint, Command as Order, Event, EventWrapper, Init, MessageId, ToClient, ToClientTunnel, ToServer,
    ToServerTunnel, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Measures the memory of idle sockets.
#[derive(Parser)]
struct Settings {
    /// How many sockets.
    #[arg(long, default_value_t = 9_000)]
    sockets: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Settings::parse().sockets).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle_sockets: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(count: usize) -> Result<(), Failure> {
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(data.path()).await?;
    let mut runner = Runner::connect(&gateway.address).await?;
    let actor = create_actor(&gateway.address).await?;
    runner.start().await?;

    // Whatever grows once has grown now.
    let mut clients = Vec::new();
    open(&gateway.address, &actor, WARM_UP, &mut runner, &mut clients).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = gateway.memory()?;
    let started = Instant::now();
    open(&gateway.address, &actor, count, &mut runner, &mut clients).await?;
    let opening = started.elapsed();
    runner.settle(Duration::from_secs(1)).await?;
    let awake = gateway.memory()?;
    runner.sleep().await?;
    runner.settle(Duration::from_secs(2)).await?;
    let asleep = gateway.memory()?;

    let started = Instant::now();
    clients[0].write_all(&frame(b"wake")).await?;
    let sockets = runner.start().await?;
    let waking = started.elapsed();
    let each = |memory: u64| memory.saturating_sub(before) / count as u64;
    println!("{count} sockets: opened in {opening:?}, {:.0} a second", count as f64 / opening.as_secs_f64());
    println!("gateway: {} KiB before, {} KiB awake, {} KiB asleep", before / 1024, awake / 1024, asleep / 1024);
    println!("per socket: {} bytes awake, {} bytes asleep", each(awake), each(asleep));
    println!("woken by one of them in {waking:?}, told of {sockets}");
    if sockets != count + WARM_UP {
        return Err(format!("{} sockets were lost", count + WARM_UP - sockets).into());
    }
    Ok(())
}

/// Opens sockets, a few at a time, and says something on each.
async fn open(
    address: &str,
    actor: &str,
    count: usize,
    runner: &mut Runner,
    clients: &mut Vec<TcpStream>,
) -> Result<(), Failure> {
    let mut left = count;
    while left > 0 {
        let some = left.min(50);
        left -= some;
        for _ in 0..some {
            let mut client = TcpStream::connect(address).await?;
            let upgrade = format!(
                "GET /gateway/{actor}/chat HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
                 cookie: session=0123456789abcdef0123456789abcdef\r\norigin: https://chat.example\r\n\r\n"
            );
            client.write_all(upgrade.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(client.read_u8().await?);
            }
            client.write_all(&frame(b"hello there")).await?;
            clients.push(client);
        }
        runner.take_messages(some).await?;
    }
    Ok(())
}

/// A gateway in a process of its own.
struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    async fn start(data: &Path) -> Result<Self, Failure> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_greenroom"))
            .args(["gateway", "--listen", &address, "--log", "warn", "--data-dir"])
            .arg(data)
            .spawn()?;
        let gateway = Gateway { child, address };
        for _ in 0..500 {
            if TcpStream::connect(&gateway.address).await.is_ok() {
                return Ok(gateway);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("the gateway does not come up".into())
    }

    /// Resident memory that is its own, in bytes.
    fn memory(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon in /proc")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A runner with one actor that takes every socket and every message.
struct Runner {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    life: Option<Checkpoint>,
    events: i64,
    messages: usize,
}

impl Runner {
    async fn connect(address: &str) -> Result<Self, Failure> {
        let url = format!("ws://{address}/runners/connect?protocol_version=7&namespace=default&runner_key=bench");
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "rivet".parse()?);
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let (socket, _) = tokio_tungstenite::connect_async_with_config(request, Some(config), true).await?;
        let mut runner = Runner { socket, life: None, events: 0, messages: 0 };
        let init =
            Init { name: "bench".into(), version: 1, total_slots: 10, prepopulate_actor_names: None, metadata: None };
        runner.send(ToServer::Init(init)).await?;
        // Its pool exists when it is greeted.
        while !matches!(runner.next().await?, ToClient::Init { .. }) {}
        Ok(runner)
    }

    async fn send(&mut self, message: ToServer) -> Result<(), Failure> {
        let mut frame = BytesMut::new();
        message.encode(Version::V7, &mut frame)?;
        Ok(self.socket.send(Message::Binary(frame.freeze())).await?)
    }

    /// The next message; pings, sockets and their messages are dealt with on the way.
    async fn next(&mut self) -> Result<ToClient, Failure> {
        let frame = self.socket.next().await.ok_or("the gateway hung up")??;
        let message = ToClient::decode(frame.into_data(), Version::V7)?;
        match &message {
            ToClient::Ping { ts } => self.send(ToServer::Pong { ts: *ts }).await?,
            ToClient::Tunnel { id, message: ToClientTunnel::WebSocketOpen { .. } } => {
                self.answer(*id, ToServerTunnel::WebSocketOpen { can_hibernate: true }).await?;
            }
            ToClient::Tunnel { id, message: ToClientTunnel::WebSocketMessage { .. } } => {
                self.messages += 1;
                self.answer(*id, ToServerTunnel::WebSocketMessageAck { index: id.index }).await?;
            }
            _ => {}
        }
        Ok(message)
    }

    async fn answer(&mut self, id: MessageId, message: ToServerTunnel) -> Result<(), Failure> {
        self.send(ToServer::Tunnel { id, message }).await
    }

    async fn take_messages(&mut self, count: usize) -> Result<(), Failure> {
        self.messages = 0;
        while self.messages < count {
            self.next().await?;
        }
        Ok(())
    }

    /// Waits, and answers what has to be answered meanwhile.
    async fn settle(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        while let Ok(message) = tokio::time::timeout_at(end.into(), self.next()).await {
            message?;
        }
        Ok(())
    }

    async fn say(&mut self, event: Event) -> Result<(), Failure> {
        let life = self.life.clone().ok_or("no actor was started")?;
        let checkpoint = Checkpoint { index: self.events, ..life };
        self.events += 1;
        self.send(ToServer::Events(vec![EventWrapper { checkpoint, event }])).await
    }

    /// Waits for the start of the actor, lets it run, and answers of how many sockets it was told.
    async fn start(&mut self) -> Result<usize, Failure> {
        loop {
            let ToClient::Commands(commands) = self.next().await? else { continue };
            for command in commands {
                let Order::Start { hibernating, .. } = command.command else { continue };
                self.send(ToServer::AckCommands(vec![command.checkpoint.clone()])).await?;
                self.life = Some(command.checkpoint);
                self.events = 0;
                self.say(Event::Running).await?;
                return Ok(hibernating.len());
            }
        }
    }

    async fn sleep(&mut self) -> Result<(), Failure> {
        self.say(Event::SleepIntent).await?;
        while !matches!(self.next().await?, ToClient::Commands(_)) {}
        self.say(Event::StoppedOk { message: None }).await
    }
}

async fn create_actor(address: &str) -> Result<String, Failure> {
    let body = r#"{"name":"chat","runner_name_selector":"bench","crash_policy":"sleep"}"#;
    let request = format!(
        "POST /actors?namespace=default HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let id = answer.split_once("\"actor_id\":\"").and_then(|(_, rest)| rest.split_once('"'));
    Ok(id.ok_or(answer.clone())?.0.to_owned())
}

/// A text frame as clients send it, masked with zeroes.
fn frame(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(125).min(125);
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(&text[..usize::from(length)]);
    frame
}

type Failure = Box<dyn std::error::Error>;

/// Sockets before those that are counted.
const WARM_UP: usize = 200;
