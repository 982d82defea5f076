//! Servers outside, played by the test: a control plane that is unwell, and a pool of backends.

use std::convert::Infallible;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use greenroom::report::{Patch, WorkerState};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How a control plane answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Takes,
    /// Applies the report, and answers with an error.
    Fails,
    Refuses,
    /// Applies the report and never answers.
    Hangs,
    /// Answers with something that is no HTTP, without applying.
    Garbage,
}

/// What a control plane has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub state: WorkerState,
    pub in_flight: usize,
    pub most_in_flight: usize,
    /// Requests by the mood they met, and their heads.
    pub requests: Vec<(Mood, String)>,
    /// Every `worker_status` that was applied, without repeats.
    pub statuses: Vec<String>,
}

/// A control plane: raw HTTP, so that it can be as unwell as it likes.
pub struct ControlPlane {
    pub address: SocketAddr,
    pub mood: watch::Sender<Mood>,
    pub seen: watch::Sender<Seen>,
    /// Connections whose requests are never answered.
    hung: Hung,
    tasks: JoinSet<()>,
}

type Hung = Arc<Mutex<Vec<std::net::TcpStream>>>;

impl ControlPlane {
    pub async fn start() -> Self {
        let (mood, seen) = (watch::channel(Mood::Takes).0, watch::channel(Seen::default()).0);
        let mut plane = ControlPlane {
            address: ([127, 0, 0, 1], 0).into(),
            mood,
            seen,
            hung: Hung::default(),
            tasks: JoinSet::new(),
        };
        plane.listen().await;
        plane
    }

    /// Stops listening and breaks every connection; what it knows stays.
    pub async fn crash(&mut self) {
        self.tasks.shutdown().await;
        self.hung.lock().unwrap().clear();
        self.seen.send_modify(|seen| seen.in_flight = 0);
    }

    /// Listens, at the same address as before.
    pub async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (mood, seen, hung) = (self.mood.clone(), self.seen.clone(), self.hung.clone());
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, mood.clone(), seen.clone(), hung.clone()));
            }
        });
    }

    /// Waits until what it has seen is like this.
    pub async fn until(&self, what: &str, like: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| like(seen))).await;
        match found {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("{what}: {:#?}", self.seen.borrow()),
        }
    }
}

async fn answer(mut stream: TcpStream, mood: watch::Sender<Mood>, seen: watch::Sender<Seen>, hung: Hung) {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut piece = [0; 4096];
        let Ok(length @ 1..) = stream.read(&mut piece).await else { return };
        request.extend_from_slice(&piece[..length]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(request[..end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if request.len() >= end + 4 + length.parse::<usize>().unwrap() {
            break (head, request[end + 4..].to_vec());
        }
    };
    let mood = *mood.borrow();
    sweep(&hung, &seen);
    seen.send_modify(|seen| {
        seen.in_flight += 1;
        seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
        seen.requests.push((mood, head));
        if matches!(mood, Mood::Takes | Mood::Fails | Mood::Hangs) {
            let patch: Value = serde_json::from_slice(&body).unwrap();
            if let Some(status) = patch["worker_status"].as_str()
                && seen.statuses.last().is_none_or(|last| last != status)
            {
                seen.statuses.push(status.to_owned());
            }
            seen.state.apply(Patch::from_json(patch).unwrap());
        }
        // Whoever gets an answer may begin the next request before this task goes on.
        if mood != Mood::Hangs {
            seen.in_flight -= 1;
        }
    });
    let answer: &[u8] = match mood {
        Mood::Takes => b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nignored",
        Mood::Fails => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        Mood::Refuses => b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
        Mood::Garbage => b"\x00\xff not HTTP at all\r\n\r\n",
        Mood::Hangs => {
            let stream = stream.into_std().unwrap();
            hung.lock().unwrap().push(stream.try_clone().unwrap());
            // Until the other side gives up.
            let _ = TcpStream::from_std(stream).unwrap().read(&mut [0; 16]).await;
            sweep(&hung, &seen);
            return;
        }
    };
    let _ = stream.write_all(answer).await;
}

/// Forgets the requests whose connections were closed, as far as the system knows.
fn sweep(hung: &Hung, seen: &watch::Sender<Seen>) {
    hung.lock().unwrap().retain_mut(|stream| {
        let open = matches!(stream.read(&mut [0; 16]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        if !open {
            seen.send_modify(|seen| seen.in_flight -= 1);
        }
        open
    });
}

/// What a backend pool was asked: head and body of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// A pool of backends behind one address. The path says what the answer is.
///
/// `/backend/A/K`: answered by backend A with cache key K; `/echo` sends the body back as it comes; `/redirect`;
/// `/silent` never answers; `/stall` sends a piece and then nothing; anything else: 200.
#[derive(Clone)]
pub struct Pool {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Pool {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let pool = Pool { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let serving = pool.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let pool = serving.clone();
                let service = service_fn(move |request| {
                    let pool = pool.clone();
                    async move { Ok::<_, Infallible>(pool.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        pool
    }

    /// The last request.
    pub fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().expect("it was asked").clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, hyper::Error>> {
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        let path = request.uri().to_string();
        self.asked.lock().unwrap().push(Asked { method: request.method().to_string(), path: path.clone(), headers });
        let whole = |body: String| Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        let route: Vec<&str> = path.split('?').next().unwrap().trim_start_matches("/v1").split('/').skip(1).collect();
        match route[..] {
            ["echo"] => Response::new(request.into_body().boxed_unsync()),
            ["backend", name, key] => Response::builder()
                .header("x-backend", name)
                .header("x-cache-key", key)
                .header("connection", "close, x-hop")
                .header("x-hop", "1")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2")
                .body(whole(json!({ "by": name }).to_string()))
                .unwrap(),
            ["redirect"] => Response::builder()
                .status(StatusCode::FOUND)
                .header("location", "http://169.254.169.254/")
                .body(whole(String::new()))
                .unwrap(),
            ["silent"] => std::future::pending().await,
            ["stall"] => {
                let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"data: 1\n\n")))]);
                let stream = futures_util::StreamExt::chain(first, futures_util::stream::pending());
                Response::new(StreamBody::new(stream).boxed_unsync())
            }
            _ => {
                // Large bodies are read before they are answered.
                let _ = request.into_body().collect().await;
                Response::new(whole("fine".to_owned()))
            }
        }
    }
}

/// Far more than any of this takes; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);
