//! The gateway's end of one runner's socket: blocking reads, and writes gathered until the next read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use greenroom::protocol::{
    ActorConfig, Checkpoint, Command, CommandWrapper, InitMetadata, MessageId, StreamId, ToClient, ToClientTunnel,
    ToServer, Version,
};
use rustix::event::{PollFd, PollFlags, poll};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A connected runner.
pub struct Wire {
    incoming: TcpStream,
    outgoing: Arc<Mutex<TcpStream>>,
    unread: BytesMut,
    read_at: Instant,
    unsent: BytesMut,
    scratch: BytesMut,
    next_stream: u32,
    next_actor: u32,
}

impl Wire {
    /// Takes the runner's connection and answers its introduction.
    pub fn accept(socket: TcpStream) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("the runner's socket: {error}");
        socket.set_nodelay(true).map_err(io)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        let outgoing = Arc::new(Mutex::new(socket.try_clone().map_err(io)?));
        let mut wire = Wire {
            incoming: socket,
            outgoing: outgoing.clone(),
            unread: BytesMut::new(),
            read_at: Instant::now(),
            unsent: BytesMut::new(),
            scratch: BytesMut::new(),
            next_stream: 0,
            next_actor: 0,
        };
        wire.upgrade()?;
        let ToServer::Init(_) = wire.next() else { return Err("the runner does not introduce itself".to_owned()) };
        wire.send(&ToClient::Init {
            runner_id: "bench-runner".into(),
            metadata: InitMetadata {
                runner_lost_threshold: 15_000,
                actor_stop_threshold: Some(1_800_000),
                serverless_drain_grace_period: None,
            },
        });
        wire.flush();
        std::thread::spawn(move || ping(&outgoing));
        Ok(wire)
    }

    /// Puts a message behind what goes out before the next read.
    pub fn send(&mut self, message: &ToClient) {
        message.encode(Version::V7, &mut self.scratch).expect("a message of ours encodes");
        put_frame(&self.scratch, &mut self.unsent);
        self.scratch.clear();
    }

    /// The next message of the runner, when nothing is left of what was read everything unsent goes out first.
    pub fn next(&mut self) -> ToServer {
        loop {
            if let Some(frame) = self.frame() {
                return ToServer::decode(frame, Version::V7).expect("the runner's message decodes");
            }
            self.flush();
            self.read();
        }
    }

    /// [`Wire::next`], or nothing when there is none by then.
    pub fn next_by(&mut self, deadline: Instant) -> Option<ToServer> {
        loop {
            if let Some(frame) = self.frame() {
                return Some(ToServer::decode(frame, Version::V7).expect("the runner's message decodes"));
            }
            self.flush();
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.try_into().expect("a deadline not far away");
            let mut readable = [PollFd::new(&self.incoming, PollFlags::IN)];
            if poll(&mut readable, Some(&left)).expect("a socket can be waited for") == 0 {
                return None;
            }
            self.read();
        }
    }

    /// When the last message came, before whatever came together with it was looked at.
    pub fn read_at(&self) -> Instant {
        self.read_at
    }

    /// Sends a request that was not sent before.
    pub fn request(&mut self, actor_id: &str, path: &str) -> StreamId {
        let stream = self.new_stream();
        let header = |name: &'static str, value: &'static str| (name.into(), value.into());
        let message = ToClientTunnel::RequestStart {
            actor_id: actor_id.into(),
            method: "GET".into(),
            path: path.into(),
            headers: vec![
                header("host", "127.0.0.1:6420"),
                header("user-agent", "load/1"),
                header("accept", "*/*"),
                header("x-rivet-ray-id", "1oe70n6l4jcqg4a8w8zsyhhwkqcl00"),
            ],
            body: None,
            stream: false,
        };
        self.send(&ToClient::Tunnel { id: MessageId { stream, index: 0 }, message });
        stream
    }

    /// Sends the command that starts a new actor, and answers its id.
    pub fn start_actor(&mut self) -> String {
        // Like real ones, these differ from their first letters on.
        let id =
            format!("{:016x}{:014}", u64::from(self.next_actor).wrapping_mul(0x9e37_79b9_7f4a_7c15), self.next_actor);
        self.next_actor += 1;
        let config =
            ActorConfig { name: "bench".into(), key: Some("key".into()), create_ts: 1_700_000_000_000, input: None };
        self.command(&id, 0, Command::Start { config, hibernating: vec![] });
        id
    }

    /// Sends the command that stops an actor.
    pub fn stop_actor(&mut self, id: &str) {
        self.command(id, 1, Command::Stop);
    }

    /// A stream id that was not used before.
    pub fn new_stream(&mut self) -> StreamId {
        self.next_stream = self.next_stream.wrapping_add(1);
        StreamId { gateway: *b"load", request: self.next_stream.to_be_bytes() }
    }

    fn command(&mut self, id: &str, index: i64, command: Command) {
        let checkpoint = Checkpoint { actor_id: id.into(), generation: 0, index };
        self.send(&ToClient::Commands(vec![CommandWrapper { checkpoint, command }]));
    }

    pub fn flush(&mut self) {
        if !self.unsent.is_empty() {
            self.outgoing.lock().expect("no panic").write_all(&self.unsent).expect("the runner is there");
            self.unsent.clear();
        }
    }

    fn read(&mut self) {
        let before = self.unread.len();
        self.unread.resize(before + READ, 0);
        let count = self.incoming.read(&mut self.unread[before..]).expect("the runner says something in time");
        assert!(count > 0, "the runner is gone");
        self.read_at = Instant::now();
        self.unread.truncate(before + count);
    }

    /// One whole binary message, unmasked.
    fn frame(&mut self) -> Option<Bytes> {
        loop {
            let [first, second, ..] = self.unread[..] else { return None };
            let (head, length) = match second & 0x7f {
                126 => (4, u64::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().ok()?))),
                127 => (10, u64::from_be_bytes(self.unread.get(2..10)?.try_into().ok()?)),
                length => (2, u64::from(length)),
            };
            let length = usize::try_from(length).expect("a frame that fits into memory");
            if self.unread.len() < head + 4 + length {
                return None;
            }
            let mask: [u8; 4] = self.unread[head..head + 4].try_into().ok()?;
            self.unread.advance(head + 4);
            let mut payload = self.unread.split_to(length);
            unmask(&mut payload, mask);
            match first {
                0x82 => return Some(payload.freeze()),
                0x88 => {
                    panic!("the runner closes: {:?}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default()))
                }
                _ => {}
            }
        }
    }

    fn upgrade(&mut self) -> Result<(), String> {
        let end = loop {
            if let Some(place) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break place + 4;
            }
            self.read();
        };
        let head = self.unread.split_to(end);
        let head = String::from_utf8_lossy(&head);
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
        });
        let accept = derive_accept_key(key.ok_or("the runner sent no WebSocket key")?.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\nsec-websocket-protocol: rivet\r\n\r\n"
        );
        self.unsent.extend_from_slice(answer.as_bytes());
        self.flush();
        Ok(())
    }
}

/// Pings as gateways do, also while another runner is measured.
fn ping(outgoing: &Mutex<TcpStream>) {
    let (mut message, mut frame) = (BytesMut::new(), BytesMut::new());
    ToClient::Ping { ts: 1 }.encode(Version::V7, &mut message).expect("a ping encodes");
    put_frame(&message, &mut frame);
    loop {
        std::thread::sleep(Duration::from_secs(3));
        if outgoing.lock().expect("no panic").write_all(&frame).is_err() {
            return;
        }
    }
}

fn put_frame(payload: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(&[0x82]);
    match payload.len() {
        length @ 0..=125 => out.extend_from_slice(&[length as u8]),
        length @ 126..=0xffff => {
            out.extend_from_slice(&[126]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.extend_from_slice(&[127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

const READ: usize = 256 * 1024;
/// A runner that says nothing for this long, not even a pong, is broken.
const PATIENCE: Duration = Duration::from_secs(20);
