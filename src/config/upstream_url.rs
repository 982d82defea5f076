//! The address of a server that serves actors.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::Endpoint;

/// Where a server of actors is: `http://…`, `https://…` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// At a host and port; without a path.
    Http(Endpoint),
    /// On a Unix socket; absolute.
    Unix(PathBuf),
}

impl FromStr for UpstreamUrl {
    type Err = String;

    /// Parses an address; the error says what was expected.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected http://host:port, https://host or unix:/path/of/socket";
        if let Some(path) = text.strip_prefix("unix:") {
            let usable = path.starts_with('/') && !path.contains('\0') && path.len() <= SOCKET_PATH_MAX;
            return usable
                .then(|| UpstreamUrl::Unix(path.into()))
                .ok_or_else(|| format!("expected an absolute path of at most {SOCKET_PATH_MAX} bytes after unix:"));
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err(EXPECTED.to_owned());
        }
        let url: Endpoint = text.parse()?;
        if !url.path_prefix.is_empty() {
            return Err("expected a URL without a path: the client's is used".to_owned());
        }
        Ok(UpstreamUrl::Http(url))
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamUrl::Http(url) => url.fmt(f),
            UpstreamUrl::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The longest path a Unix socket can have: 108 bytes with the zero at its end.
const SOCKET_PATH_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_host_or_a_socket() {
        for text in ["http://127.0.0.1:9000", "https://app.internal:443", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<UpstreamUrl>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("127.0.0.1:9000", "expected http://"),
            ("ws://host", "expected http://"),
            ("unix:app.sock", "absolute"),
            ("http://host/base", "without a path"),
            ("http://user:pw@host", "without a user name"),
        ] {
            let error = text.parse::<UpstreamUrl>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
