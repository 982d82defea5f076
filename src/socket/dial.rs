//! Opening the socket: TCP, TLS, the upgrade.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use greenroom_protocol::features::FEATURES_HEADER;
use greenroom_protocol::limits::FRAME_MAX;
use greenroom_protocol::{Features, Version};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::config::Endpoint;
use crate::socket::Connection;

/// Which gateway, and who dials.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the gateway is.
    pub endpoint: Endpoint,
    /// The namespace.
    pub namespace: String,
    /// The runner's key.
    pub runner_key: String,
    /// The token, when the gateway wants one.
    pub token: Option<SecretString>,
    /// The protocol version spoken.
    pub version: Version,
    /// How long its silence is taken for work.
    pub patience: Patience,
}

/// What is expected of a gateway over time.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A gateway that says nothing for this long is gone.
    pub silence: Duration,
    /// How often the time of an answer is measured, by a ping that costs nothing when it is not answered.
    pub pings: Duration,
}

/// Why no socket was opened. The text names the address and the setting to look at.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answers there.
    #[error("cannot reach {address}: {error} (--endpoint)")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS with {address} failed: {error}")]
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong.
        error: io::Error,
    },
    /// Somebody answers, but not a gateway.
    #[error("{address} answered HTTP {status} instead of opening a WebSocket: is this a gateway? (--endpoint)")]
    NotAGateway {
        /// Host and port.
        address: String,
        /// The HTTP status.
        status: u16,
    },
    /// The WebSocket handshake failed.
    #[error("the WebSocket handshake with {address} failed: {error}")]
    Handshake {
        /// Host and port.
        address: String,
        /// What went wrong.
        error: Box<WsError>,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s (--endpoint)", within.as_secs())]
    TimedOut {
        /// Host and port.
        address: String,
        /// The deadline.
        within: Duration,
    },
    /// The settings cannot be put into a request.
    #[error("{0}")]
    Settings(&'static str),
}

/// Opens the socket within `deadline`.
///
/// # Errors
/// [`DialError`].
pub async fn dial(target: &Target, deadline: Duration) -> Result<Box<Connection>, DialError> {
    let address = target.endpoint.authority();
    match tokio::time::timeout(deadline, open(target, &address)).await {
        Ok(opened) => opened,
        Err(_) => Err(DialError::TimedOut { address, within: deadline }),
    }
}

async fn open(target: &Target, address: &str) -> Result<Box<Connection>, DialError> {
    let request = request(target)?;
    let unreachable = |error| DialError::Unreachable { address: address.to_owned(), error };
    let tcp = TcpStream::connect((target.endpoint.host.as_str(), target.endpoint.port)).await.map_err(unreachable)?;
    // Small messages must not wait for each other's acknowledgement.
    tcp.set_nodelay(true).map_err(unreachable)?;
    // A gateway that takes nothing for this long is gone, whatever it still says. While much waits to be written it is
    // not listened to, so its silence would not be noticed.
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(&tcp, UNREAD_MS).map_err(|error| unreachable(error.into()))?;
    let stream: Box<dyn Stream> = if target.endpoint.tls {
        let tls = |error| DialError::Tls { address: address.to_owned(), error };
        let connector = tls_connector().map_err(|error| tls(io::Error::other(error)))?;
        let name = ServerName::try_from(target.endpoint.host.clone()).map_err(|error| tls(io::Error::other(error)))?;
        Box::new(connector.connect(name, tcp).await.map_err(tls)?)
    } else {
        Box::new(tcp)
    };
    let config = WebSocketConfig::default()
        .max_frame_size(Some(FRAME_MAX))
        .max_message_size(Some(FRAME_MAX))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (socket, response) = handshake.map_err(|error| match error {
        WsError::Http(response) => {
            DialError::NotAGateway { address: address.to_owned(), status: response.status().as_u16() }
        }
        error => DialError::Handshake { address: address.to_owned(), error: Box::new(error) },
    })?;
    let granted = response
        .headers()
        .get(FEATURES_HEADER)
        .and_then(|value| value.to_str().ok())
        .map_or_else(Features::default, Features::parse);
    Ok(Box::new(Connection::new(socket, target.version, target.patience, granted)))
}

fn request(target: &Target) -> Result<Request<()>, DialError> {
    let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string();
    let url = format!(
        "ws://{}{}/runners/connect?protocol_version={}&namespace={}&runner_key={}",
        target.endpoint.authority(),
        target.endpoint.path_prefix,
        target.version,
        encode(&target.namespace),
        encode(&target.runner_key),
    );
    let mut request =
        url.into_client_request().map_err(|_| DialError::Settings("--endpoint does not make a valid URL"))?;
    let protocols = match &target.token {
        Some(token) => format!("rivet, rivet_token.{}", token.expose_secret()),
        None => "rivet".to_owned(),
    };
    let mut protocols = HeaderValue::from_str(&protocols)
        .map_err(|_| DialError::Settings("the token has characters that cannot stand in a header"))?;
    protocols.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
    let offered = HeaderValue::from_str(&Features::ALL.to_string());
    headers.insert(FEATURES_HEADER, offered.map_err(|_| DialError::Settings("the features make no header"))?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("greenroom/", env!("CARGO_PKG_VERSION"))));
    Ok(request)
}

/// Makes TLS connections that trust what the system trusts.
///
/// # Errors
/// The system's certificates cannot be used.
pub fn tls_connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What a WebSocket can run over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

impl fmt::Debug for dyn Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

/// How long the system waits for the gateway to take what was written before it breaks the connection,
/// in milliseconds.
#[cfg(target_os = "linux")]
const UNREAD_MS: u32 = 30_000;
/// The most that is read at once, in bytes. The WebSocket library clears as much before every try to read, also when
/// there is nothing: with its default of 128 KiB that was a sixth of what a request cost.
const READ_BUFFER: usize = 16 * 1024;
/// Frames gather up to this before they are written, in bytes.
const WRITE_BUFFER: usize = 128 * 1024;
/// What stays as it is in a query value.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
