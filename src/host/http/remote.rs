//! Servers by URL: names are resolved for every connection, and TLS where the URL says so.

use std::fmt;
use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::config::Endpoint;

/// A server that somebody else runs.
pub(in crate::host) struct Remote {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection to one.
pub(super) type Tcp = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Remote {
    /// The server of this URL; `tls` is for those that begin with `https`.
    ///
    /// # Errors
    /// Why there can be no TLS with it.
    pub(in crate::host) fn new(url: &Endpoint, tls: Option<TlsConnector>) -> Result<Self, String> {
        let tls = if url.tls {
            let name = ServerName::try_from(url.host.clone()).map_err(|error| format!("{url}: {error}"))?;
            Some((tls.ok_or_else(|| format!("{url}: TLS is not set up"))?, name))
        } else {
            None
        };
        Ok(Remote { host: url.host.clone(), port: url.port, tls })
    }

    /// Connects once.
    pub(super) async fn connect(&self) -> io::Result<Tcp> {
        let connect = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            let tcp = super::connection::usable(tcp)?;
            match &self.tls {
                None => Ok(Either::Left(tcp)),
                Some((connector, name)) => Ok(Either::Right(Box::new(connector.connect(name.clone(), tcp).await?))),
            }
        };
        timeout(CONNECT_MAX, connect).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// How long a server may take to accept a connection, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(5);
