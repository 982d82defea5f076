//! Events as `POST /_actor`, and answers back.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use greenroom_protocol::limits::PAYLOAD_MAX;
use greenroom_protocol::{Headers, StreamId};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};

use super::headers::{self, Identity, printable};
use super::{App, AppError, Outbound};
use crate::host::{Delivery, Event, EventAnswer, EventError, Outgoing};

impl App {
    /// Tells the app something and reads its answer.
    pub(in crate::host) async fn tell(&self, delivery: Delivery) -> Result<EventAnswer, EventError> {
        let (headers, body) = event_of(delivery, &self.identity)?;
        let mut request = hyper::Request::new(Outbound::whole(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/_actor");
        *request.headers_mut() = headers;
        let failed = |error: AppError| {
            self.site.doubt();
            EventError::Failed(error.to_string())
        };
        let (response, mut connection) = self.exchange(request).await.map_err(failed)?;
        let (head, mut body) = response.into_parts();
        let mut text = BytesMut::new();
        loop {
            match connection.piece(&mut body).await {
                Some(Ok(piece)) if text.len() + piece.len() > PAYLOAD_MAX => {
                    return Err(EventError::Failed("answered with more than 20 MiB".to_owned()));
                }
                Some(Ok(piece)) => text.extend_from_slice(&piece),
                Some(Err(error)) => return Err(failed(error.into())),
                None => break,
            }
        }
        self.site.pool.put_back(connection).await;
        answer_of(head.status, &head.headers, text.freeze())
    }
}

/// What an event looks like over HTTP.
pub(in crate::host) fn event_of(delivery: Delivery, identity: &Identity) -> Result<(HeaderMap, Bytes), EventError> {
    let Delivery { event, attempt } = delivery;
    let (word, mut headers, body) = request(event).map_err(EventError::Failed)?;
    headers.insert("actor-event", HeaderValue::from_static(word));
    headers.insert("actor-attempt", HeaderValue::from(attempt));
    identity.add_to(&mut headers);
    Ok((headers, body))
}

/// What the answer to an event says.
pub(in crate::host) fn answer_of(
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<EventAnswer, EventError> {
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body[..body.len().min(REASON_READ)]).into_owned();
        return Err(EventError::Refused { status: status.as_u16(), text });
    }
    answer(headers, body).map_err(EventError::Failed)
}

/// What a client's request looks like as an event.
///
/// # Errors
/// What is wrong with it, for a 400.
pub(in crate::host) fn client_request(
    identity: &Identity,
    method: &str,
    path: &str,
    clients: &Headers,
    stream: StreamId,
) -> Result<HeaderMap, String> {
    let mut headers = headers::from_client(clients)?;
    identity.add_to_request(&mut headers, stream);
    headers.insert("actor-event", HeaderValue::from_static("request"));
    headers.insert("actor-attempt", HeaderValue::from(1));
    headers.insert("actor-method", printable(method));
    headers.insert("actor-path", printable(path));
    Ok(headers)
}

/// The event's name, its headers and its body.
fn request(event: Event) -> Result<(&'static str, HeaderMap, Bytes), String> {
    let mut headers = HeaderMap::new();
    let (word, body) = match event {
        Event::Open { socket, path, headers: clients } => {
            headers = headers::from_client(&clients)?;
            headers.insert("actor-ws-id", socket_id(socket));
            headers.insert("actor-ws-path", printable(&path));
            ("open", Bytes::new())
        }
        Event::Message { socket, seq, data, binary } => {
            headers.insert("actor-ws-id", socket_id(socket));
            headers.insert("actor-ws-seq", HeaderValue::from(seq));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(binary)));
            ("message", data)
        }
        Event::Close { socket, code, reason } => {
            headers.insert("actor-ws-id", socket_id(socket));
            headers.insert("actor-ws-code", HeaderValue::from(code));
            headers.insert("actor-ws-reason", printable(&reason));
            ("close", Bytes::new())
        }
        Event::Alarm { name, data, missed } => {
            headers.insert("actor-alarm", printable(&name));
            headers.insert("actor-missed", HeaderValue::from(missed));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(true)));
            ("alarm", data)
        }
    };
    headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    Ok((word, headers, body))
}

/// What a 2xx answer says.
fn answer(headers: &HeaderMap, body: Bytes) -> Result<EventAnswer, String> {
    let text = |name: HeaderName| match headers.get(name).map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err("answered with a header of ours that is not plain text".to_owned()),
    };
    let reply = if body.is_empty() { None } else { Some(frame(headers, body)?) };
    let tags = text(TAGS)?.unwrap_or_default().split(',').map(str::trim).filter(|tag| !tag.is_empty());
    let tags = tags.map(ByteString::from).collect();
    let close = text(CLOSE)?.map(close).transpose()?;
    Ok(EventAnswer { reply, tags, close })
}

/// A body as a frame. What says that it is text is text, the rest is binary; so is what says nothing.
fn frame(headers: &HeaderMap, data: Bytes) -> Result<Outgoing, String> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = is_text(kind);
    if text && std::str::from_utf8(&data).is_err() {
        return Err(format!("answered with content type {kind} and a body that is not UTF-8"));
    }
    Ok(Outgoing { data, binary: !text })
}

/// Whether a frame of this content type goes out as text.
#[must_use]
pub fn is_text(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/") || essence == "application/json" || essence.ends_with("+json")
}

fn close(value: &str) -> Result<(u16, ByteString), String> {
    let (code, reason) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    let code = code.parse().map_err(|_| format!("answered with Actor-Ws-Close: {value:?}, not like `1000 bye`"))?;
    Ok((code, reason.trim().into()))
}

fn socket_id(socket: StreamId) -> HeaderValue {
    printable(&socket.to_string())
}

fn content_type(binary: bool) -> &'static str {
    if binary { "application/octet-stream" } else { "text/plain; charset=utf-8" }
}

const TAGS: HeaderName = HeaderName::from_static("actor-ws-tags");
const CLOSE: HeaderName = HeaderName::from_static("actor-ws-close");

/// How much of a refusal is read, in bytes: enough for a reason.
const REASON_READ: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&'static str, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_content_type_picks_text_or_binary() {
        for text in ["text/plain", "text/html; charset=utf-8", "Application/JSON", "application/problem+json"] {
            assert!(is_text(text), "{text}");
        }
        for binary in ["", "application/octet-stream", "image/png", "x/text"] {
            assert!(!is_text(binary), "{binary}");
        }
        let text = with(&[("content-type", "text/plain")]);
        assert!(answer(&text, Bytes::from_static(&[0xff])).unwrap_err().contains("UTF-8"));
        assert_eq!(answer(&text, Bytes::new()).unwrap(), EventAnswer::default());
    }

    #[test]
    fn tags_and_a_close_are_read_and_nonsense_is_refused() {
        let headers = with(&[("actor-ws-tags", " a, room:1 ,,"), ("actor-ws-close", "4001 bye bye")]);
        let answer = super::answer(&headers, Bytes::new()).unwrap();
        assert_eq!(answer.tags, ["a", "room:1"]);
        assert_eq!(answer.close, Some((4001, "bye bye".into())));
        assert_eq!(close("1000"), Ok((1000, "".into())));
        for nonsense in ["", "bye", "70000 x", "-1"] {
            assert!(close(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_client_cannot_pretend_to_be_an_event() {
        let socket = StreamId { gateway: [1; 4], request: [2; 4] };
        let clients = [("actor-event", "alarm"), ("Actor-Ws-Id", "x"), ("cookie", "a=1"), ("content-length", "7")];
        let headers = clients.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (word, headers, _) = request(Event::Open { socket, path: "/r?n=ü".into(), headers }).unwrap();
        assert_eq!(word, "open");
        assert!(headers.get("actor-event").is_none() && headers.get("content-length").is_none());
        assert_eq!(headers["actor-ws-id"], socket.to_string());
        assert_eq!(headers["actor-ws-path"], "/r?n=%C3%BC");
        assert_eq!(headers["cookie"], "a=1");
    }
}
