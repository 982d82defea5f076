//! Which actor a request is for.

use bytestring::ByteString;
use hyper::Request;
use hyper::header::{HOST, HeaderMap, HeaderName, SEC_WEBSOCKET_PROTOCOL};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::query_target::QueryTarget;
use crate::gateway::Id;
use crate::gateway::refusal::Refusal;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// To an actor.
    Actor(ActorTarget),
    /// To an actor that has to be looked up, or made.
    Query(QueryTarget),
    /// To an actor, but it cannot be told which.
    Unclear(Refusal),
    /// To the public API, which also answers for unknown paths.
    Api,
}

/// An actor and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorTarget {
    /// The actor.
    pub actor: Id,
    /// Path and query as the actor sees them.
    pub path: ByteString,
}

impl Target {
    /// Reads the target from path, headers, and for a socket from its subprotocols.
    #[must_use]
    pub fn of<B>(request: &Request<B>, socket: bool) -> Target {
        let path = request.uri().path();
        let query = request.uri().query();
        // `*` and `host:port` are targets of HTTP too, and no actor has a path for them.
        if !path.starts_with('/') {
            return Target::Api;
        }
        if let Some(target) = of_path(path, query) {
            return target;
        }
        if let Some(target) = request.headers().get(TARGET) {
            return of_header(target.as_bytes(), path, query, request.headers());
        }
        if socket && let Some(target) = of_subprotocols(path, query, request.headers()) {
            return target;
        }
        Target::Api
    }
}

/// `/gateway/ID/rest` and `/gateway/ID@TOKEN/rest`, and `/gateway/NAME/rest` with `rvt-` parameters. The token is for the
/// actor's owner and means nothing here.
fn of_path(path: &str, query: Option<&str>) -> Option<Target> {
    let rest = path.strip_prefix("/gateway")?;
    // An empty segment anywhere says that a client has put its URL together wrongly; guessing which part it left out
    // could reach another actor than it meant.
    if path.contains("//") || !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let (segment, rest) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if let Some(query) = query.filter(|query| QueryTarget::is_meant(query)) {
        return Some(QueryTarget::parse(segment, rest, query).map_or_else(Target::Unclear, Target::Query));
    }
    let name = match segment.split_once('@') {
        Some((_, "")) => return None,
        Some((name, _token)) => name,
        None => segment,
    };
    if name.is_empty() {
        return None;
    }
    Some(actor(name, rest, query))
}

/// `x-rivet-target: actor` with `x-rivet-actor: ID`, for paths under `/request`.
fn of_header(target: &[u8], path: &str, query: Option<&str>, headers: &HeaderMap) -> Target {
    if target != b"actor" || !(path == "/request" || path.starts_with("/request/")) {
        return Target::Unclear(no_route(path, headers));
    }
    match headers.get(ACTOR).map(|value| value.to_str()) {
        None => {
            let refusal = Refusal::new("guard", "missing_header", "Missing x-rivet-actor header.");
            Target::Unclear(refusal.with(json!({ "header": ACTOR.as_str() })))
        }
        Some(Ok(name)) => actor(name, path, query),
        Some(Err(_)) => Target::Unclear(Refusal::internal("The x-rivet-actor header is no text.")),
    }
}

/// `rivet_target.actor` with `rivet_actor.ID` among the subprotocols, for any path.
fn of_subprotocols(path: &str, query: Option<&str>, headers: &HeaderMap) -> Option<Target> {
    let mut target = None;
    let mut name = None;
    for protocol in subprotocols(headers) {
        if let Some(value) = protocol.strip_prefix("rivet_target.") {
            target = Some(value);
        } else if let Some(value) = protocol.strip_prefix("rivet_actor.") {
            name = Some(value);
        }
    }
    Some(match (target?, name) {
        ("actor", Some(name)) => actor(name, path, query),
        ("actor", None) => {
            let refusal = Refusal::new("guard", "missing_header", "Missing rivet_actor. subprotocol.");
            Target::Unclear(refusal.with(json!({ "header": SEC_WEBSOCKET_PROTOCOL.as_str() })))
        }
        (_, _) => Target::Unclear(no_route(path, headers)),
    })
}

/// The subprotocols a client offers, in its order.
pub(super) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
}

fn actor(name: &str, path: &str, query: Option<&str>) -> Target {
    let id = name.parse::<Id>().or_else(|_| match percent_decode_str(name).decode_utf8() {
        Ok(name) => name.parse::<Id>().map_err(|error| error.to_string()),
        Err(_) => Err("it is no text".to_owned()),
    });
    match id {
        Ok(actor) => Target::Actor(ActorTarget { actor, path: join(path, query) }),
        Err(why) => Target::Unclear(Refusal::internal(format!("The actor id cannot be read: {why}."))),
    }
}

pub(super) fn join(path: &str, query: Option<&str>) -> ByteString {
    match query {
        None => path.into(),
        Some(query) => format!("{path}?{query}").into(),
    }
}

fn no_route(path: &str, headers: &HeaderMap) -> Refusal {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("unknown");
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let message = format!("No route found for hostname {host}, path {path}.");
    Refusal::new("guard", "no_route", message).with(json!({ "host": host, "path": path }))
}

const TARGET: HeaderName = HeaderName::from_static("x-rivet-target");
const ACTOR: HeaderName = HeaderName::from_static("x-rivet-actor");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "53heuibpefzx3lj3skyt2h5xuwal00";

    fn target(uri: &str, headers: &[(&str, &str)], socket: bool) -> Target {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Target::of(&request.body(()).expect("request"), socket)
    }

    #[track_caller]
    fn check_path(uri: &str, path: &str) {
        let expected = ActorTarget { actor: ID.parse().expect("id"), path: path.into() };
        assert_eq!(target(uri, &[], false), Target::Actor(expected), "{uri}");
    }

    #[track_caller]
    fn code(target: &Target) -> String {
        match target {
            Target::Unclear(refusal) => format!("{}.{}", refusal.group, refusal.code),
            Target::Actor(_) | Target::Query(_) | Target::Api => panic!("{target:?}"),
        }
    }

    #[test]
    fn an_actor_is_named_by_the_path() {
        check_path(&format!("/gateway/{ID}"), "/");
        check_path(&format!("/gateway/{ID}/"), "/");
        check_path(&format!("/gateway/{ID}?a=b"), "/?a=b");
        check_path(&format!("/gateway/{ID}/a/b%20c/?d=e%2Ff&g"), "/a/b%20c/?d=e%2Ff&g");
        check_path(&format!("/gateway/{ID}@token/x"), "/x");
        check_path(&format!("/gateway/{ID}@to%2/x"), "/x");
        check_path(&format!("/gateway/{ID}/x?u=http://y//z"), "/x?u=http://y//z");
        check_path(&format!("/gateway/%35{}/x", &ID[1..]), "/x");
        check_path(&format!("/gateway/{ID}/../x"), "/../x");
    }

    #[test]
    fn what_is_not_quite_a_gateway_path_is_left_to_the_api() {
        for uri in [
            "/gateway".to_owned(),
            "/gateway/".to_owned(),
            "/gateway//".to_owned(),
            format!("/gateway/{ID}//x"),
            format!("//gateway/{ID}/x"),
            format!("/gateway/{ID}@/x"),
            "/gateway/@token/x".to_owned(),
            "/gatewayx/y".to_owned(),
            "/actors".to_owned(),
            "*".to_owned(),
        ] {
            assert_eq!(target(&uri, &[], false), Target::Api, "{uri}");
        }
    }

    #[test]
    fn an_id_that_does_not_parse_is_an_internal_error_as_in_the_engine() {
        for name in ["garbage", "%20", "%ff", "abc", ".."] {
            let target = target(&format!("/gateway/{name}/x"), &[], false);
            assert_eq!(code(&target), "core.internal_error", "{name}");
        }
    }

    #[test]
    fn a_query_with_routing_parameters_is_not_taken_for_an_id() {
        for uri in
            ["/gateway/counter/x?a=b&rvt-namespace=default&rvt-method=get", "/gateway/c?rvt-method=get&rvt-namespace"]
        {
            assert!(matches!(target(uri, &[], false), Target::Query(_)), "{uri}");
        }
        let by_id = target(&format!("/gateway/{ID}/x?rvt-method=get&rvt-namespace=default"), &[], false);
        assert!(matches!(by_id, Target::Query(_)), "{by_id:?}");
        let elsewhere = target("/actors?rvt-method=get", &[], false);
        assert_eq!(elsewhere, Target::Api);
        let broken = target("/gateway//x?rvt-method=get", &[], false);
        assert_eq!(broken, Target::Api);
        for uri in ["/gateway?rvt-method=get", "/gateway/?rvt-method=get"] {
            assert_eq!(code(&target(uri, &[], false)), "guard.query_empty_actor_name", "{uri}");
        }
    }

    #[test]
    fn an_actor_is_named_by_headers() {
        let named = [("x-rivet-target", "actor"), ("x-rivet-actor", ID)];
        let expected = |path: &str| Target::Actor(ActorTarget { actor: ID.parse().expect("id"), path: path.into() });
        assert_eq!(target("/request", &named, false), expected("/request"));
        assert_eq!(target("/request/a?b=c", &named, false), expected("/request/a?b=c"));
        assert_eq!(code(&target("/requests", &named, false)), "guard.no_route");
        assert_eq!(code(&target("/request", &named[..1], false)), "guard.missing_header");
        assert_eq!(code(&target("/request", &[("x-rivet-target", "bogus")], false)), "guard.no_route");
        let bad = [("x-rivet-target", "actor"), ("x-rivet-actor", "garbage")];
        assert_eq!(code(&target("/request", &bad, false)), "core.internal_error");
    }

    #[test]
    fn an_unknown_route_names_host_and_path() {
        let headers = [("host", "127.0.0.1:6420"), ("x-rivet-target", "actor")];
        let Target::Unclear(refusal) = target("/elsewhere?x", &headers, false) else {
            panic!("a refusal");
        };
        assert_eq!(refusal.message, "No route found for hostname 127.0.0.1, path /elsewhere.");
        assert_eq!(refusal.metadata, Some(json!({ "host": "127.0.0.1", "path": "/elsewhere" })));
    }

    #[test]
    fn a_socket_names_its_actor_by_subprotocols() {
        let protocols = format!("rivet, rivet_target.actor,rivet_actor.{ID} , rivet_token.x");
        let headers = [("sec-websocket-protocol", protocols.as_str())];
        let expected = ActorTarget { actor: ID.parse().expect("id"), path: "/any/path?q".into() };
        assert_eq!(target("/any/path?q", &headers, true), Target::Actor(expected));
        assert_eq!(target("/any/path?q", &headers, false), Target::Api);
        for pathless in ["*", "example.com:80"] {
            assert_eq!(target(pathless, &headers, true), Target::Api, "{pathless}");
        }
        let missing = [("sec-websocket-protocol", "rivet_target.actor")];
        assert_eq!(code(&target("/x", &missing, true)), "guard.missing_header");
        assert_eq!(target("/x", &[("sec-websocket-protocol", "chat")], true), Target::Api);
    }

    proptest! {
        #[test]
        fn whatever_a_client_asks_for_is_read(path in "/[ -~]{0,80}", query in proptest::option::of("[ -~]{0,40}")) {
            let uri = match query {
                None => path,
                Some(query) => format!("{path}?{query}"),
            };
            if let Ok(request) = Request::builder().uri(&uri).body(()) {
                for socket in [false, true] {
                    if let Target::Actor(target) = Target::of(&request, socket) {
                        prop_assert!(target.path.starts_with('/'), "{uri}");
                        let bare = target.path == "/" || target.path.starts_with("/?");
                        prop_assert!(bare || uri.ends_with(&*target.path), "{uri}");
                    }
                }
            }
        }

        #[test]
        fn a_path_reaches_the_actor_as_it_is(
            rest in "(/[a-zA-Z0-9._~%!$&'()*+,;=:@-]{1,10}){0,4}/?",
            query in "[ -\"$-~&&[^ \"<>]]{0,30}",
        ) {
            let uri = format!("/gateway/{ID}{rest}?{query}");
            if let Ok(request) = Request::builder().uri(&uri).body(()) && !query.contains("rvt-") {
                let expected = if rest.is_empty() { format!("/?{query}") } else { format!("{rest}?{query}") };
                let target = Target::of(&request, false);
                let expected = ActorTarget { actor: ID.parse().expect("id"), path: expected.into() };
                prop_assert_eq!(target, Target::Actor(expected));
            }
        }
    }
}
