//! Servers by URL: names are resolved for every connection, and TLS where the URL says so.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::config::Endpoint;
use crate::link_local::is_link_local;

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

    /// Where it is now. An address of this link must have been written down as such: a name that leads there is a
    /// mistake, or somebody's attempt at the secrets of the machine.
    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        if self.host.parse::<IpAddr>().is_err() {
            found.retain(|address| !is_link_local(address.ip()));
            if found.is_empty() {
                let says = format!("{} leads to no address but those of this link", self.host);
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, says));
            }
        }
        Ok(found)
    }

    /// Connects once.
    pub(super) async fn connect(&self) -> io::Result<Tcp> {
        let connect = async {
            let tcp = TcpStream::connect(&*self.addresses().await?).await?;
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
