//! Which headers pass between clients and apps, and which are ours.
//!
//! Nothing that frames a message passes: lengths and transfer encodings are made anew on each side, so that a client
//! and an app can never disagree through us on where a message ends.

use std::net::SocketAddr;

use greenroom_protocol::{Headers, StreamId};
use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

use crate::host::StartActor;
use crate::telemetry;

/// What every request and event tells the app about the actor it is for.
#[derive(Clone, Debug)]
pub(in crate::host) struct Identity {
    id: HeaderValue,
    name: HeaderValue,
    key: Option<HeaderValue>,
    generation: HeaderValue,
    /// What opens the actor's API, and where it is, for an app that serves many actors.
    door: Option<(HeaderValue, HeaderValue)>,
}

impl Identity {
    /// The identity of one actor life.
    pub(in crate::host) fn new(start: &StartActor) -> Self {
        Identity {
            id: printable(&start.key.id),
            name: printable(&start.name),
            key: start.actor_key.as_deref().map(printable),
            generation: HeaderValue::from(start.key.generation),
            door: None,
        }
    }

    /// The same with the actor's API, for an app that serves other actors too and cannot know from its environment.
    pub(in crate::host) fn with_door(self, token: &SecretString, api: SocketAddr) -> Self {
        let mut token = printable(token.expose_secret());
        token.set_sensitive(true);
        Identity { door: Some((token, printable(&format!("http://{api}")))), ..self }
    }

    /// Adds the headers that say who is asked.
    pub(in crate::host) fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(ACTOR_ID, self.id.clone());
        headers.insert(ACTOR_NAME, self.name.clone());
        if let Some(key) = &self.key {
            headers.insert(ACTOR_KEY, key.clone());
        }
        headers.insert(ACTOR_GENERATION, self.generation.clone());
        if let Some((token, api)) = &self.door {
            headers.insert(ACTOR_TOKEN, token.clone());
            headers.insert(ACTOR_API, api.clone());
        }
    }

    /// Adds the headers that say who is asked, and in which request.
    pub(super) fn add_to_request(&self, headers: &mut HeaderMap, stream: StreamId) {
        self.add_to(headers);
        headers.insert(ACTOR_REQUEST_ID, printable(&stream.to_string()));
        trace(headers);
    }
}

/// A client's headers as the app gets them, without ours.
///
/// # Errors
/// What is wrong with them, for a 400.
pub fn from_client(headers: &Headers) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(headers.len() + 8);
    let listed = listed(headers.iter().filter(|(name, _)| **name == *"connection").map(|(_, value)| &**value));
    for (name, value) in headers {
        if name.len() >= OURS.len() && name.as_bytes()[..OURS.len()].eq_ignore_ascii_case(OURS) {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a header name is not valid".to_owned())?;
        if hops(&name) || listed.contains(&name) || (name == HOST && map.contains_key(HOST)) {
            continue;
        }
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("the value of the header {name} is not valid"))?;
        map.try_append(name, value).map_err(|_| "too many headers".to_owned())?;
    }
    map.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    Ok(map)
}

/// An app's headers as the client gets them. The length is left out: the body says it.
#[must_use]
pub fn from_app(map: &HeaderMap) -> Headers {
    let listed = listed(map.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()));
    let pass = |name: &HeaderName| !hops(name) && !listed.contains(name);
    map.iter()
        .filter(|(name, _)| pass(name))
        .filter_map(|(name, value)| match std::str::from_utf8(value.as_bytes()) {
            Ok(value) => Some((name.as_str().into(), value.into())),
            Err(_) => {
                tracing::debug!(header = name.as_str(), "left out a response header that is not text");
                None
            }
        })
        .collect()
}

/// The length that a client has declared, when it is a plain number.
pub(super) fn declared_length(headers: &Headers) -> Option<u64> {
    let mut lengths = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = lengths.next()?;
    let plain = !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit());
    if plain && lengths.next().is_none() { length.parse().ok() } else { None }
}

/// Whether a path leads to `/_actor` for any app: one that decodes or not, folds case, resolves dots before it decodes,
/// after or never, and takes empty segments for names or for nothing.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    let route = path.split(['?', '#']).next().unwrap_or_default();
    // How many names stand before the next segment for the app that is left with the fewest. Where there is none, the
    // next name is the first of the path for that app.
    let mut before = 0_usize;
    for segment in route.split('/') {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        let mut taken_apart = before;
        for part in decoded.split('/') {
            let mut by_backslash = taken_apart;
            for name in part.split('\\') {
                match name.split(';').next().unwrap_or_default() {
                    "" | "." => {}
                    ".." => by_backslash = by_backslash.saturating_sub(1),
                    name if by_backslash == 0 && name.eq_ignore_ascii_case("_actor") => return true,
                    _ => by_backslash += 1,
                }
            }
            // To most a backslash is a letter like any other.
            taken_apart = by_backslash.min(taken_apart + 1);
        }
        // Whoever resolves dots first sees one name where another sees several.
        before = taken_apart.min(before + 1);
    }
    false
}

/// Headers that belong to one connection, or to the framing of one message.
fn hops(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, TE, TRAILER, EXPECT].contains(name)
        || name == "keep-alive"
        || name.as_str().starts_with("proxy-")
}

/// The headers that `Connection` names as belonging to the connection.
fn listed<'a>(values: impl Iterator<Item = &'a str>) -> Vec<HeaderName> {
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// A text as a header value. What is not printable ASCII, and the percent sign, is percent-encoded, so that every
/// text passes and can be read back.
pub(super) fn printable(text: &str) -> HeaderValue {
    let set = if text.starts_with(' ') || text.ends_with(' ') { SPACE_TOO } else { UNPRINTABLE };
    HeaderValue::from_maybe_shared(bytes::Bytes::from(utf8_percent_encode(text, set).to_string()))
        .expect("percent-encoding leaves only printable ASCII")
}

/// Gives a request a trace context that came without one, or with one that cannot be read.
pub(super) fn trace(headers: &mut HeaderMap) {
    if trace_of(headers).is_none() {
        let traceparent = telemetry::new_traceparent(rand::random(), rand::random());
        headers.insert(telemetry::TRACEPARENT, printable(&traceparent));
    }
}

/// The trace that a request belongs to.
pub(super) fn trace_of(headers: &HeaderMap) -> Option<&str> {
    telemetry::trace_id(headers.get(telemetry::TRACEPARENT)?.to_str().ok()?)
}

const UNPRINTABLE: &AsciiSet = &CONTROLS.add(b'%');
const SPACE_TOO: &AsciiSet = &UNPRINTABLE.add(b' ');

/// How header names begin that only we may send.
const OURS: &[u8] = b"actor-";

const ACTOR_ID: HeaderName = HeaderName::from_static("actor-id");
const ACTOR_NAME: HeaderName = HeaderName::from_static("actor-name");
const ACTOR_KEY: HeaderName = HeaderName::from_static("actor-key");
const ACTOR_GENERATION: HeaderName = HeaderName::from_static("actor-generation");
const ACTOR_TOKEN: HeaderName = HeaderName::from_static("actor-token");
const ACTOR_API: HeaderName = HeaderName::from_static("actor-api");
const ACTOR_REQUEST_ID: HeaderName = HeaderName::from_static("actor-request-id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_path_is_known_in_every_spelling() {
        for path in [
            "/_actor",
            "/_actor/",
            "/_actor/x",
            "/_actor?x",
            "/_actor#x",
            "//_actor",
            "/./_actor",
            "/x/../_actor",
            "/%5factor",
            "/%5Fac%74or",
            "/%2e/_actor",
            "/x%2f..%2f_actor",
            "/_ACTOR",
            "/_actor;v=1",
            "\\_actor",
            "/_actor/../x",
            "/_actor//../x",
            "//../_actor///../x",
            "/x%2fy/../_actor",
            "/%2f/x%2fy/../_actor",
            "/x\\y/../_actor",
            "/x%2f../_actor",
            "/x\\y%2f..%2f_actor",
        ] {
            assert!(is_reserved(path), "{path}");
        }
        for path in
            ["/", "", "/_actors", "/x/_actor", "/actor", "/?/_actor", "/_actor.html", "/x/y/../_actor", "/../x/_actor"]
        {
            assert!(!is_reserved(path), "{path}");
        }
    }

    #[test]
    fn what_is_ours_or_belongs_to_the_connection_does_not_pass() {
        let passed = client(&[
            ("actor-id", "spoofed"),
            ("Actor-Event", "stop"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "secret"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("host", "first"),
            ("host", "second"),
            ("x-kept", "1"),
            ("x-kept", "2"),
        ])
        .unwrap();
        let passed: Vec<_> = passed.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(passed, [("host", "first"), ("x-kept", "1"), ("x-kept", "2")]);
    }

    #[test]
    fn a_header_that_could_split_a_message_is_refused() {
        for (name, value) in [("x", "a\r\nb: c"), ("x", "a\0"), ("x y", "a"), ("x\r\n", "a"), ("", "a"), ("x:", "a")] {
            assert!(client(&[(name, value)]).is_err(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn every_key_passes_as_a_header_and_can_be_read_back() {
        for key in ["plain-key", "a b", "ü/\n", "100%", "", " x ", "\r\nx: y"] {
            let value = printable(key);
            let read = percent_decode_str(value.to_str().unwrap()).decode_utf8().unwrap().into_owned();
            assert_eq!(read, key);
        }
        assert_eq!(printable("plain, key"), "plain, key");
    }

    #[test]
    fn a_declared_length_counts_only_when_it_is_one_plain_number() {
        let length = |headers: &[(&str, &str)]| declared_length(&owned(headers));
        assert_eq!(length(&[("content-length", "12")]), Some(12));
        for value in ["", "+1", "-1", "1,1", "0x1", "1 ", "99999999999999999999"] {
            assert_eq!(length(&[("content-length", value)]), None, "{value}");
        }
        assert_eq!(length(&[("content-length", "1"), ("content-length", "1")]), None);
    }

    fn client(headers: &[(&str, &str)]) -> Result<HeaderMap, String> {
        from_client(&owned(headers))
    }

    fn owned(headers: &[(&str, &str)]) -> Headers {
        headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }
}
