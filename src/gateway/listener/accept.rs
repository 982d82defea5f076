//! Connections in, requests out to where they belong.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::{Listener, PeerAddr, ResponseBody, upgrade};

pub(super) async fn run(listener: &Arc<Listener>, socket: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = listener.closing.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = serve(Arc::clone(listener), stream, PeerAddr(peer));
                listener.tasks.spawn(listener.ended.clone().run_until_cancelled_owned(connection));
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                // Too many open files, mostly: what is open has to end first.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(listener: Arc<Listener>, stream: TcpStream, peer: PeerAddr) {
    // Small messages must not wait for each other's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "socket option not set");
    }
    let service = service_fn(|request| route(&listener, request, peer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = listener.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%error, "connection ended early");
    }
}

async fn route(
    listener: &Arc<Listener>,
    mut request: Request<Incoming>,
    peer: PeerAddr,
) -> Result<Response<ResponseBody>, Infallible> {
    if upgrade::is_for_runners(&request) {
        return Ok(upgrade::accept(listener, request));
    }
    request.extensions_mut().insert(peer);
    Ok((listener.routes)(request).await)
}

/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(50);
/// From the first byte of a request's head, or the end of the response before, to the end of the head.
const HEADER_TIMEOUT: Duration = Duration::from_mins(2);
