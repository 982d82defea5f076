//! What a gateway without a token may be called by.
//!
//! On loopback there is no token by default, and every page in a browser on the same machine can reach it: by its own
//! name made to point here, or straight across origins, since the API lets pages read its answers as the engine does.
//! Pages cannot lie about `Host` and `Origin`, so those must name this machine. Programs send no `Origin`.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::Request;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

/// Which names a gateway answers to on its API and its runners' socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedHosts {
    /// Any: there is a token, or somebody wants it so.
    #[default]
    Any,
    /// Those of this machine, and these.
    Local(Arc<[String]>),
}

impl AllowedHosts {
    /// The rule for a list of names; `*` stands for any.
    #[must_use]
    pub fn local_and(names: &[String]) -> Self {
        if names.iter().any(|name| name == "*") { Self::Any } else { Self::Local(names.into()) }
    }

    /// Whether a request came under an allowed name, and from a page of one.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), &'static str> {
        let Self::Local(names) = self else { return Ok(()) };
        let allowed = |host: &str| is_local(host) || names.iter().any(|name| name.eq_ignore_ascii_case(host));
        // In HTTP/1.0 there is none; browsers speak no such thing.
        if let Some(host) = host(request) {
            let host = host.ok_or(HOST_REFUSED)?;
            if !allowed(&host) {
                return Err(HOST_REFUSED);
            }
        }
        match origin(request.headers()) {
            None => Ok(()),
            Some(Some(host)) if allowed(&host) => Ok(()),
            Some(_) => Err(ORIGIN_REFUSED),
        }
    }
}

/// The host that a request names, without its port: none, or one that cannot be read.
fn host<B>(request: &Request<B>) -> Option<Option<String>> {
    if let Some(authority) = request.uri().authority() {
        return Some(Some(without_port(authority.as_str())?.to_owned()));
    }
    let mut values = request.headers().get_all(HOST).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(None);
    }
    Some(text(value).and_then(without_port).map(str::to_owned))
}

/// The host of the page that sent a request: none, or one that cannot be read, such as `null`.
fn origin(headers: &HeaderMap) -> Option<Option<String>> {
    let value = headers.get(ORIGIN)?;
    let host = text(value).and_then(|origin| origin.split_once("://")).and_then(|(_, host)| without_port(host));
    Some(host.map(str::to_owned))
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

fn without_port(authority: &str) -> Option<&str> {
    if authority.contains(['@', '/']) {
        return None;
    }
    if authority.starts_with('[') {
        return authority.split_once(']').map(|(ip, _)| &ip[1..]);
    }
    authority.split(':').next().filter(|host| !host.is_empty())
}

/// Names that no other machine can be reached by.
fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let named = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    named || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const HOST_REFUSED: &str = "This gateway has no admin token and answers only to names of this machine: \
     its Host header is of another (--allowed-hosts, or --admin-token-file)";

const ORIGIN_REFUSED: &str = "This gateway has no admin token and answers only to pages of this machine: \
     its Origin header is of another (--allowed-hosts, or --admin-token-file)";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], headers: &[(&str, &str)]) -> bool {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut request = Request::new(());
        for (name, value) in headers {
            let name: hyper::header::HeaderName = name.parse().expect("a name");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        AllowedHosts::local_and(&names).check(&request).is_ok()
    }

    #[test]
    fn names_of_this_machine_are_allowed() {
        for host in
            ["localhost", "LOCALHOST:6420", "127.0.0.1:6420", "127.9.9.9", "[::1]:6420", "a.localhost", "localhost."]
        {
            assert!(check(&[], &[("host", host)]), "{host}");
        }
        assert!(check(&[], &[]));
    }

    #[test]
    fn other_names_are_not() {
        for host in [
            "evil.test",
            "evil.test:6420",
            "localhost.evil.test",
            "1.2.3.4",
            "[::2]",
            "",
            "a@localhost",
            "notlocalhost",
        ] {
            assert!(!check(&[], &[("host", host)]), "{host}");
        }
        assert!(!check(&[], &[("host", "localhost"), ("host", "evil.test")]));
    }

    #[test]
    fn a_page_of_another_machine_is_refused_under_any_name() {
        for origin in ["http://evil.test", "https://localhost.evil.test:6420", "null", "garbage"] {
            assert!(!check(&[], &[("host", "localhost"), ("origin", origin)]), "{origin}");
        }
        for origin in ["http://localhost:5173", "http://127.0.0.1", "https://[::1]:1", "http://ui.localhost:1"] {
            assert!(check(&[], &[("host", "localhost"), ("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn names_can_be_added() {
        let names = ["gateway.internal", "ui.test"];
        assert!(check(&names, &[("host", "Gateway.Internal:6420"), ("origin", "https://ui.test")]));
        assert!(!check(&names, &[("host", "gateway.internal.evil.test")]));
        assert!(check(&["*"], &[("host", "evil.test"), ("origin", "null")]));
    }
}
