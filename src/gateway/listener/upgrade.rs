//! A runner's way from an HTTP request to a socket.
//!
//! Whatever is wrong with the request is told with the close frame of an accepted socket, as the engine does: a runner
//! sees close reasons, not HTTP statuses.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use greenroom_protocol::features::FEATURES_HEADER;
use greenroom_protocol::limits::FRAME_MAX;
use greenroom_protocol::{Features, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::debug;

use super::patient::Patient;
use super::{Listener, Place, ResponseBody};
use crate::gateway::connection::{self, Inlet};
use crate::gateway::core::Hello;

/// Whether a request is meant for the runners' socket.
pub(super) fn is_for_runners(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    path == PATH || path.strip_suffix('/') == Some(PATH) || subprotocols(request.headers()).any(|p| p == TARGET_RUNNER)
}

/// Answers the request; an upgrade goes on as a task of the listener.
pub(super) fn accept(
    listener: &Arc<Listener>,
    mut request: Request<Incoming>,
    place: &Place,
) -> Response<ResponseBody> {
    let headers = request.headers();
    let Some(key) = websocket_key(headers) else {
        return text(StatusCode::OK, "Runners connect here, with a WebSocket.\n");
    };
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = text(StatusCode::UPGRADE_REQUIRED, "Only version 13 of the WebSocket protocol is spoken.\n");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let features = features(headers);
    // Programs that are runners send no Origin; a page that does is none of this machine's.
    let allowed = listener.settings.allowed_hosts.check(&request).map_err(|_| FORBIDDEN);
    let admitted = allowed.and_then(|()| check_token(listener, headers)).and_then(|()| {
        let (namespace, key, version) = read_query(request.uri().query().unwrap_or_default())?;
        Ok(Hello { namespace, key, version, features })
    });

    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let answer = response.headers_mut();
    answer.remove(CONTENT_TYPE);
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("rivet"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(granted) = granted(features) {
        answer.insert(FEATURES, granted);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let task = serve(Arc::clone(listener), upgrade, admitted, place.clone());
    listener.tasks.spawn(listener.ended.clone().run_until_cancelled_owned(task));
    response
}

async fn serve(listener: Arc<Listener>, upgrade: OnUpgrade, admitted: Result<Hello, &'static str>, _place: Place) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "runner left during the upgrade"),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_frame_size(Some(FRAME_MAX))
        .max_message_size(Some(FRAME_MAX));
    let Some((stream, read)) = plain(upgraded) else { return };
    // The library's buffer keeps to the size of what it is begun with: begun with nothing, it would take two reads for
    // each message ever after.
    let socket = if read.is_empty() {
        WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
    } else {
        WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await
    };
    serve_socket(&listener, socket, admitted).await;
}

/// The plain socket of a connection, without the layers that HTTP needed, and what was read of it beyond its request.
/// `None` for one that is no client's of a listener.
pub(in crate::gateway) fn plain(upgraded: Upgraded) -> Option<(TcpStream, Vec<u8>)> {
    let (stream, read) = match upgraded.downcast::<TokioIo<Patient>>() {
        Ok(parts) => (parts.io.into_inner().into_inner(), parts.read_buf),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
            (parts.io.into_inner(), parts.read_buf)
        }
    };
    Some((stream, read.to_vec()))
}

async fn serve_socket(listener: &Listener, socket: WebSocketStream<TcpStream>, admitted: Result<Hello, &'static str>) {
    match admitted {
        Ok(hello) => {
            let inlet = Inlet {
                orders: listener.gateway.orders().clone(),
                memory: listener.gateway.memory().clone(),
                connection: listener.next_connection(),
                write_timeout: listener.settings.write_timeout,
            };
            connection::serve(socket, hello, inlet, listener.ended.child_token()).await;
        }
        Err(reason) => {
            debug!(reason, "runner refused");
            connection::refuse(socket, 1011, reason).await;
        }
    }
}

fn check_token(listener: &Listener, headers: &HeaderMap) -> Result<(), &'static str> {
    let Some(expected) = &listener.settings.admin_token else { return Ok(()) };
    let Some(given) = subprotocols(headers).find_map(|protocol| protocol.strip_prefix(TOKEN)) else {
        return Err("guard.missing_header");
    };
    // Compared in constant time, so that the time taken tells nothing of how much was right.
    if bool::from(given.as_bytes().ct_eq(expected.expose_secret().as_bytes())) { Ok(()) } else { Err(FORBIDDEN) }
}

/// Namespace, runner key and protocol version.
fn read_query(query: &str) -> Result<(String, String, Version), &'static str> {
    let mut namespace = None;
    let mut key = None;
    let mut version = None;
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decode(value).ok_or(INVALID_URL)?;
        match name {
            "namespace" => namespace = Some(value.into_owned()),
            "runner_key" => key = Some(value.into_owned()),
            "protocol_version" => version = Some(value.parse::<u16>().map_err(|_| INVALID_URL)?),
            _ => {}
        }
    }
    let (Some(namespace), Some(key), Some(version)) = (namespace, key, version) else { return Err(INVALID_URL) };
    let version = Version::try_from(version).map_err(|_| "ws.unsupported_protocol_version")?;
    Ok((namespace, key, version))
}

/// A value of a query: percent-encoded, with a plus for a space.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if value.contains('+') {
        let spaced = value.replace('+', " ");
        return percent_decode_str(&spaced).decode_utf8().ok().map(|value| Cow::Owned(value.into_owned()));
    }
    percent_decode_str(value).decode_utf8().ok()
}

/// What both ends know.
fn features(headers: &HeaderMap) -> Features {
    let offered: Vec<&str> = headers.get_all(FEATURES).iter().filter_map(|value| value.to_str().ok()).collect();
    Features::parse(&offered.join(","))
}

fn granted(features: Features) -> Option<HeaderValue> {
    if features.are_none() { None } else { HeaderValue::from_str(&features.to_string()).ok() }
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The key of a WebSocket upgrade, when the request is one.
fn websocket_key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let says = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    if says(CONNECTION, "upgrade") && says(UPGRADE, "websocket") { headers.get(SEC_WEBSOCKET_KEY) } else { None }
}

fn text(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Where runners connect.
const PATH: &str = "/runners/connect";
/// The subprotocol that means runners on any path.
const TARGET_RUNNER: &str = "rivet_target.runner";
/// The subprotocol that carries a token.
const TOKEN: &str = "rivet_token.";
/// What both ends understand beyond the protocol.
const FEATURES: HeaderName = HeaderName::from_static(FEATURES_HEADER);
const FORBIDDEN: &str = "api.forbidden";
const INVALID_URL: &str = "ws.invalid_url";

/// The most that is read from a runner at once, in bytes. The WebSocket library clears as much before every try to read,
/// also when there is nothing.
const READ_BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_namespace_key_and_version() {
        assert_eq!(
            read_query("protocol_version=7&namespace=a%20b+c&runner_key=%C3%A9"),
            Ok(("a b c".to_owned(), "é".to_owned(), Version::V7))
        );
        assert_eq!(
            read_query("runner_key=&namespace=n&protocol_version=4"),
            Ok(("n".into(), String::new(), Version::V4))
        );
        for bad in [
            "",
            "namespace=n&runner_key=k",
            "protocol_version=7&runner_key=k",
            "protocol_version=7&namespace=n",
            "protocol_version=x&namespace=n&runner_key=k",
            "protocol_version=70000&namespace=n&runner_key=k",
            "protocol_version=7&namespace=%ff&runner_key=k",
        ] {
            assert_eq!(read_query(bad), Err("ws.invalid_url"), "{bad}");
        }
        for version in [0, 3, 8] {
            let query = format!("protocol_version={version}&namespace=n&runner_key=k");
            assert_eq!(read_query(&query), Err("ws.unsupported_protocol_version"));
        }
    }
}
