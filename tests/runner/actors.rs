//! The actors that the tests run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::actor::StopReason;
use greenroom::host::in_process::{Actor, InProcess, Response};
use greenroom::host::{ActorContext, Body, Frame, Request, StartError, WebSocket, WebSocketRequest};
use greenroom::runner::{Builder, Runner};
use tokio::sync::Semaphore;

use crate::gateway::{Gateway, PATIENCE};

/// What the actors of a test did, and what holds them up.
#[derive(Clone)]
pub struct Stage {
    lines: Arc<Mutex<Vec<String>>>,
    /// Actors named `gated` start with a permit of this each.
    pub gate: Arc<Semaphore>,
}

impl Stage {
    pub fn new() -> Self {
        Stage { lines: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    /// A runner for this gateway with the actors `probe`, `gated`, `failing`, `stubborn`.
    pub fn runner(&self, gateway: &Gateway) -> Builder {
        let probe = |kind: Kind| {
            let stage = self.clone();
            InProcess::new(move |context: ActorContext| Probe::start(context, stage.clone(), kind))
        };
        Runner::builder(gateway.endpoint())
            .actor("probe", probe(Kind::Plain))
            .actor("gated", probe(Kind::Gated))
            .actor("failing", probe(Kind::Failing))
            .actor("stubborn", probe(Kind::Stubborn).stop_grace(Duration::from_millis(300)))
    }

    /// What happened so far, and is forgotten by this.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    /// Waits until this has happened.
    pub async fn noted(&self, line: &str) {
        let noted = async {
            while !self.lines.lock().unwrap().iter().any(|noted| noted == line) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, noted).await.unwrap_or_else(|_| panic!("no `{line}` in {:?}", self.take()));
    }

    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Gated,
    Failing,
    Stubborn,
}

struct Probe {
    context: ActorContext,
    stage: Stage,
    kind: Kind,
}

impl Probe {
    async fn start(context: ActorContext, stage: Stage, kind: Kind) -> Result<Self, StartError> {
        match kind {
            Kind::Plain | Kind::Stubborn => {}
            Kind::Gated => stage.gate.acquire().await.map_err(StartError::new)?.forget(),
            Kind::Failing => return Err(StartError::new("no such luck")),
        }
        stage.note(format!("start {}", context.key()));
        Ok(Probe { context, stage, kind })
    }
}

impl Actor for Probe {
    async fn request(&self, mut request: Request) -> Response {
        let number = || request.query().parse::<usize>().expect("a number in the query");
        match request.route() {
            "/who" => Response::text(self.context.key().to_string()),
            "/echo" => Response::body(request.body).header("x-test", "no"),
            "/headers" => {
                let lines = request.headers.iter().map(|(name, value)| format!("{name}={value}"));
                Response::text(lines.collect::<Vec<_>>().join(";"))
                    .header("set-cookie", "a=1")
                    .header("set-cookie", "b=2")
            }
            "/length" => {
                let body = std::mem::replace(&mut request.body, Body::Whole(bytes::Bytes::new()));
                match body.collect().await {
                    Ok(body) => Response::text(body.len().to_string()),
                    Err(error) => Response::text(error.to_string()).status(400),
                }
            }
            "/bytes" => Response::bytes(vec![b'x'; number()]),
            "/pieces" => {
                let pieces = number();
                Response::stream(move |mut writer| async move {
                    for piece in 0..pieces {
                        writer.chunk(format!("piece {piece};").into()).await?;
                    }
                    Ok(writer.finish().await?)
                })
            }
            "/breaks-off" => Response::stream(|mut writer| async move {
                writer.chunk("the beginning".into()).await?;
                Err(std::io::Error::other("no more").into())
            }),
            "/huge-head" => Response::text("x").header("x-huge", "h".repeat(33 << 20)),
            "/panic" => panic!("as asked"),
            "/never" => {
                let _cancelled = NoteOnDrop(self.stage.clone(), "cancelled");
                self.stage.note("never".to_owned());
                std::future::pending().await
            }
            "/put" => match self.context.put(request.query().to_owned(), "value").await {
                Ok(()) => Response::text("stored"),
                Err(error) => error.into(),
            },
            "/get" => match self.context.get(request.query().to_owned()).await {
                Ok(Some(value)) => Response::bytes(value),
                Ok(None) => Response::new(404),
                Err(error) => error.into(),
            },
            "/sleep" => match self.context.sleep().await {
                Ok(()) => Response::text("good night"),
                Err(error) => Response::text(error.to_string()).status(500),
            },
            other => Response::text(format!("no {other} here")).status(404),
        }
    }

    async fn websocket(&self, request: WebSocketRequest, mut socket: WebSocket) {
        if request.path.starts_with("/refuse") {
            let _ = socket.close(4001, "not you").await;
            return;
        }
        let _ = socket.accept().await;
        if request.path.starts_with("/deaf") {
            return std::future::pending().await;
        }
        while let Some(frame) = socket.receive().await {
            match frame {
                Frame::Message { data, binary: true, .. } => {
                    let _ = socket.send_binary(data).await;
                }
                Frame::Message { data, binary: false, .. } => {
                    let text = String::from_utf8(data.to_vec()).expect("text");
                    match text.as_str() {
                        "close" => {
                            let _ = socket.close(4000, "as asked").await;
                            return;
                        }
                        "panic" => panic!("as asked"),
                        _ => {
                            let _ = socket.send_text(text).await;
                        }
                    }
                }
                Frame::Closed { code, reason } => {
                    return self.stage.note(format!("closed {code:?} {}", reason.unwrap_or_default()));
                }
            }
        }
    }

    async fn stop(&self, reason: StopReason) {
        match self.kind {
            Kind::Stubborn => std::future::pending().await,
            Kind::Plain | Kind::Gated | Kind::Failing => {
                self.stage.note(format!("stop {} {}", self.context.key(), reason.as_str()));
            }
        }
    }
}

struct NoteOnDrop(Stage, &'static str);

impl Drop for NoteOnDrop {
    fn drop(&mut self) {
        self.0.note(self.1.to_owned());
    }
}
