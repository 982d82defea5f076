//! Headers on their way between HTTP and the wire.

use bytestring::ByteString;
use greenroom_protocol::Headers;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::gateway::Id;
use crate::gateway::refusal::{RIVET_RAY, Refusal};
use crate::telemetry::{TRACEPARENT, new_traceparent, trace_id};

/// A client's headers as the actor gets them: all of them, hop-by-hop ones too, as the engine does it. Values that are
/// no text are left out, since the wire carries text only. The ray is ours, whatever the client claims. A client that
/// sends no trace context, or none that can be read, gets a new one.
#[must_use]
pub fn to_actor(headers: &HeaderMap, ray: Id) -> Headers {
    // All names and values are slices of one string: one allocation, not two for each header.
    let traced = headers.get(TRACEPARENT).and_then(|value| trace_id(value.to_str().ok()?)).is_some();
    let ours = |name: &HeaderName| *name == RIVET_RAY || (!traced && *name == TRACEPARENT);
    let texts = || headers.iter().filter(|(name, _)| !ours(name)).filter_map(text);
    let traceparent = if traced { String::new() } else { new_traceparent(rand::random(), rand::random()) };
    let length: usize = texts().map(|(name, value)| name.len() + value.len()).sum();
    let mut joined = String::with_capacity(length + ray.as_str().len() + traceparent.len());
    for (name, value) in texts() {
        joined.push_str(name);
        joined.push_str(value);
    }
    joined.push_str(ray.as_str());
    joined.push_str(&traceparent);
    let mut rest = ByteString::from(joined);
    let mut answer = Headers::with_capacity(headers.len() + 2);
    for (name, value) in texts() {
        let (first, after) = rest.split_at(name.len());
        let (second, after) = after.split_at(value.len());
        answer.push((first, second));
        rest = after;
    }
    let (ray, traceparent) = rest.split_at(ray.as_str().len());
    answer.push((ByteString::from_static("x-rivet-ray-id"), ray));
    if !traced {
        answer.push((ByteString::from_static(TRACEPARENT), traceparent));
    }
    answer
}

fn text<'a>((name, value): (&'a HeaderName, &'a HeaderValue)) -> Option<(&'a str, &'a str)> {
    std::str::from_utf8(value.as_bytes()).ok().map(|value| (name.as_str(), value))
}

/// An actor's headers as the client gets them, and the content length it claims. What frames the message is ours to
/// say, so `connection` and its like are left out.
///
/// # Errors
/// A name or a value that HTTP does not allow; the engine answers 500 to it, and so do we, with the reason.
pub fn to_client(headers: Headers) -> Result<(HeaderMap, Option<u64>), Refusal> {
    let mut answer = HeaderMap::with_capacity(headers.len() + EXTRA);
    let mut length = None;
    for (name, value) in headers {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            let why = format!("The actor answered with a header name that HTTP does not allow: {:?}.", &*name);
            return Err(Refusal::internal(why));
        };
        if parsed == CONTENT_LENGTH {
            length = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten();
            continue;
        }
        if is_framing(&parsed) {
            continue;
        }
        let Ok(value) = HeaderValue::from_maybe_shared(value.into_bytes()) else {
            let why = format!("The actor answered with a value of {parsed} that HTTP does not allow.");
            return Err(Refusal::internal(why));
        };
        if answer.try_append(parsed, value).is_err() {
            return Err(Refusal::internal("The actor answered with too many headers."));
        }
    }
    Ok((answer, length))
}

fn is_framing(name: &HeaderName) -> bool {
    [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, TRAILER, KEEP_ALIVE, PROXY_CONNECTION].contains(name)
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Room for the headers that the gateway adds to most answers.
const EXTRA: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn pairs(headers: &[(&str, &str)]) -> Headers {
        headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_clients_headers_keep_their_values_and_repeat() {
        let mut headers = HeaderMap::new();
        headers.append("Host", HeaderValue::from_static("a:1"));
        headers.append("cookie", HeaderValue::from_static("a=b"));
        headers.append("cookie", HeaderValue::from_static("c=d"));
        headers.append("x-empty", HeaderValue::from_static(""));
        headers.append("x-utf8", HeaderValue::from_bytes("grün".as_bytes()).expect("value"));
        headers.append("x-latin1", HeaderValue::from_bytes(b"gr\xfcn").expect("value"));
        headers.append("x-rivet-ray-id", HeaderValue::from_static("mine"));
        headers.append(TRACEPARENT, HeaderValue::from_static(TRACE));
        let ray = Id::from_random([1; 16]);
        let mut answer = to_actor(&headers, ray);
        answer.sort();
        let ray = ray.to_string();
        let expected = pairs(&[
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("host", "a:1"),
            (TRACEPARENT, TRACE),
            ("x-empty", ""),
            ("x-rivet-ray-id", &ray),
            ("x-utf8", "grün"),
        ]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_request_without_a_trace_gets_one() {
        for given in [None, Some("not a trace"), Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01")] {
            let given = given.map(|given| (HeaderName::from_static(TRACEPARENT), HeaderValue::from_static(given)));
            let answer = to_actor(&given.into_iter().collect(), Id::from_random([1; 16]));
            let traces: Vec<_> = answer.iter().filter(|(name, _)| **name == *TRACEPARENT).collect();
            assert!(traces.len() == 1 && trace_id(&traces[0].1).is_some(), "{answer:?}");
        }
    }

    #[test]
    fn an_actor_cannot_frame_its_response() {
        let (headers, length) = to_client(pairs(&[
            ("content-length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("X-Own", "1"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
        ]))
        .expect("headers");
        assert_eq!(length, Some(5));
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-own", "set-cookie"]);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn headers_that_http_does_not_allow_are_refused() {
        for bad in [("", "x"), ("a b", "x"), ("a\r\nb", "x"), ("a", "x\r\ny: z"), ("a", "x\0"), ("ä", "x")] {
            assert!(to_client(pairs(&[bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_content_length_that_is_no_number_is_none() {
        for bad in ["", "-1", "+5", "5, 5", "0x5", "99999999999999999999999"] {
            let (_, length) = to_client(pairs(&[("content-length", bad)])).expect("headers");
            assert_eq!(length, None, "{bad}");
        }
    }
}
