//! Connections in, requests out to where they belong.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::{Listener, PeerAddr, ResponseBody, upgrade};
use crate::gateway::Id;
use crate::gateway::refusal::RIVET_RAY;

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
    if let Err(error) = set_options(&stream) {
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
        let mut response = upgrade::accept(listener, request);
        response.headers_mut().insert(RIVET_RAY, Id::from_random(rand::random()).into());
        return Ok(response);
    }
    request.extensions_mut().insert(peer);
    Ok((listener.routes)(request).await)
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // Small messages must not wait for each other's acknowledgement.
    stream.set_nodelay(true)?;
    // Whoever vanished without a word, or takes nothing of what is sent, must not hold its socket and all that waits
    // for it for ever: neither HTTP nor a WebSocket would ever notice.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE / 4)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(50);
/// From the first byte of a request's head, or the end of the response before, to the end of the head.
const HEADER_TIMEOUT: Duration = Duration::from_mins(2);
/// Without a sign of life for this long a peer is looked for, and given up after as long again; what was sent has to be
/// taken within it.
const SILENCE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanishes_is_noticed_by_the_system() {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a connection");
        set_options(&client).expect("options");
        assert!(sockopt::socket_keepalive(&client).expect("readable"));
        assert_eq!(sockopt::tcp_keepidle(&client).expect("readable"), SILENCE);
        #[cfg(target_os = "linux")]
        assert_eq!(sockopt::tcp_user_timeout(&client).expect("readable"), 60_000);
    }
}
