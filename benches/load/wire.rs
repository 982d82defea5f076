//! The gateway's end of one runner's socket: blocking reads, and writes gathered until the next read.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use greenroom::protocol::{
    ActorConfig, Checkpoint, Command, CommandWrapper, InitMetadata, MessageId, StreamId, ToClient, ToClientTunnel,
    ToServer, Version,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A connected runner.
pub struct Wire {
    incoming: Incoming,
    outgoing: Arc<Mutex<TcpStream>>,
    unsent: BytesMut,
    scratch: BytesMut,
    next_stream: u32,
    next_actor: u32,
}

/// What comes from a runner.
struct Incoming {
    socket: TcpStream,
    unread: BytesMut,
}

impl Wire {
    /// Takes the runner's connection and answers its introduction.
    pub fn accept(socket: TcpStream) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("the runner's socket: {error}");
        socket.set_nodelay(true).map_err(io)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        let outgoing = Arc::new(Mutex::new(socket.try_clone().map_err(io)?));
        let mut wire = Wire {
            incoming: Incoming { socket, unread: BytesMut::new() },
            outgoing: outgoing.clone(),
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
            if let Some(frame) = self.incoming.frame() {
                return decoded(frame);
            }
            self.flush();
            self.incoming.read(READ).expect("the runner says something in time");
        }
    }

    /// Lets a thread of its own read meanwhile: what comes is given on with when it came, however busy `run` is.
    pub fn listen<R>(&mut self, run: impl FnOnce(&mut Self, &Receiver<(Instant, ToServer)>) -> R) -> R {
        let socket = self.incoming.socket.try_clone().expect("one more handle");
        socket.set_read_timeout(Some(LISTEN_PAUSE)).expect("a timeout that is not zero");
        let mut incoming = Incoming { socket, unread: self.incoming.unread.split() };
        let (over, (heard, told)) = (AtomicBool::new(false), channel());
        std::thread::scope(|scope| {
            let listener = scope.spawn(|| {
                let heard = heard;
                while !over.load(Ordering::Relaxed) {
                    let came = incoming.read(READ_ASIDE).unwrap_or_else(Instant::now);
                    while let Some(frame) = incoming.frame() {
                        // Whoever listens no more has all it wants.
                        let _ = heard.send((came, decoded(frame)));
                    }
                }
                incoming.unread
            });
            let result = run(self, &told);
            over.store(true, Ordering::Relaxed);
            self.incoming.unread = listener.join().expect("no panic");
            self.incoming.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
            result
        })
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

    fn upgrade(&mut self) -> Result<(), String> {
        let end = loop {
            if let Some(place) = self.incoming.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break place + 4;
            }
            self.incoming.read(READ).expect("the runner says something in time");
        };
        let head = self.incoming.unread.split_to(end);
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

impl Incoming {
    /// Reads more, so much at most, and answers when it came; nothing when nothing came in the socket's time.
    fn read(&mut self, most: usize) -> Option<Instant> {
        let before = self.unread.len();
        self.unread.resize(before + most, 0);
        let read = self.socket.read(&mut self.unread[before..]);
        let came = Instant::now();
        self.unread.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(count) => assert!(count > 0, "the runner is gone"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            Err(error) => panic!("the runner's socket: {error}"),
        }
        Some(came)
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
}

fn decoded(frame: Bytes) -> ToServer {
    ToServer::decode(frame, Version::V7).expect("the runner's message decodes")
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
/// Enough for a listener, which reads often.
const READ_ASIDE: usize = 16 * 1024;
/// How often a listener looks whether it is still wanted.
const LISTEN_PAUSE: Duration = Duration::from_millis(20);
/// A runner that says nothing for this long, not even a pong, is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);
