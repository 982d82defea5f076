//! The address of a gateway.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::http::uri::Authority;

/// Where a gateway is: the parsed form of `http://…`, `https://…`, `ws://…` or `wss://…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Over TLS: the address began with `https` or `wss`.
    pub tls: bool,
    /// A host name or an IP address; IPv6 addresses without their brackets.
    pub host: String,
    /// The port, 80 or 443 when none was given.
    pub port: u16,
    /// What comes before the gateway's own paths: empty, or with a leading slash and without a trailing one.
    pub path_prefix: String,
}

impl Endpoint {
    /// The endpoint of a gateway that listens on this address of this machine; an address that stands for all
    /// interfaces is reached over loopback.
    #[must_use]
    pub fn of_listener(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ip => ip,
        };
        Endpoint { tls: false, host: ip.to_string(), port: address.port(), path_prefix: String::new() }
    }

    /// As [`str::parse`], for a server that speaks HTTP and no more.
    ///
    /// # Errors
    /// What was expected.
    pub fn of_http(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some((scheme, _)) if !matches!(scheme, "http" | "https") => {
                Err("expected a URL that begins with http or https".to_owned())
            }
            _ => text.parse(),
        }
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The endpoint is this machine itself.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// Parses an endpoint; the error says what was expected.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("expected a URL like http://127.0.0.1:6420 or https://gateway.example.com".to_owned());
        };
        let tls = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err("expected a URL that begins with http, https, ws or wss".to_owned()),
        };
        if rest.contains(['?', '#']) {
            return Err(
                "expected a URL without a query or fragment; namespace and token have settings of their own".to_owned()
            );
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("expected a URL without a user name; the token has a setting of its own".to_owned());
        }
        let parsed: Authority = authority.parse().map_err(|_| "expected a host after ://".to_owned())?;
        let port_text = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
        let port = match port_text.split_once(':') {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some((_, port)) => port.parse().ok().filter(|port| *port != 0).ok_or("expected a port from 1 to 65535")?,
        };
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("expected a host after ://".to_owned());
        }
        if path.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("expected a URL without spaces".to_owned());
        }
        let path_prefix = path.trim_end_matches('/').to_owned();
        Ok(Endpoint { tls, host: host.to_owned(), port, path_prefix })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_schemes_say_whether_there_is_tls() {
        check("http://127.0.0.1:6420", false, "127.0.0.1", 6420, "");
        check("ws://gateway:80/", false, "gateway", 80, "");
        check("https://gateway.example.com", true, "gateway.example.com", 443, "");
        check("wss://gateway.example.com/rivet/", true, "gateway.example.com", 443, "/rivet");
        check("http://[::1]:6420", false, "::1", 6420, "");
        check("http://[::1]", false, "::1", 80, "");
    }

    #[test]
    fn what_is_no_endpoint_says_what_was_expected() {
        refuse("127.0.0.1:6420", "expected a URL like");
        refuse("ftp://host", "begins with http");
        refuse("http://", "a host");
        refuse("http://:6420", "a host");
        refuse("http://host:99999", "a port");
        refuse("http://host:0", "a port");
        refuse("http://host:", "a port");
        refuse("http://user:pw@host", "without a user name");
        refuse("http://host/?token=x", "without a query");
        refuse("http://ho st", "a host");
    }

    #[test]
    fn a_listener_on_all_interfaces_is_reached_over_loopback() {
        let endpoint = Endpoint::of_listener("0.0.0.0:6420".parse().unwrap());
        assert_eq!(endpoint.to_string(), "http://127.0.0.1:6420");
        assert!(endpoint.is_loopback());
        assert_eq!(Endpoint::of_listener("[::]:1".parse().unwrap()).to_string(), "http://[::1]:1");
    }

    #[track_caller]
    fn check(text: &str, tls: bool, host: &str, port: u16, path_prefix: &str) {
        let expected = Endpoint { tls, host: host.to_owned(), port, path_prefix: path_prefix.to_owned() };
        assert_eq!(text.parse(), Ok(expected));
    }

    #[track_caller]
    fn refuse(text: &str, expected: &str) {
        let error = text.parse::<Endpoint>().unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
