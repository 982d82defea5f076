//! The actors of `dev` for those who have none yet: they show what an actor is, and are small enough to read.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::Mutex;

use crate::host::in_process::{Actor, InProcess, Response};
use crate::host::{ActorContext, ActorHost, Frame, KvError, Request, StartError, WebSocket, WebSocketRequest};

/// The demo actors by name.
pub(super) fn hosts() -> Vec<(String, Arc<dyn ActorHost>)> {
    let counter: Arc<dyn ActorHost> = Arc::new(InProcess::new(Counter::start));
    let echo: Arc<dyn ActorHost> = Arc::new(InProcess::new(|_: ActorContext| async { Ok(Echo) }));
    vec![("counter".to_owned(), counter), ("echo".to_owned(), echo)]
}

/// Counts requests and socket messages, over sleep and restarts.
struct Counter {
    context: ActorContext,
    /// As stored. Locked while a change is written, so that each answer is another count.
    count: Mutex<u64>,
}

impl Counter {
    async fn start(context: ActorContext) -> Result<Self, StartError> {
        let stored =
            context.get(KEY).await.map_err(|error| StartError(format!("the count cannot be read: {error}")))?;
        let count = stored.as_deref().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        Ok(Counter { context, count: Mutex::new(count.unwrap_or(0)) })
    }

    async fn change(&self, compute: impl FnOnce(u64) -> u64) -> Result<u64, KvError> {
        let mut count = self.count.lock().await;
        let value = compute(*count);
        self.context.put(KEY, value.to_string()).await?;
        *count = value;
        Ok(value)
    }
}

impl Actor for Counter {
    async fn request(&self, request: Request) -> Response {
        let counted = match (&*request.method, request.route()) {
            ("GET", "/") => self.change(|count| count.wrapping_add(1)).await,
            ("POST", "/reset") => self.change(|_| 0).await,
            ("GET", "/sleep") => {
                let asked = self.context.sleep().await;
                return asked.map_or_else(
                    |gone| Response::text(gone.to_string()).status(503),
                    |()| Response::text("going to sleep\n").status(202),
                );
            }
            _ => return Response::text("there is /, /reset (POST), /sleep and /ws\n").status(404),
        };
        counted.map_or_else(Response::from, |count| Response::text(format!("{count}\n")))
    }

    async fn websocket(&self, _: WebSocketRequest, mut socket: WebSocket) {
        // Each call fails only when the runner has stopped, and then there is no client to tell.
        if socket.accept().await.is_err() {
            return;
        }
        while let Some(Frame::Message { data, .. }) = socket.receive().await {
            let Ok(count) = self.change(|count| count.wrapping_add(1)).await else {
                let _ = socket.close(1011, "the count cannot be stored").await;
                return;
            };
            let text = format!("{count} {}", String::from_utf8_lossy(&data));
            if socket.send_text(text).await.is_err() {
                return;
            }
        }
    }
}

/// Answers with what it was sent.
struct Echo;

impl Actor for Echo {
    async fn request(&self, request: Request) -> Response {
        if &*request.method == "GET" {
            return Response::text(format!("{} {}\n", request.method, request.path));
        }
        let content_type = request.header("content-type").map(str::to_owned);
        let response = Response::body(request.body);
        match content_type {
            Some(content_type) => response.header("content-type", content_type),
            None => response,
        }
    }

    async fn websocket(&self, _: WebSocketRequest, mut socket: WebSocket) {
        // Each call fails only when the runner has stopped, and then there is no client to tell.
        if socket.accept().await.is_err() {
            return;
        }
        while let Some(Frame::Message { data, binary, .. }) = socket.receive().await {
            let sent = match ByteString::try_from(data.clone()) {
                Ok(text) if !binary => socket.send_text(text).await,
                Ok(_) | Err(_) => socket.send_binary(data).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

const KEY: &str = "count";
