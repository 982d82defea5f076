//! A runner with one kind of actor, `bench`, for load generators that play the gateway.
//!
//! Takes the variables of `greenroom run` and no flags. Its runner key is random unless `GREENROOM_RUNNER_KEY` is set,
//! and it keeps a data directory only when `GREENROOM_DATA_DIR` is set.
//!
//! | route | answer |
//! |---|---|
//! | `GET /ping` | `pong` |
//! | `POST /echo` | the body |
//! | `GET /bytes/N` | N bytes |
//! | `GET /delay?ms=M` | `pong` after M ms |
//! | `GET /kv?op=put\|get\|list\|delete&n=&c=&batch=&size=` | n operations, c at a time, over 1,000 keys; JSON with `ops_s`, `p50_us`, `p99_us` |
//! | `GET /events?n=N` | 200 after N alarm changes |
//! | `GET /sleep` | 200 after a sleep intent |
//! | WebSocket `/ws` | echo |
//! | WebSocket `/hws` | echo, also while the actor sleeps |

use std::collections::BTreeMap;
use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::StreamExt;
use greenroom::app::{self, Exit};
use greenroom::config::{Command, Environment, Id, RunSettings, Values};
use greenroom::host::in_process::{Actor, InProcess, Message, Open, Response};
use greenroom::host::{ActorContext, EventAnswer, EventError, Frame, Outgoing, Request, WebSocket, WebSocketRequest};
use greenroom::protocol::{KvListQuery, KvRequest};
use greenroom::runner::Exit as RunnerExit;
use greenroom::{kv::KvError, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// As `greenroom` has it.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One thread is enough for handlers that do next to nothing: a second one would cost more to wake than it does.
#[tokio::main(worker_threads = 1)]
async fn main() -> ExitCode {
    let values = Values::collect(&[Command::Run], BTreeMap::new(), Environment::of_process());
    let settings = match RunSettings::new(&values) {
        Ok(settings) => settings,
        Err(mistakes) => return failed(Exit::Misconfigured, mistakes),
    };
    if let Err(error) = telemetry::init(&settings.log) {
        return failed(Exit::Internal, error);
    }
    let mut builder =
        app::runner_builder(&settings).actor("bench", InProcess::new(Bench::start).events_for(is_hibernating));
    if let Some(key) = &settings.runner_key {
        builder = builder.key(key);
    }
    if !values.given(Id::DataDir).is_empty() {
        builder = builder.data_dir(&settings.data_dir);
    }
    let (runner, mut terminate) = match (builder.start(), signal(SignalKind::terminate())) {
        (Ok(runner), Ok(terminate)) => (runner, terminate),
        (Err(error), _) => return failed(Exit::Misconfigured, error),
        (_, Err(error)) => return failed(Exit::Internal, error),
    };
    let exit = tokio::select! {
        exit = runner.wait() => exit,
        _ = terminate.recv() => {
            runner.drain(settings.drain_timeout).await;
            runner.wait().await
        }
    };
    match exit {
        RunnerExit::Refused(reason) => failed(Exit::Refused, reason),
        RunnerExit::Drained | RunnerExit::DrainTimeout { .. } => Exit::Clean.into(),
    }
}

fn failed(exit: Exit, why: impl Display) -> ExitCode {
    eprintln!("bench_app: {why}");
    exit.into()
}

struct Bench {
    context: ActorContext,
}

impl Bench {
    async fn start(context: ActorContext) -> Result<Self, greenroom::host::StartError> {
        Ok(Bench { context })
    }

    async fn events(&self, query: &Query<'_>) -> Result<Response, Failure> {
        for number in 0..query.number("n", 1)? {
            self.context.set_alarm(Some(FAR_AWAY + number)).await.map_err(|gone| Failure(503, gone.to_string()))?;
        }
        Ok(Response::new(200))
    }

    async fn kv(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let load = KvLoad {
            op: query.text("op").unwrap_or("put"),
            count: query.number("n", 1000)?,
            batch: query.number("batch", 1)?,
            value: Bytes::from(vec![b'v'; query.number("size", 100)?]),
        };
        let at_once: usize = query.number("c", 1)?;
        load.request(0)?;
        let begin = Instant::now();
        let load = &load;
        let operations = (0..load.count).map(|number| async move {
            let begin = Instant::now();
            self.context.kv(load.request(number)?).await.map_err(Failure::from)?;
            Ok::<_, Failure>(begin.elapsed())
        });
        let mut operations = futures_util::stream::iter(operations).buffer_unordered(at_once.max(1));
        let mut times = Vec::with_capacity(load.count);
        while let Some(time) = operations.next().await {
            times.push(time?);
        }
        let elapsed = begin.elapsed();
        times.sort_unstable();
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).or(times.last()).map(Duration::as_micros);
        Ok(Response::json(&serde_json::json!({
            "op": load.op,
            "n": load.count,
            "c": at_once,
            "batch": load.batch,
            "size": load.value.len(),
            "seconds": elapsed.as_secs_f64(),
            "ops_s": load.count as f64 / elapsed.as_secs_f64(),
            "p50_us": at(0.5).unwrap_or(0) as u64,
            "p99_us": at(0.99).unwrap_or(0) as u64,
        })))
    }
}

impl Actor for Bench {
    async fn request(&self, request: Request) -> Response {
        let query = Query(request.query());
        let answer = match (&*request.method, request.route()) {
            ("GET", "/ping") => Ok(Response::text(ByteString::from_static("pong"))),
            ("POST", "/echo") => return Response::body(request.body),
            ("GET", "/delay") => match query.number("ms", 0) {
                Ok(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Ok(Response::text(ByteString::from_static("pong")))
                }
                Err(failure) => Err(failure),
            },
            // A load is far larger than the other requests, and not every one of them should have room for it.
            ("GET", "/kv") => Box::pin(self.kv(&query)).await,
            ("GET", "/events") => self.events(&query).await,
            ("GET", "/sleep") => {
                let asked = self.context.sleep().await;
                asked.map(|()| Response::new(200)).map_err(|gone| Failure(503, gone.to_string()))
            }
            ("GET", path) if path.starts_with("/bytes/") => bytes(&path["/bytes/".len()..]),
            _ => Err(Failure(404, "no such route".to_owned())),
        };
        answer.unwrap_or_else(|Failure(status, text)| Response::text(text).status(status))
    }

    async fn websocket(&self, request: WebSocketRequest, mut socket: WebSocket) {
        // Accepted in any case: a gateway would ask again and again for a socket that is closed before. Each call
        // fails only when the runner has stopped, and then there is no client to tell.
        if socket.accept().await.is_err() {
            return;
        }
        let _ = match request.path.split('?').next() {
            Some("/ws") => echo(&mut socket).await,
            _ => socket.close(1008, "there are /ws and /hws").await,
        };
    }

    async fn open(&self, _: Open) -> Result<EventAnswer, EventError> {
        Ok(EventAnswer::taken())
    }

    async fn message(&self, message: Message) -> Result<EventAnswer, EventError> {
        Ok(EventAnswer::reply(Outgoing { data: message.data, binary: message.binary }))
    }
}

/// `/hws` takes its frames as events, and may sleep meanwhile.
fn is_hibernating(request: &WebSocketRequest) -> bool {
    request.path.split('?').next() == Some("/hws")
}

async fn echo(socket: &mut WebSocket) -> Result<(), greenroom::host::Gone> {
    while let Some(Frame::Message { data, binary, .. }) = socket.receive().await {
        match ByteString::try_from(data.clone()) {
            Ok(text) if !binary => socket.send_text(text).await?,
            Ok(_) | Err(_) => socket.send_binary(data).await?,
        }
    }
    Ok(())
}

fn bytes(count: &str) -> Result<Response, Failure> {
    match count.parse() {
        Ok(count) if count <= FILL.len() => Ok(Response::bytes(Bytes::from_static(&FILL[..count]))),
        Ok(count) if count <= 20 * 1024 * 1024 => Ok(Response::bytes(vec![b'x'; count])),
        Ok(_) | Err(_) => Err(Failure(400, "expected a count of at most 20971520".to_owned())),
    }
}

/// The same storage operation again and again.
struct KvLoad<'a> {
    op: &'a str,
    count: usize,
    batch: usize,
    value: Bytes,
}

impl KvLoad<'_> {
    /// The operation of this number; the keys go round.
    fn request(&self, number: usize) -> Result<KvRequest, Failure> {
        let keys = || (0..self.batch).map(|i| Bytes::from(format!("bench/{:03}", (number * self.batch + i) % KEYS)));
        match self.op {
            "put" => Ok(KvRequest::Put { keys: keys().collect(), values: vec![self.value.clone(); self.batch] }),
            "get" => Ok(KvRequest::Get { keys: keys().collect() }),
            "delete" => Ok(KvRequest::Delete { keys: keys().collect() }),
            "list" => {
                let query = KvListQuery::Prefix { key: Bytes::from_static(b"bench/") };
                Ok(KvRequest::List { query, reverse: None, limit: Some(self.batch as u64) })
            }
            _ => Err(Failure(400, "op: expected put, get, list or delete".to_owned())),
        }
    }
}

/// A status and what went wrong.
struct Failure(u16, String);

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        Failure(500, error.to_string())
    }
}

struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(other, _)| *other == name)
            .map(|(_, text)| text)
    }

    fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        match self.text(name) {
            None | Some("") => Ok(default),
            Some(text) => text.parse().map_err(|_| Failure(400, format!("{name}: expected a number"))),
        }
    }
}

const KEYS: usize = 1000;

/// The year 2100, in milliseconds since the epoch: none of these alarms ever fires.
const FAR_AWAY: i64 = 4_102_444_800_000;

static FILL: [u8; 1024 * 1024] = [b'x'; 1024 * 1024];
