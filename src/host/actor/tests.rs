use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use greenroom_protocol::StreamId;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::actor::StartReason;
use crate::host::{Body, StreamKey, StreamReply};

#[tokio::test]
async fn a_life_runs_serves_and_ends_as_wanted() {
    let mut stage = Stage::new(Script::default());
    assert!(matches!(stage.next().await, Call::Running(_)));

    stage.request(1).expect("admitted");
    assert_eq!(stage.reply().await, answered(200));

    stage.handle.stop(StopReason::Sleep);
    assert_eq!(stage.ended().await, Outcome::Wanted);
    assert_eq!(*stage.script.stopped.lock().unwrap(), [StopReason::Sleep]);
    assert!(stage.request(2).is_none());
}

#[tokio::test]
async fn requests_wait_for_the_start_and_then_are_served() {
    let mut stage = Stage::new(Script { start: Start::WhenTold, ..Script::default() });
    for request in 0..3 {
        stage.request(request).expect("admitted");
    }
    stage.script.go.cancel();
    assert!(matches!(stage.next().await, Call::Running(_)));
    for _ in 0..3 {
        assert_eq!(stage.reply().await, answered(200));
    }
}

#[tokio::test]
async fn a_full_waiting_room_refuses_so_that_the_gateway_tries_again() {
    let mut stage = Stage::new(Script { start: Start::WhenTold, ..Script::default() });
    let mut waiting: Vec<_> = (0..WAITING_MAX).map(|n| stage.request(n as u32).expect("admitted")).collect();
    assert!(stage.request(9999).is_none());
    assert_eq!(stage.reply().await, StreamReply::Abort);

    waiting.pop().expect("one").cancel();
    assert_eq!(stage.reply().await, StreamReply::Abort);
    assert!(stage.request(9999).is_some());
}

#[tokio::test]
async fn a_failed_start_says_why_and_aborts_what_waited() {
    let mut stage = Stage::new(Script { start: Start::Fail, ..Script::default() });
    assert_eq!(stage.ended().await, Outcome::Failed("no such thing".into()));

    let mut stage = Stage::new(Script { start: Start::Panic, ..Script::default() });
    stage.request(1).expect("admitted");
    assert_eq!(stage.reply().await, StreamReply::Abort);
    assert_eq!(stage.ended().await, Outcome::Failed("the start panicked: on purpose".into()));
}

#[tokio::test]
async fn a_start_that_takes_too_long_fails_and_names_the_setting() {
    let mut stage = Stage::new(Script { start: Start::WhenTold, start_timeout: ms(1), ..Script::default() });
    let Outcome::Failed(reason) = stage.ended().await else { panic!("it did not start") };
    assert!(reason.contains("start_timeout"), "{reason}");
}

#[tokio::test]
async fn a_stop_cancels_the_start() {
    let mut stage = Stage::new(Script { start: Start::WhenTold, ..Script::default() });
    stage.script.begun.cancelled().await;
    stage.handle.stop(StopReason::Destroy);
    assert_eq!(stage.ended().await, Outcome::Wanted);
    assert!(stage.script.start_dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_crash_is_reported_with_its_reason_and_ends_the_requests_first() {
    let mut stage = Stage::new(Script::default());
    assert!(matches!(stage.next().await, Call::Running(_)));
    stage.request(HANGS).expect("admitted");
    stage.script.end.send_replace(Some(Err("exit code 3".into())));
    assert_eq!(stage.reply().await, StreamReply::Abort);
    assert_eq!(stage.ended().await, Outcome::Failed("exit code 3".into()));
}

#[tokio::test]
async fn an_end_that_nobody_wanted_is_a_failure_even_without_an_error() {
    let mut stage = Stage::new(Script::default());
    assert!(matches!(stage.next().await, Call::Running(_)));
    stage.script.end.send_replace(Some(Ok(())));
    assert!(matches!(stage.ended().await, Outcome::Failed(_)));
}

#[tokio::test]
async fn an_end_after_a_wish_to_sleep_is_wanted() {
    let mut stage = Stage::new(Script::default());
    assert!(matches!(stage.next().await, Call::Running(_)));
    let context = stage.script.context.lock().unwrap().clone().expect("started");
    context.sleep().await.unwrap();
    assert!(matches!(stage.next().await, Call::Sleep(_)));
    stage.script.end.send_replace(Some(Ok(())));
    assert_eq!(stage.ended().await, Outcome::Wanted);
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish_first() {
    let mut stage = Stage::new(Script { grace: Duration::from_secs(60), ..Script::default() });
    assert!(matches!(stage.next().await, Call::Running(_)));
    stage.request(WAITS).expect("admitted");
    stage.handle.stop(StopReason::Drain);
    assert!(stage.script.stopped.lock().unwrap().is_empty());
    stage.script.go.cancel();
    assert_eq!(stage.reply().await, answered(200));
    assert_eq!(stage.ended().await, Outcome::Wanted);
    assert_eq!(*stage.script.stopped.lock().unwrap(), [StopReason::Drain]);
}

#[tokio::test]
async fn an_actor_that_does_not_stop_is_killed_at_the_grace() {
    let mut stage = Stage::new(Script { grace: ms(30), stop: Stop::Never, ..Script::default() });
    assert!(matches!(stage.next().await, Call::Running(_)));
    stage.request(HANGS).expect("admitted");
    stage.handle.stop(StopReason::Stop);
    assert_eq!(stage.reply().await, StreamReply::Abort);
    assert_eq!(stage.ended().await, Outcome::Wanted);
    assert!(stage.script.killed.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_kill_cuts_a_stop_short() {
    let mut stage = Stage::new(Script { grace: Duration::from_secs(60), stop: Stop::Never, ..Script::default() });
    assert!(matches!(stage.next().await, Call::Running(_)));
    stage.handle.stop(StopReason::Drain);
    stage.handle.kill();
    assert_eq!(stage.ended().await, Outcome::Wanted);
}

#[tokio::test]
async fn a_stop_that_panics_still_ends_in_a_kill() {
    let mut stage = Stage::new(Script { grace: ms(30), stop: Stop::Panic, ..Script::default() });
    assert!(matches!(stage.next().await, Call::Running(_)));
    stage.handle.stop(StopReason::Drain);
    assert_eq!(stage.ended().await, Outcome::Wanted);
}

#[tokio::test]
async fn dropping_the_handle_kills_the_actor() {
    let Stage { handle, mut calls, script, .. } = Stage::new(Script::default());
    assert!(matches!(calls.recv().await, Some(Call::Running(_))));
    drop(handle);
    assert!(matches!(calls.recv().await, Some(Call::Ended(_, Outcome::Wanted))));
    assert!(script.killed.load(Ordering::SeqCst));
}

/// A request with this number never answers.
const HANGS: u32 = 1 << 16;
/// A request with this number answers when told to.
const WAITS: u32 = HANGS + 1;

/// A life of a scripted actor, and what it told the runner.
struct Stage {
    handle: ActorHandle,
    calls: mpsc::Receiver<Call>,
    sender: CallSender,
    script: Arc<Script>,
}

impl Stage {
    fn new(script: Script) -> Self {
        let (sender, calls) = mpsc::channel(64);
        let script = Arc::new(script);
        let start = StartActor {
            key: ActorKey::new("a", 1),
            name: "scripted".into(),
            actor_key: None,
            create_ts: 0,
            input: None,
            reason: StartReason::Create,
            hibernating: Vec::new(),
        };
        let handle = supervise(Arc::new(Scripted(script.clone())), Arc::new(start), sender.clone());
        Stage { handle, calls, sender, script }
    }

    fn request(&self, number: u32) -> Option<StreamTask> {
        let stream = StreamId { gateway: [0; 4], request: number.to_be_bytes() };
        let key = StreamKey { id: stream, opening: u64::from(number) };
        let request = Request {
            stream,
            method: "GET".into(),
            path: "/".into(),
            headers: vec![],
            body: Body::Whole(Bytes::new()),
        };
        self.handle.request(request, Responder::new(self.handle.key().clone(), key, self.sender.clone()))
    }

    async fn next(&mut self) -> Call {
        self.calls.recv().await.expect("the life has not ended")
    }

    async fn reply(&mut self) -> StreamReply {
        loop {
            if let Call::Stream { reply, .. } = self.next().await {
                return reply;
            }
        }
    }

    async fn ended(&mut self) -> Outcome {
        loop {
            if let Call::Ended(_, outcome) = self.next().await {
                return outcome;
            }
        }
    }
}

fn answered(status: u16) -> StreamReply {
    StreamReply::Response { status, headers: vec![], body: Bytes::new(), more: false }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Script {
    start: Start,
    stop: Stop,
    start_timeout: Duration,
    grace: Duration,
    begun: CancellationToken,
    /// Lets what waits go on.
    go: CancellationToken,
    end: watch::Sender<Option<Result<(), String>>>,
    context: Mutex<Option<ActorContext>>,
    stopped: Mutex<Vec<StopReason>>,
    killed: AtomicBool,
    start_dropped: AtomicBool,
}

enum Start {
    AtOnce,
    WhenTold,
    Fail,
    Panic,
}

enum Stop {
    AtOnce,
    Never,
    Panic,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            start: Start::AtOnce,
            stop: Stop::AtOnce,
            start_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(60),
            begun: CancellationToken::new(),
            go: CancellationToken::new(),
            end: watch::Sender::new(None),
            context: Mutex::default(),
            stopped: Mutex::default(),
            killed: AtomicBool::default(),
            start_dropped: AtomicBool::default(),
        }
    }
}

struct Scripted(Arc<Script>);

impl ActorHost for Scripted {
    fn start(
        &self,
        _: Arc<StartActor>,
        context: ActorContext,
    ) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>> {
        let script = self.0.clone();
        async move {
            let dropped = Flag(script.clone());
            *script.context.lock().unwrap() = Some(context);
            script.begun.cancel();
            match script.start {
                Start::AtOnce => {}
                Start::WhenTold => script.go.cancelled().await,
                Start::Fail => return Err(StartError::new("no such thing")),
                Start::Panic => panic!("on purpose"),
            }
            drop(dropped);
            Ok(Arc::new(Scripted(script)) as Arc<dyn HostedActor>)
        }
        .boxed()
    }

    fn start_timeout(&self) -> Duration {
        self.0.start_timeout
    }

    fn stop_grace(&self) -> Duration {
        self.0.grace
    }
}

struct Flag(Arc<Script>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.start_dropped.store(true, Ordering::SeqCst);
    }
}

impl HostedActor for Scripted {
    fn request(self: Arc<Self>, request: Request, responder: Responder) -> BoxFuture<'static, ()> {
        async move {
            match u32::from_be_bytes(request.stream.request) {
                HANGS => std::future::pending().await,
                WAITS => self.0.go.cancelled().await,
                _ => {}
            }
            responder.respond(200, vec![], Bytes::new()).await.unwrap();
        }
        .boxed()
    }

    fn websocket(self: Arc<Self>, _: WebSocketRequest, socket: WebSocket) -> BoxFuture<'static, ()> {
        async move { drop(socket) }.boxed()
    }

    fn ended(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        let mut end = self.0.end.subscribe();
        async move { end.wait_for(Option::is_some).await.unwrap().clone().unwrap() }.boxed()
    }

    fn stop(self: Arc<Self>, reason: StopReason, _: Duration) -> BoxFuture<'static, ()> {
        async move {
            self.0.stopped.lock().unwrap().push(reason);
            match self.0.stop {
                Stop::AtOnce => drop(self.0.end.send_replace(Some(Ok(())))),
                Stop::Never => {}
                Stop::Panic => panic!("on purpose"),
            }
        }
        .boxed()
    }

    fn kill(&self) {
        self.0.killed.store(true, Ordering::SeqCst);
        self.0.end.send_replace(Some(Err("killed".into())));
    }
}
