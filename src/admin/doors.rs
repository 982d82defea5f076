//! Who may come in, and who may change something.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderMap};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Refusal;
use super::state::Shared;
use crate::bearer;

/// The way a caller came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The Unix socket: the peer's user was checked.
    Unix,
    /// A port that only this machine reaches.
    Loopback,
    /// A port that others reach as well.
    Network,
}

/// Lets in who may do what the request wants.
pub(super) async fn guard(State((shared, door)): State<(Shared, Door)>, request: Request, next: Next) -> Response {
    match admitted(&shared, door, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn admitted(shared: &Shared, door: Door, request: &Request) -> Result<(), Refusal> {
    if door == Door::Unix {
        return Ok(());
    }
    if door == Door::Loopback && !is_named_by_address(request.headers()) {
        // A page of another site can make a browser come here under a name of its own, but not under this address.
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "wrong_host",
            "the Host header must be an IP address or localhost, so that no web page can read this",
        ));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let private = request.uri().path().ends_with("/logs") && door == Door::Network;
    if reads && !private {
        return Ok(());
    }
    let Some(token) = &shared.write_token else {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "read_only", "this address can only be read")
            .hint("use the socket admin.sock in the runtime directory, or set --admin-write-token-file"));
    };
    match bearer::of(request.headers()) {
        Some(given) if bearer::is(given, token) => Ok(()),
        Some(_) | None => {
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", "the write token is missing or wrong")
                .hint("send it as `Authorization: Bearer …`; the commands read it from --admin-write-token-file"))
        }
    }
}

fn is_named_by_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_else_may_own_is_no_address() {
        let named = |host: &'static str| is_named_by_address(&HeaderMap::from_iter([(HOST, host.parse().unwrap())]));
        assert!(named("127.0.0.1:6490") && named("localhost:6490") && named("[::1]:6490") && named("10.0.0.7"));
        assert!(
            !named("evil.example") && !named("127.0.0.1.evil.example:6490") && !named("") && !named("a@127.0.0.1:1 ")
        );
        assert!(!is_named_by_address(&HeaderMap::new()));
    }
}
