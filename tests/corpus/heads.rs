//! Heads of requests and responses on their way between clients, the wire and apps: nothing that frames a message or
//! is ours gets through, everything else does, and what a client may send never stops its request.

use bytes::{Bytes, BytesMut};
use greenroom::gateway::Id;
use greenroom::gateway::ingress::headers::{to_actor, to_client};
use greenroom::host::http::{from_app, from_client, is_reserved, path_and_query};
use greenroom::protocol::{
    Features, Headers, MessageId, StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel, Version, headers,
};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::choices::Choices;

pub fn heads(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.below(3) {
        0 => {
            let list = list(&mut choices);
            said_by_a_gateway(&list);
            said_by_an_actor(list);
        }
        1 => carried(&map(&mut choices), choices.pick(&[Features::ALL, Features::default()])),
        _ => reserved(&String::from_utf8_lossy(choices.rest())),
    }
}

/// Headers as they come off the wire, on their way to an app.
fn said_by_a_gateway(list: &Headers) {
    let Ok(map) = from_client(list) else {
        let fine = |name: &str, value: &str| name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value).is_ok();
        let ours = |name: &str| name.get(..6).is_some_and(|first| first.eq_ignore_ascii_case("actor-"));
        assert!(!list.iter().all(|(name, value)| ours(name) || fine(name, value)), "refused for nothing: {list:?}");
        return;
    };
    check_passed(&map);
    assert!(!map.contains_key("expect"), "{map:?}");
    assert_eq!(map.get_all("host").iter().count(), 1, "{map:?}");
    assert!(!map.keys().any(|name| name.as_str().starts_with("actor-")), "{map:?}");
    let listed = listed(list.iter().filter(|(name, _)| **name == *"connection").map(|(_, value)| &**value));
    for (name, value) in list {
        let name = name.to_ascii_lowercase();
        if !FRAMING.contains(&name.as_str())
            && !name.starts_with("proxy-")
            && !name.starts_with("actor-")
            && !listed.contains(&name)
            && name != "host"
            && name != "expect"
        {
            assert!(map.get_all(&name).iter().any(|other| other == &**value), "{name} is lost: {list:?}");
        }
    }
}

/// Headers as they come off the wire, on their way to a client.
fn said_by_an_actor(list: Headers) {
    match to_client(list.clone()) {
        Ok((map, length)) => {
            check_passed(&map);
            if let Some(length) = length {
                let said = list.iter().any(|(name, value)| is_length(name) && value.parse() == Ok(length));
                assert!(said, "{length}: {list:?}");
            }
        }
        Err(refusal) => assert!(!refusal.message.is_empty()),
    }
}

/// Headers of a client to the app, and of the app to the client, the whole way.
fn carried(map: &HeaderMap, features: Features) {
    let ray = Id::from_random([7; 16]);
    let sent = to_actor(map, ray);
    assert_eq!(sent.iter().filter(|(name, _)| **name == *"x-rivet-ray-id").count(), 1, "{sent:?}");
    let stream = MessageId { stream: StreamId { gateway: [1; 4], request: [2; 4] }, index: 0 };
    let message = ToClientTunnel::RequestStart {
        actor_id: "a".into(),
        method: "GET".into(),
        path: "/".into(),
        headers: headers::join(sent.clone(), features),
        body: None,
        stream: false,
    };
    let mut frame = BytesMut::new();
    let message = ToClient::Tunnel { id: stream, message };
    message.encode(Version::V7, &mut frame).expect("no name stands twice");
    let Ok(ToClient::Tunnel { message: ToClientTunnel::RequestStart { headers: came, .. }, .. }) =
        ToClient::decode(frame.freeze(), Version::V7)
    else {
        panic!("it does not come back: {message:?}")
    };
    let came = headers::split(came, features);
    if features == Features::ALL {
        assert_eq!(sorted(&came), sorted(&sent));
    }
    let passed = from_client(&came);
    assert!(passed.is_ok(), "what a client may send is refused: {passed:?} {sent:?}");

    let answered = from_app(map);
    let message = ToServerTunnel::ResponseStart {
        status: 200,
        headers: headers::join(answered.clone(), features),
        body: Some(Bytes::new()),
        stream: false,
    };
    let mut frame = BytesMut::new();
    let message = ToServer::Tunnel { id: stream, message };
    message.encode(Version::V7, &mut frame).expect("no name stands twice");
    let Ok(ToServer::Tunnel { message: ToServerTunnel::ResponseStart { headers: came, .. }, .. }) =
        ToServer::decode(frame.freeze(), Version::V7)
    else {
        panic!("it does not come back: {message:?}")
    };
    let came = headers::split(came, features);
    if features == Features::ALL {
        assert_eq!(sorted(&came), sorted(&answered));
    }
    let (told, _) = to_client(came).expect("what an app may answer is passed on");
    check_passed(&told);
    let cookies = |map: &HeaderMap| map.get_all("set-cookie").iter().filter(|value| is_text(value)).count();
    let listed = listed(map.get_all("connection").iter().filter_map(|value| value.to_str().ok()));
    if !listed.contains(&"set-cookie".to_owned()) {
        assert_eq!(cookies(&told), cookies(map), "{map:?}");
    }
}

/// A path that an app could take for the one of our events is reserved.
fn reserved(path: &str) {
    let Some(uri) = path_and_query(path) else { return };
    let raw = uri.path();
    let decoded = percent_decode_str(raw).decode_utf8_lossy();
    // What kinds of app make of it: one resolves dots and then decodes, one the other way round, one only decodes, one
    // does neither.
    let resolved = percent_decode_str(&without_dots(raw)).decode_utf8_lossy().into_owned();
    for seen in [&*resolved, &without_dots(&decoded), &*decoded, raw] {
        let ours = seen.trim_start_matches('/').to_ascii_lowercase();
        if ours == "_actor" || ours.starts_with("_actor/") {
            assert!(is_reserved(path), "{path:?} reaches an app as {seen:?}");
        }
    }
}

/// What RFC 3986 makes of dots, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.trim_start_matches('/').split('/') {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

fn check_passed(map: &HeaderMap) {
    for (name, value) in map {
        assert!(!FRAMING.contains(&name.as_str()), "{name} frames a message");
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}: {value:?}");
    }
}

fn is_text(value: &HeaderValue) -> bool {
    std::str::from_utf8(value.as_bytes()).is_ok()
}

fn is_length(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-length")
}

fn listed<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn sorted(headers: &Headers) -> Headers {
    let mut sorted = headers.clone();
    sorted.sort();
    sorted
}

fn list(choices: &mut Choices) -> Headers {
    let mut list = Headers::new();
    while !choices.is_over() && list.len() < 64 {
        let name = name(choices);
        list.push((name.into(), choices.text().into()));
    }
    list
}

fn map(choices: &mut Choices) -> HeaderMap {
    let mut map = HeaderMap::new();
    while !choices.is_over() && map.len() < 64 {
        let (name, value) = (name(choices), HeaderValue::from_bytes(choices.bytes()));
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value) {
            map.append(name, value);
        }
    }
    map
}

fn name(choices: &mut Choices) -> String {
    match choices.below(NAMES.len() + 4) {
        place if place < NAMES.len() => NAMES[place].to_owned(),
        _ => choices.text(),
    }
}

const NAMES: [&str; 20] = [
    "x-a",
    "set-cookie",
    "cookie",
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-authorization",
    "expect",
    "actor-id",
    "Actor-Event",
    "traceparent",
    "x-rivet-ray-id",
    "Host",
    "Content-Length",
    "proxy-connection",
];

/// What belongs to one connection or frames one message.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "proxy-connection"];
