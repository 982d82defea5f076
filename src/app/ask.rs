//! Asking a running daemon: finding it, and one request to its admin address.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::AskSettings;

/// A daemon that can be reached.
#[derive(Debug)]
pub(super) struct Daemon {
    place: Place,
    write_token: Option<SecretString>,
}

/// Where a daemon may be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Unix(PathBuf),
    Tcp(String),
}

/// Why there is no answer to print. The text says what was tried and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Nobody answers at any of the places.
    #[error(
        "no greenroom daemon answers here; tried:{tried}\nis it running? Name its place with --admin ADDRESS, or its \
         --runtime-dir or --data-dir as it was started with"
    )]
    NotFound {
        /// A line for each place.
        tried: String,
    },
    /// The daemon says no.
    #[error("{0}")]
    Refused(String),
    /// The connection broke, or what came is no answer of ours.
    #[error("the daemon at {place} gave no answer: {error}")]
    Broken {
        /// Where it was.
        place: String,
        /// What went wrong.
        error: String,
    },
}

impl Daemon {
    /// The first daemon that takes a connection: at the address on the command line and nowhere else, or at the
    /// socket, then the address, that these settings give a daemon.
    pub(super) async fn find(settings: &AskSettings) -> Result<Self, AskError> {
        let mut tried = String::new();
        for place in places(settings) {
            match place.connect().await {
                Ok(_) => return Ok(Daemon { place, write_token: settings.write_token.clone() }),
                Err(error) => tried += &format!("\n  {place}: {error}"),
            }
        }
        Err(AskError::NotFound { tried })
    }

    /// What a route answers, as JSON.
    pub(super) async fn ask(&self, method: Method, path: &str, body: String) -> Result<Value, AskError> {
        let asked = async {
            let response = self.request(method, path, body).await?;
            response.into_body().collect().await.map(http_body_util::Collected::to_bytes).map_err(|e| self.broken(&e))
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|error| self.broken(&error))??;
        serde_json::from_slice(&answer).map_err(|error| self.broken(&error))
    }

    /// What a route answers, as JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Value, AskError> {
        self.ask(Method::GET, path, String::new()).await
    }

    /// Hands on an answer piece by piece, until it ends or nobody takes more.
    pub(super) async fn stream(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), AskError> {
        let mut body = self.request(Method::GET, path, String::new()).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            if let Some(piece) = frame.data_ref()
                && take(piece).is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        self.place.to_string()
    }

    async fn request(&self, method: Method, path: &str, body: String) -> Result<Response<Incoming>, AskError> {
        let io = self.place.connect().await.map_err(|error| self.broken(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| self.broken(&error))?;
        // It ends with the request, and its errors are the request's.
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| self.broken(&error))?;
        let headers = request.headers_mut();
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let host = match &self.place {
            Place::Unix(_) => "localhost",
            Place::Tcp(authority) => authority,
        };
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| self.broken(&error))?);
        if let (Some(token), Place::Tcp(_)) = (&self.write_token, &self.place) {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut bearer = bearer.map_err(|error| self.broken(&error))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
        Err(AskError::Refused(refusal(status, &body)))
    }

    fn broken(&self, error: &dyn std::error::Error) -> AskError {
        AskError::Broken { place: self.place(), error: error.to_string() }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Place {
    /// What a user may write: `unix:/path`, `/path`, `http://host:port` or `host:port`.
    fn parse(text: &str) -> Self {
        let path = text.strip_prefix("unix:").or(text.starts_with(['/', '.']).then_some(text));
        match path {
            Some(path) => Place::Unix(Path::new(path).to_owned()),
            None => Place::Tcp(text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/').to_owned()),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Io>> {
        let connecting = async {
            Ok(match self {
                Place::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Io>,
                Place::Tcp(authority) => Box::new(TcpStream::connect(authority).await?),
            })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await?
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Unix(path) => path.display().fmt(f),
            Place::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

fn places(settings: &AskSettings) -> Vec<Place> {
    match &settings.named {
        Some(named) => vec![Place::parse(named)],
        None => {
            let address = settings.address.map(|address| Place::Tcp(address.to_string()));
            [Place::Unix(settings.socket.clone())].into_iter().chain(address).collect()
        }
    }
}

/// What a refusal says, with its hint.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &answer["error"];
    match (error["message"].as_str(), error["hint"].as_str()) {
        (Some(message), Some(hint)) => format!("{message}\n{hint}"),
        (Some(message), None) => message.to_owned(),
        (None, _) => format!("the daemon answers {status}"),
    }
}

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take; the daemon itself gives up asking its parts before.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_or_an_address() {
        let tcp = |authority: &str| Place::Tcp(authority.to_owned());
        assert_eq!(Place::parse("127.0.0.1:6490"), tcp("127.0.0.1:6490"));
        assert_eq!(Place::parse("http://host:1/"), tcp("host:1"));
        assert_eq!(Place::parse("unix:run/admin.sock"), Place::Unix("run/admin.sock".into()));
        assert_eq!(Place::parse("/run/admin.sock"), Place::Unix("/run/admin.sock".into()));
        assert_eq!(Place::parse("./admin.sock"), Place::Unix("./admin.sock".into()));
    }

    #[test]
    fn an_address_on_the_command_line_is_the_only_place() {
        let mut settings = AskSettings {
            named: None,
            socket: "/run/admin.sock".into(),
            address: Some("127.0.0.1:6490".parse().unwrap()),
            write_token: None,
        };
        assert_eq!(places(&settings), [Place::Unix("/run/admin.sock".into()), Place::Tcp("127.0.0.1:6490".into())]);
        settings.named = Some("127.0.0.1:1".into());
        assert_eq!(places(&settings), [Place::Tcp("127.0.0.1:1".into())]);
    }
}
