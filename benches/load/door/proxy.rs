//! The yardstick: a hyper server, and a hyper reverse proxy before it, each a process of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// Answers `pong` to everything, until it is killed. Prints its address.
pub async fn origin() -> Result<(), String> {
    let listener = listen().await?;
    loop {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        let answer = service_fn(async |_: Request<Incoming>| {
            let answer = Response::builder().header("content-type", "text/plain; charset=utf-8");
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(b"pong"))).expect("a plain answer"))
        });
        tokio::spawn(serve(stream, answer));
    }
}

/// Hands everything on to that address, each connection of a client over one of its own. Prints its address.
pub async fn proxy(to: SocketAddr) -> Result<(), String> {
    let listener = listen().await?;
    loop {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        let onward: Arc<Mutex<Option<SendRequest<Incoming>>>> = Arc::default();
        let answer = service_fn(move |request: Request<Incoming>| {
            let onward = onward.clone();
            async move {
                let mut onward = onward.lock().await;
                if onward.is_none() {
                    *onward = Some(connect(to).await?);
                }
                let sender = onward.as_mut().ok_or("no connection")?;
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await.map_err(|error| error.to_string())
            }
        });
        tokio::spawn(serve(stream, answer));
    }
}

async fn listen() -> Result<TcpListener, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    println!("{}", listener.local_addr().map_err(|error| error.to_string())?);
    Ok(listener)
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Incoming>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn serve<S, B>(stream: TcpStream, service: S)
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // A client that goes away is no news.
    let _ = stream.set_nodelay(true);
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
