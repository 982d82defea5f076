//! What holds for every host.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use greenroom::actor::{Outcome, StopReason};
use greenroom::host::in_process::{Actor, Closed, Message, Open, Response};
use greenroom::host::{
    ActorContext, Body, EventAnswer, EventError, Frame, Outgoing, Request, StartError, StreamReply, WebSocket,
    WebSocketRequest,
};
use tokio_util::sync::CancellationToken;

use crate::stage::{Kind, in_time};

/// The suite's actor in Rust; `apps/app.py` is the same in Python.
pub struct Suite {
    release: CancellationToken,
    arrived: CancellationToken,
    waiting: CancellationToken,
    closes: Mutex<String>,
}

impl Suite {
    pub async fn start(_: ActorContext) -> Result<Self, StartError> {
        let [release, arrived, waiting] = std::array::from_fn(|_| CancellationToken::new());
        Ok(Suite { release, arrived, waiting, closes: Mutex::default() })
    }
}

impl Actor for Suite {
    async fn request(&self, request: Request) -> Response {
        match (&*request.method, request.route()) {
            ("GET", "/ping") => Response::text("pong"),
            ("GET", "/bytes") => Response::bytes(vec![b'x'; request.query().parse().unwrap()]),
            ("GET", "/cookies") => Response::new(200).header("set-cookie", "a=1").header("set-cookie", "b=2"),
            ("POST", "/echo") => Response::body(request.body),
            ("POST", "/length") => match request.body.collect().await {
                Ok(body) => Response::text(body.len().to_string()),
                Err(error) => Response::text(error.to_string()).status(400),
            },
            ("GET", "/stream") => {
                let release = self.release.clone();
                Response::stream(|mut writer| async move {
                    writer.chunk(Bytes::from_static(b"first")).await?;
                    release.cancelled().await;
                    writer.chunk(Bytes::from_static(b"second")).await?;
                    Ok(writer.finish().await?)
                })
            }
            ("GET", "/broken") => {
                let release = self.release.clone();
                Response::stream(|mut writer| async move {
                    writer.chunk(Bytes::from_static(b"first")).await?;
                    release.cancelled().await;
                    Ok(())
                })
            }
            ("GET", "/slow") => {
                self.arrived.cancel();
                self.release.cancelled().await;
                Response::text("late")
            }
            ("GET", "/arrived") => {
                self.arrived.cancelled().await;
                Response::text("yes")
            }
            ("GET", "/release") => {
                self.release.cancel();
                Response::new(200)
            }
            ("GET", "/closes") => Response::text(self.closes.lock().unwrap().clone()),
            ("GET", "/waiting") => Response::text(if self.waiting.is_cancelled() { "yes" } else { "no" }),
            ("GET", "/panic") => panic!("on purpose"),
            _ => Response::text("no such route").status(404),
        }
    }

    async fn open(&self, open: Open) -> Result<EventAnswer, EventError> {
        let query = open.path.split_once('?').map_or("", |(_, query)| query);
        if query == "refuse" {
            return Err(EventError::refused(403, "no"));
        }
        let tags = query.strip_prefix("tags=").unwrap_or_default().split(',').filter(|tag| !tag.is_empty());
        Ok(tags.fold(EventAnswer::reply(Outgoing::text("hello")), EventAnswer::tag))
    }

    async fn message(&self, message: Message) -> Result<EventAnswer, EventError> {
        if message.binary {
            return Ok(EventAnswer::reply(Outgoing::binary(message.data)));
        }
        let said = |text: &str| Ok(EventAnswer::reply(Outgoing::text(text)));
        match &message.data[..] {
            b"fail once" if message.attempt == 1 => Err(EventError::refused(500, "not now")),
            b"hang once" if message.attempt == 1 => std::future::pending().await,
            b"wait" => {
                self.waiting.cancel();
                self.release.cancelled().await;
                said("released")
            }
            b"close me" => Ok(said("last")?.close(4001, "as you wish")),
            _ => said(&format!("{}/{}", message.seq, message.attempt)),
        }
    }

    async fn close(&self, closed: Closed) {
        let line = format!("{} {} {}\n", closed.socket, closed.code, closed.reason);
        self.closes.lock().unwrap().push_str(&line);
    }

    async fn websocket(&self, request: WebSocketRequest, mut socket: WebSocket) {
        if request.path.ends_with("?refuse") {
            return socket.close(1008, "no").await.unwrap();
        }
        if request.path.ends_with("?panic") {
            panic!("on purpose");
        }
        socket.accept().await.unwrap();
        while let Some(Frame::Message { data, binary, .. }) = socket.receive().await {
            if data == "close me" {
                return socket.close(4001, "as you wish").await.unwrap();
            }
            if binary {
                socket.send_binary(data).await.unwrap();
            } else {
                socket.send_text(str::from_utf8(&data).unwrap()).await.unwrap();
            }
        }
    }
}

/// One test per host for each of these.
macro_rules! for_every_host {
    ($($name:ident,)*) => {
        mod in_process {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::InProcess).await; })*
        }
        mod child_on_a_unix_socket {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::Unix).await; })*
        }
        mod child_on_a_port {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::Port).await; })*
        }
        mod child_on_an_inherited_socket {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::Fd).await; })*
        }
        mod one_process_for_all {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::PerName).await; })*
        }
        mod upstream {
            $(#[tokio::test] async fn $name() { super::$name(crate::stage::Kind::Upstream).await; })*
        }
    };
}

for_every_host! {
    it_starts_answers_and_stops,
    bodies_of_5_mib_pass_both_ways,
    a_request_body_in_pieces_arrives_whole,
    a_client_that_goes_away_in_the_middle_of_its_body_leaves_the_actor_well,
    the_first_piece_of_a_response_comes_before_its_end,
    a_response_that_breaks_off_is_aborted,
    repeated_headers_stay_repeated,
    many_requests_at_once_are_all_answered,
    a_cancelled_request_leaves_the_actor_well,
    a_stop_lets_a_request_in_flight_finish,
    after_a_stop_nothing_is_taken,
    sockets_carry_text_and_binary_and_close_from_the_actor,
    a_socket_closed_by_the_client_leaves_the_actor_well,
    a_refused_socket_opens_and_closes_so_that_nobody_tries_again,
    a_kill_ends_it_at_once,
}

async fn it_starts_answers_and_stops(kind: Kind) {
    let mut stage = kind.stage().await;
    assert_eq!(stage.text("/ping").await, "pong");
    assert_eq!(stage.get("/nothing").await.status, 404);
    stage.stop(StopReason::Sleep).await;
}

async fn bodies_of_5_mib_pass_both_ways(kind: Kind) {
    let stage = kind.stage().await;
    let body: Bytes = (0..5 * 1024 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let answer = stage.post("/echo", body.clone()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "the same bytes");
}

async fn a_request_body_in_pieces_arrives_whole(kind: Kind) {
    let stage = kind.stage().await;
    for headers in [&[][..], &[("content-length", "300000")]] {
        let (sender, body) = Body::pieces(2);
        let stream = stage.send("POST", "/length", headers, body);
        for _ in 0..100 {
            in_time(sender.send(Ok(Bytes::from(vec![b'x'; 3000])))).await.unwrap();
        }
        drop(sender);
        assert_eq!(stream.answer().await.text(), "300000");
    }
}

async fn a_client_that_goes_away_in_the_middle_of_its_body_leaves_the_actor_well(kind: Kind) {
    let stage = kind.stage().await;
    let (sender, body) = Body::pieces(2);
    let stream = stage.send("POST", "/length", &[("content-length", "1000")], body);
    in_time(sender.send(Ok(Bytes::from_static(b"half")))).await.unwrap();
    stream.task.expect("admitted").cancel();
    in_time(sender.closed()).await;
    assert_eq!(stage.text("/ping").await, "pong");
}

async fn the_first_piece_of_a_response_comes_before_its_end(kind: Kind) {
    let stage = kind.stage().await;
    let mut stream = stage.send("GET", "/stream", &[], Body::Whole(Bytes::new()));
    let StreamReply::Response { status: 200, body, more: true, .. } = stream.reply().await else { panic!("a head") };
    let mut got = body.to_vec();
    if got.is_empty() {
        let StreamReply::Chunk { body, finish: false } = stream.reply().await else { panic!("a piece") };
        got.extend(body);
    }
    assert_eq!(got, b"first");
    stage.get("/release").await;
    loop {
        match stream.reply().await {
            StreamReply::Chunk { body, finish } => {
                got.extend(body);
                if finish {
                    break;
                }
            }
            other => panic!("not a piece: {other:?}"),
        }
    }
    assert_eq!(got, b"firstsecond");
}

async fn a_response_that_breaks_off_is_aborted(kind: Kind) {
    let stage = kind.stage().await;
    let mut stream = stage.send("GET", "/broken", &[], Body::Whole(Bytes::new()));
    assert!(matches!(stream.reply().await, StreamReply::Response { more: true, .. }));
    stage.get("/release").await;
    loop {
        match stream.reply().await {
            StreamReply::Chunk { finish: false, .. } => {}
            StreamReply::Abort => break,
            other => panic!("neither a piece nor the abort: {other:?}"),
        }
    }
}

async fn repeated_headers_stay_repeated(kind: Kind) {
    let stage = kind.stage().await;
    let answer = stage.get("/cookies").await;
    let cookies: Vec<_> = answer.headers.iter().filter(|(name, _)| **name == *"set-cookie").collect();
    assert_eq!(cookies.iter().map(|(_, value)| &**value).collect::<Vec<_>>(), ["a=1", "b=2"]);
}

async fn many_requests_at_once_are_all_answered(kind: Kind) {
    let stage = kind.stage().await;
    let streams: Vec<_> = (0..200).map(|_| stage.send("GET", "/ping", &[], Body::Whole(Bytes::new()))).collect();
    for stream in streams {
        let answer = stream.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

async fn a_cancelled_request_leaves_the_actor_well(kind: Kind) {
    let stage = kind.stage().await;
    let mut stream = stage.send("GET", "/slow", &[], Body::Whole(Bytes::new()));
    assert_eq!(stage.text("/arrived").await, "yes");
    stream.task.as_ref().expect("admitted").cancel();
    assert!(stream.try_answer().await.is_none());
    assert_eq!(stage.text("/ping").await, "pong");
}

async fn a_stop_lets_a_request_in_flight_finish(kind: Kind) {
    let mut stage = kind.stage().await;
    let stream = stage.send("GET", "/slow", &[], Body::Whole(Bytes::new()));
    assert_eq!(stage.text("/arrived").await, "yes");
    let release = stage.send("GET", "/release", &[], Body::Whole(Bytes::new()));
    stage.handle.stop(StopReason::Drain);
    assert_eq!(stream.answer().await.text(), "late");
    drop(release);
    assert_eq!(stage.ended().await, Outcome::Wanted);
}

async fn after_a_stop_nothing_is_taken(kind: Kind) {
    let mut stage = kind.stage().await;
    stage.handle.stop(StopReason::Sleep);
    let mut late = stage.send("GET", "/ping", &[], Body::Whole(Bytes::new()));
    assert!(late.task.is_none());
    assert_eq!(late.reply().await, StreamReply::Abort);
    let mut late = stage.socket("/socket", &[]);
    assert!(late.stream.task.is_none());
    assert_eq!(late.closed().await.0, Some(1000));
    assert_eq!(stage.ended().await, Outcome::Wanted);
}

async fn sockets_carry_text_and_binary_and_close_from_the_actor(kind: Kind) {
    let stage = kind.stage().await;
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    socket.message("hé", false).await;
    assert_eq!(socket.received().await, (Bytes::from("hé"), false));
    for size in [0, 1, 125, 126, 70_000, 1_000_000] {
        let data = Bytes::from(vec![7; size]);
        socket.message(data.clone(), true).await;
        assert!(socket.received().await == (data, true), "{size} bytes");
    }
    socket.message("close me", false).await;
    assert_eq!(socket.closed().await, (Some(4001), "as you wish".into()));
}

async fn a_socket_closed_by_the_client_leaves_the_actor_well(kind: Kind) {
    let stage = kind.stage().await;
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    socket.close(4002, "enough").await;
    let task = socket.stream.task.take().expect("admitted");
    crate::stage::until(|| task.is_finished()).await;
    assert_eq!(stage.text("/ping").await, "pong");
}

async fn a_refused_socket_opens_and_closes_so_that_nobody_tries_again(kind: Kind) {
    let stage = kind.stage().await;
    let mut socket = stage.socket("/socket?refuse", &[]);
    socket.opened().await;
    assert_eq!(socket.closed().await.0, Some(1008));
}

async fn a_kill_ends_it_at_once(kind: Kind) {
    let mut stage = kind.stage().await;
    let mut socket = stage.socket("/socket", &[]);
    socket.opened().await;
    let began = std::time::Instant::now();
    stage.handle.kill();
    assert_eq!(stage.ended().await, Outcome::Wanted);
    assert!(began.elapsed() < Duration::from_secs(8), "no grace is waited for");
    socket.closed().await;
}

#[tokio::test]
async fn a_panic_ends_the_request_with_a_500_or_the_socket_with_1011_and_nothing_else() {
    let stage = Kind::InProcess.stage().await;
    let answer = stage.get("/panic").await;
    assert_eq!((answer.status, answer.text()), (500, "Internal Server Error"));
    assert_eq!(stage.socket("/socket?panic", &[]).closed().await, (Some(1011), "Server Error".into()));
    assert_eq!(stage.text("/ping").await, "pong");
}
