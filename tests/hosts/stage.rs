//! A runner made of a loop and a few maps: starts actors on a host and talks to them as a gateway would.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use greenroom::actor::{ActorKey, Outcome, StartReason, StopReason};
use greenroom::host::child_process::{ChildProcess, Roots, Settings, SharedProcess, WebSocketMode};
use greenroom::host::in_process::InProcess;
use greenroom::host::upstream::Upstream;
use greenroom::host::{
    ActorContext, ActorHandle, ActorHost, Body, Call, CallSender, Doors, Frame, KvError, Request, Responder,
    StartActor, StreamKey, StreamReply, StreamTask, TokenIssuer, WebSocket, WebSocketFeed, WebSocketRequest, supervise,
};
use greenroom::protocol::{Headers, KvListQuery, KvRequest, KvResponse, StreamId};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::behaviour::Suite;
use crate::elsewhere::{Elsewhere, at};

/// One actor on one host.
pub struct Stage {
    pub handle: ActorHandle,
    pub tokens: Arc<Tokens>,
    pub directory: Arc<TempDir>,
    calls: CallSender,
    life: mpsc::UnboundedReceiver<Call>,
    streams: Streams,
    pub storage: Arc<Mutex<Storage>>,
    pub refused_writes: Arc<AtomicU32>,
}

/// The actor's storage, over all its lives.
#[derive(Default)]
pub struct Storage {
    pub entries: BTreeMap<Bytes, Bytes>,
    /// The gateway is away.
    pub away: bool,
}

type Streams = Arc<Mutex<HashMap<StreamId, mpsc::UnboundedSender<StreamReply>>>>;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Bytes,
}

/// A request or socket that is under way.
pub struct Stream {
    pub task: Option<StreamTask>,
    replies: mpsc::UnboundedReceiver<StreamReply>,
}

pub struct Socket {
    pub id: StreamId,
    pub stream: Stream,
    pub feed: WebSocketFeed,
}

/// Which host an actor of the suite runs on.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    InProcess,
    Unix,
    Port,
    Fd,
    /// One process for all actors of the name.
    PerName,
    /// A server that was not started by the runner.
    Upstream,
}

impl Kind {
    /// An actor of the suite that runs.
    pub async fn stage(self) -> Stage {
        let mut stage = Stage::new(move |roots, doors| self.host(roots, doors));
        stage.running().await;
        stage
    }

    /// An actor of the suite that runs and takes its sockets as events.
    pub async fn events_stage(self) -> Stage {
        let mut stage = Stage::new(move |roots, doors| self.events_host(roots, doors));
        stage.running().await;
        stage
    }

    fn events_host(self, roots: Roots, doors: Doors) -> Arc<dyn ActorHost> {
        let handler_timeout = Duration::from_secs(3);
        match self {
            Kind::InProcess => {
                let host = InProcess::new(Suite::start).events().handler_timeout(handler_timeout);
                Arc::new(host.stop_grace(Duration::from_secs(60)))
            }
            Kind::Unix | Kind::Port | Kind::Fd | Kind::PerName | Kind::Upstream => {
                let websocket = WebSocketMode::Events;
                let stop_grace = Duration::from_secs(60);
                self.app_host(Settings { websocket, handler_timeout, stop_grace, ..app() }, roots, doors)
            }
        }
    }

    fn host(self, roots: Roots, doors: Doors) -> Arc<dyn ActorHost> {
        use greenroom::host::child_process::Listen;
        let listen = match self {
            Kind::InProcess => return Arc::new(InProcess::new(Suite::start)),
            Kind::Unix | Kind::PerName | Kind::Upstream => Listen::Unix,
            Kind::Port => Listen::Port,
            Kind::Fd => Listen::Fd,
        };
        self.app_host(Settings { listen, ..app() }, roots, doors)
    }

    fn app_host(self, settings: Settings, roots: Roots, doors: Doors) -> Arc<dyn ActorHost> {
        match self {
            Kind::InProcess | Kind::Unix | Kind::Port | Kind::Fd => Arc::new(ChildProcess::new(settings, roots, doors)),
            Kind::PerName => Arc::new(SharedProcess::new(settings, roots, doors)),
            Kind::Upstream => {
                let elsewhere = Elsewhere::start(&[]);
                let mut upstream = at([elsewhere.url()]);
                upstream.websocket = settings.websocket;
                upstream.handler_timeout = settings.handler_timeout;
                upstream.stop_grace = settings.stop_grace;
                elsewhere.with(Upstream::new(upstream, doors, None).unwrap())
            }
        }
    }
}

/// The suite's app as a child process.
pub fn app() -> Settings {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts/apps");
    Settings {
        start_timeout: Duration::from_secs(60),
        websocket: WebSocketMode::Proxy,
        ..Settings::new(vec!["python3".into(), "app.py".into()], apps)
    }
}

/// The suite's app with these variables.
pub fn app_with(variables: &[(&str, &str)]) -> Settings {
    let env = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings { env, ..app() }
}

/// A shell command as a child process.
pub fn shell(script: &str) -> Settings {
    Settings::new(["sh", "-c", script].map(str::to_owned).to_vec(), std::env::temp_dir())
}

impl Stage {
    pub fn new(host: impl FnOnce(Roots, Doors) -> Arc<dyn ActorHost>) -> Self {
        Stage::with(Arc::new(tempfile::tempdir().unwrap()), actor("a1", 1), host)
    }

    /// A child process that starts.
    pub fn child(settings: Settings) -> Self {
        Stage::new(|roots, doors| Arc::new(ChildProcess::new(settings, roots, doors)))
    }

    pub fn with(
        directory: Arc<TempDir>,
        start: StartActor,
        host: impl FnOnce(Roots, Doors) -> Arc<dyn ActorHost>,
    ) -> Self {
        Self::with_storage(directory, Arc::default(), start, host)
    }

    fn with_storage(
        directory: Arc<TempDir>,
        storage: Arc<Mutex<Storage>>,
        start: StartActor,
        host: impl FnOnce(Roots, Doors) -> Arc<dyn ActorHost>,
    ) -> Self {
        let refused_writes = Arc::default();
        let tokens = Arc::new(Tokens::default());
        let roots = Roots { runtime: directory.path().join("run"), data: directory.path().join("data") };
        let tcp = ([127, 0, 0, 1], 9).into();
        let doors = Doors { tcp, unix: directory.path().join("api.sock"), tokens: tokens.clone() };
        let (calls, received) = mpsc::channel(8);
        let (life, lives) = mpsc::unbounded_channel();
        let streams = Streams::default();
        tokio::spawn(run(received, life, streams.clone(), Arc::clone(&storage), Arc::clone(&refused_writes)));
        let handle = supervise(host(roots, doors), Arc::new(start), calls.clone());
        Stage { handle, tokens, directory, calls, life: lives, streams, storage, refused_writes }
    }

    pub async fn running(&mut self) {
        match self.next().await {
            Call::Running(_) => {}
            other => panic!("not running but {other:?}"),
        }
    }

    pub async fn ended(&mut self) -> Outcome {
        loop {
            if let Call::Ended(_, outcome) = self.next().await {
                return outcome;
            }
        }
    }

    /// How it failed.
    pub async fn failed(&mut self) -> String {
        match self.ended().await {
            Outcome::Failed(reason) => reason,
            Outcome::Wanted => panic!("it did not fail"),
        }
    }

    pub async fn stop(&mut self, reason: StopReason) {
        self.handle.stop(reason);
        assert_eq!(self.ended().await, Outcome::Wanted);
    }

    /// The next life of the actor, with the sockets it goes on with and those it does not know.
    pub async fn again(
        &self,
        kind: Kind,
        generation: u32,
        hibernating: Vec<StreamId>,
    ) -> (Stage, Vec<(StreamId, u16)>, Vec<StreamId>) {
        let start = StartActor { reason: StartReason::Wake, hibernating, ..actor("a1", generation) };
        let host = move |roots, doors| kind.events_host(roots, doors);
        let mut stage = Stage::with_storage(self.directory.clone(), self.storage.clone(), start, host);
        let Call::Restored { sockets, unknown, .. } = stage.next().await else { panic!("not restored") };
        stage.running().await;
        (stage, sockets, unknown)
    }

    /// The gateway's end of a socket that an earlier life took.
    pub fn restored(&self, id: StreamId) -> Socket {
        let (sender, replies) = mpsc::unbounded_channel();
        self.streams.lock().unwrap().insert(id, sender);
        let key = StreamKey { id, opening: 1 };
        let (feed, socket) = WebSocket::restored(self.handle.key().clone(), key, self.calls.clone());
        Socket { id, stream: Stream { task: self.handle.restored(socket), replies }, feed }
    }

    pub async fn next(&mut self) -> Call {
        in_time(self.life.recv()).await.expect("the life has not ended")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::Whole(Bytes::new())).answer().await
    }

    pub async fn text(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send("POST", path, &[], Body::Whole(body.into())).answer().await
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Stream {
        let (stream, replies) = self.stream();
        let headers = owned(headers);
        let request = Request { stream, method: method.into(), path: path.into(), headers, body };
        let responder =
            Responder::new(self.handle.key().clone(), StreamKey { id: stream, opening: 0 }, self.calls.clone());
        Stream { task: self.handle.request(request, responder), replies }
    }

    pub fn socket(&self, path: &str, headers: &[(&str, &str)]) -> Socket {
        let (stream, replies) = self.stream();
        let (feed, socket) =
            WebSocket::new(self.handle.key().clone(), StreamKey { id: stream, opening: 0 }, self.calls.clone());
        let request = WebSocketRequest { stream, path: path.into(), headers: owned(headers), index: 0 };
        let task = self.handle.websocket(request, socket);
        Socket { id: stream, stream: Stream { task, replies }, feed }
    }

    fn stream(&self) -> (StreamId, mpsc::UnboundedReceiver<StreamReply>) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let request = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let stream = StreamId { gateway: [7; 4], request };
        let (sender, replies) = mpsc::unbounded_channel();
        self.streams.lock().unwrap().insert(stream, sender);
        (stream, replies)
    }
}

impl Stream {
    pub fn nothing_yet(&mut self) -> bool {
        self.replies.try_recv().is_err()
    }

    pub async fn reply(&mut self) -> StreamReply {
        in_time(self.replies.recv()).await.expect("a reply")
    }

    pub async fn answer(mut self) -> Answer {
        self.try_answer().await.expect("the request was answered")
    }

    /// The whole answer; `None` when it was aborted.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        let StreamReply::Response { status, headers, body, mut more } = self.reply().await else { return None };
        let mut all = BytesMut::from(&body[..]);
        while more {
            match self.reply().await {
                StreamReply::Chunk { body, finish } => {
                    all.extend_from_slice(&body);
                    more = !finish;
                }
                StreamReply::Abort => return None,
                other => panic!("not a chunk: {other:?}"),
            }
        }
        Some(Answer { status, headers, body: all.freeze() })
    }
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| **other == *name).map(|(_, value)| &**value)
    }
}

impl Socket {
    pub async fn opened(&mut self) {
        assert_eq!(self.stream.reply().await, StreamReply::Open { can_hibernate: false });
    }

    pub async fn message(&self, data: impl Into<Bytes>, binary: bool) {
        self.feed.try_send(Frame::Message { data: data.into(), binary, index: 1 }).unwrap();
    }

    /// A text frame with this index.
    pub async fn frame(&self, index: u16, text: &'static str) {
        self.feed.try_send(Frame::Message { data: text.into(), binary: false, index }).unwrap();
    }

    /// The text of the frame that comes next; acknowledgements are passed over.
    pub async fn said(&mut self) -> String {
        loop {
            match self.stream.reply().await {
                StreamReply::Message { data, binary: false } => return String::from_utf8(data.to_vec()).unwrap(),
                StreamReply::MessageAck { .. } => {}
                other => panic!("not a text: {other:?}"),
            }
        }
    }

    pub async fn close(&self, code: u16, reason: &str) {
        self.feed.try_send(Frame::Closed { code: Some(code), reason: Some(reason.into()) }).unwrap();
    }

    pub async fn received(&mut self) -> (Bytes, bool) {
        match self.stream.reply().await {
            StreamReply::Message { data, binary } => (data, binary),
            StreamReply::MessageAck { .. } => Box::pin(self.received()).await,
            other => panic!("not a message: {other:?}"),
        }
    }

    /// The code and reason of the close that comes next.
    pub async fn closed(&mut self) -> (Option<u16>, String) {
        match self.stream.reply().await {
            StreamReply::Close { code, reason } => (code, reason.unwrap_or_default().to_string()),
            StreamReply::MessageAck { .. } => Box::pin(self.closed()).await,
            other => panic!("not a close: {other:?}"),
        }
    }
}

impl Storage {
    fn answer(&mut self, request: KvRequest) -> Result<KvResponse, KvError> {
        if self.away {
            return Err(KvError::Unavailable);
        }
        match request {
            KvRequest::Put { keys, values } => {
                self.entries.extend(keys.into_iter().zip(values));
                Ok(KvResponse::Put)
            }
            KvRequest::Delete { keys } => {
                self.entries.retain(|key, _| !keys.contains(key));
                Ok(KvResponse::Delete)
            }
            KvRequest::List { query: KvListQuery::Range { start, end, .. }, .. } => {
                let (keys, values) = self.entries.range(start..end).map(|(k, v)| (k.clone(), v.clone())).unzip();
                Ok(KvResponse::List { keys, values, metadata: Vec::new() })
            }
            other => panic!("not asked here: {other:?}"),
        }
    }
}

/// Tokens that are only remembered.
#[derive(Default)]
pub struct Tokens {
    pub live: Mutex<BTreeMap<String, ActorContext>>,
    next: AtomicU32,
}

impl TokenIssuer for Tokens {
    fn issue(&self, context: ActorContext) -> SecretString {
        let token = format!("token-{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.live.lock().unwrap().insert(token.clone(), context);
        token.into()
    }

    fn revoke(&self, token: &SecretString) {
        self.live.lock().unwrap().remove(token.expose_secret());
    }
}

pub fn actor(id: &str, generation: u32) -> StartActor {
    StartActor {
        key: ActorKey::new(id, generation),
        name: "suite".into(),
        actor_key: Some("key/with ü".into()),
        create_ts: 0,
        input: None,
        reason: StartReason::Create,
        hibernating: Vec::new(),
    }
}

/// What must happen, though nobody knows when: on a busy machine it may take a while.
pub async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.expect("it happens within a minute")
}

/// Looks again and again until it is so.
pub async fn until(mut so: impl FnMut() -> bool) {
    in_time(async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Whether a process runs; one that is dead and not yet reaped does not.
pub fn runs(pid: &str) -> bool {
    std::fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X']))
}

pub fn owned(headers: &[(&str, &str)]) -> Headers {
    headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

async fn run(
    mut calls: mpsc::Receiver<Call>,
    life: mpsc::UnboundedSender<Call>,
    streams: Streams,
    storage: Arc<Mutex<Storage>>,
    refused_writes: Arc<AtomicU32>,
) {
    while let Some(call) = calls.recv().await {
        let call = match call {
            Call::Kv { request, reply, .. } => {
                let answer = storage.lock().unwrap().answer(request);
                if answer.is_err() {
                    refused_writes.fetch_add(1, Ordering::SeqCst);
                }
                // The life may be over.
                let _ = reply.send(answer);
                continue;
            }
            call => call,
        };
        if let Call::Stream { stream, reply, .. } = call {
            let sender = streams.lock().unwrap().get(&stream.id).cloned();
            // The test may have lost interest in the stream.
            let _ = sender.expect("a known stream").send(reply);
        } else {
            let _ = life.send(call);
        }
    }
}
