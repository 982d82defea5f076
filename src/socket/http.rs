//! HTTP calls out of the daemon: one connection per call.
//!
//! A connection that is used again may be closing while the next call goes out, and whether a call may be repeated then
//! is not for us to decide. What is called takes seconds; a handshake does not matter.
//!
//! Names are resolved here, so that the address that was looked at is the one that is connected to.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Fuse};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::dial::{Stream, tls_connector};
use crate::config::Endpoint;
use crate::link_local::is_link_local;

/// Calls one HTTP/1.1 server.
#[derive(Clone)]
pub struct HttpClient {
    origin: Endpoint,
    tls: Option<TlsConnector>,
    reach: Reach,
}

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All.
    Anywhere,
    /// None that is only good on this link: there, clouds serve the secrets of a machine to whoever asks from it.
    NotLinkLocal,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there.
    #[error("cannot reach {address}: {error}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The name leads to addresses that are not called.
    #[error("{address} leads to {ip}, an address of this link, where clouds keep the secrets of a machine")]
    LinkLocal {
        /// Host and port.
        address: String,
        /// Where it leads.
        ip: IpAddr,
    },
    /// No connection came about in time.
    #[error("{address} did not accept a connection within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimedOut {
        /// Host and port.
        address: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with {address} failed: {error}")]
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong.
        error: io::Error,
    },
    /// What came is no HTTP, or the connection broke.
    #[error("the call to {address} broke: {error}")]
    Broken {
        /// Host and port.
        address: String,
        /// What went wrong.
        error: hyper::Error,
    },
}

/// The body of an answer, with the connection that it comes from. Dropped, the connection is closed.
pub struct AnswerBody {
    body: Incoming,
    connection: Running,
}

/// A connection at work.
type Running = Fuse<BoxFuture<'static, ()>>;

impl HttpClient {
    /// A client of this server. The endpoint's path is the caller's business.
    ///
    /// # Errors
    /// The system's certificates cannot be used.
    pub fn new(origin: Endpoint, reach: Reach) -> Result<Self, rustls::Error> {
        let tls = if origin.tls { Some(tls_connector()?) } else { None };
        Ok(HttpClient { origin, tls, reach })
    }

    /// Where it calls.
    #[must_use]
    pub fn origin(&self) -> &Endpoint {
        &self.origin
    }

    /// Sends a request, whose URI is a path, and waits for the head of the answer. Redirects are not followed. Dropping
    /// the future ends the call.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<B>(&self, mut request: Request<B>) -> Result<Response<AnswerBody>, CallError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let address = self.origin.authority();
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&address)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(CallError::ConnectTimedOut { address }),
        };
        if let Ok(host) = HeaderValue::from_str(&self.host_header()) {
            request.headers_mut().insert(HOST, host);
        }
        let broken = |error| CallError::Broken { address: address.clone(), error };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // How the connection ends is told through the answer and its body. It runs in here and not in a task, so that
        // it is closed the moment the call is dropped.
        let mut connection: Running = connection.map(drop).boxed().fuse();
        let mut answer = pin!(sender.send_request(request));
        let answer = poll_fn(|context| {
            // It goes on as long as it can; what it has is in the answer.
            let _ = connection.poll_unpin(context);
            answer.as_mut().poll(context)
        });
        let answer = answer.await.map_err(broken)?;
        Ok(answer.map(|body| AnswerBody { body, connection }))
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn Stream>, CallError> {
        let unreachable = |error| CallError::Unreachable { address: address.to_owned(), error };
        let found = lookup_host((self.origin.host.as_str(), self.origin.port)).await.map_err(unreachable)?;
        let found: Vec<SocketAddr> = found.collect();
        let allowed = |found: &&SocketAddr| self.reach == Reach::Anywhere || !is_link_local(found.ip());
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        if let Some(refused) = found.first()
            && !found.iter().any(|found| allowed(&found))
        {
            return Err(CallError::LinkLocal { address: address.to_owned(), ip: refused.ip() });
        }
        for found in found.iter().filter(allowed) {
            match TcpStream::connect(found).await {
                Ok(tcp) => return self.secure(tcp, address).await,
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    async fn secure(&self, tcp: TcpStream, address: &str) -> Result<Box<dyn Stream>, CallError> {
        // Pieces of a stream must not wait for each other's acknowledgement.
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let failed = |error| CallError::Tls { address: address.to_owned(), error };
        let name = ServerName::try_from(self.origin.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
        Ok(Box::new(tls.connect(name, tcp).await.map_err(failed)?))
    }

    /// The authority without the port when it is the scheme's own, as most clients write it.
    fn host_header(&self) -> String {
        let usual = if self.origin.tls { 443 } else { 80 };
        let authority = self.origin.authority();
        match authority.rsplit_once(':') {
            Some((host, _)) if self.origin.port == usual => host.to_owned(),
            Some(_) | None => authority,
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("origin", &self.origin).field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // It goes on as long as it can; what it has is in the body.
        let _ = self.connection.poll_unpin(context);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long a server may take to accept a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_local_address_is_refused_without_a_connection() {
        let client = |reach| HttpClient::new("http://[::ffff:169.254.169.254]:1".parse().unwrap(), reach).unwrap();
        let request = || Request::new(http_body_util::Empty::<Bytes>::new());
        let error = client(Reach::NotLinkLocal).call(request()).await.unwrap_err();
        assert!(matches!(error, CallError::LinkLocal { .. }), "{error}");
    }

    #[test]
    fn the_host_header_names_an_unusual_port_only() {
        let header = |url: &str| HttpClient::new(url.parse().unwrap(), Reach::Anywhere).unwrap().host_header();
        assert_eq!(header("http://llm.internal/v1"), "llm.internal");
        assert_eq!(header("http://llm.internal:443"), "llm.internal:443");
        assert_eq!(header("http://[::1]:80"), "[::1]");
        assert_eq!(header("http://[::1]:81"), "[::1]:81");
    }
}
