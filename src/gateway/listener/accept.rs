//! Connections in, requests out to where they belong.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::header::{HeaderValue, ORIGIN, RETRY_AFTER, UPGRADE};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, warn};

use super::patient::{Answer, Answering, Patient};
use super::rates::TooMany;
use super::{Listener, Place, ResponseBody, upgrade};
use crate::gateway::Id;
use crate::gateway::ingress::cors;
use crate::gateway::refusal::{RIVET_RAY, Refusal};

pub(super) async fn run(listener: &Arc<Listener>, socket: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = listener.closing.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&listener.places).try_acquire_owned() else {
                    refuse(&stream);
                    continue;
                };
                let connection = serve(Arc::clone(listener), stream, peer.ip(), place);
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

async fn serve(listener: Arc<Listener>, stream: TcpStream, peer: IpAddr, place: OwnedSemaphorePermit) {
    if let Err(error) = set_options(&stream) {
        debug!(%error, "socket option not set");
    }
    let answering = Answering::default();
    let place = Place::new(place);
    let stream = Patient::new(stream, listener.settings.head_timeout, listener.settings.idle_timeout, &answering);
    let service = service_fn(|request| route(&listener, request, peer, &answering, &place));
    // A head has a hundred headers at most, which is the library's own limit: one that it is given, it clears room for
    // with every request. More are refused with 431.
    let connection = http1::Builder::new()
        // That is the connection's own affair, which does not set a timer for every request.
        .header_read_timeout(None)
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
    peer: IpAddr,
    answering: &Answering,
    place: &Place,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut answer = answering.begin();
    if let Some(rates) = &listener.rates {
        match rates.admit(peer, Instant::now()) {
            Ok(in_flight) => answer.counts(in_flight),
            Err(too_many) => return Ok(limited(too_many, request.headers().get(ORIGIN).cloned())),
        }
    }
    if upgrade::is_for_runners(&request) {
        let mut response = upgrade::accept(listener, request, place);
        response.headers_mut().insert(RIVET_RAY, Id::from_random(rand::random()).into());
        return Ok(finish(response, answer));
    }
    if request.headers().contains_key(UPGRADE) {
        request.extensions_mut().insert(place.clone());
    }
    Ok(finish((listener.routes)(request).await, answer))
}

fn finish(response: Response<ResponseBody>, answer: Answer) -> Response<ResponseBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        answer.for_ever();
        return response;
    }
    response.map(|body| answer.with(body))
}

/// Tells a client that it asks too much.
fn limited(too_many: TooMany, origin: Option<HeaderValue>) -> Response<ResponseBody> {
    let (text, wait) = match too_many {
        TooMany::Requests(wait) => ("Too many requests from this address.", wait.as_secs() + 1),
        TooMany::InFlight => ("Too many requests from this address are waiting for their answer.", 1),
    };
    let mut response = Refusal::new("guard", "rate_limit", text).into_guard_response();
    response.headers_mut().insert(RETRY_AFTER, wait.into());
    response.headers_mut().insert(RIVET_RAY, Id::from_random(rand::random()).into());
    cors::allow(response.headers_mut(), origin);
    response.map(|body| Full::new(body).map_err(|never| match never {}).boxed())
}

/// Tells a client that there are too many connections, in the one packet that a new connection is sure to take.
fn refuse(stream: &TcpStream) {
    let refusal = Refusal::new("guard", "service_unavailable", "The gateway has as many connections as it may have.");
    let body = refusal.into_guard_response().into_body();
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nx-rivet-error: \
         guard.service_unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    // Who does not get it sees a closed connection.
    let _ = stream.try_write(&answer);
    debug!("a connection too many was closed");
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
