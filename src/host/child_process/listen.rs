//! Where a process is told to listen, and how we reach it there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rand::RngExt;

use crate::host::StartError;
use crate::host::http::Address;

use super::Listen;

/// The place one process listens at.
#[derive(Debug)]
pub(super) enum Listening {
    /// The process makes the socket.
    Unix(PathBuf),
    /// The process binds the port.
    Port(Port),
    /// The process inherits the socket, which listens already.
    Fd(PathBuf),
    /// Nowhere: the process asks for what it is to be told.
    Pull,
}

impl Listening {
    /// Prepares the place. The descriptor, when there is one, becomes the process's [`LISTEN_FD`].
    pub(super) fn prepare(listen: Listen, socket: PathBuf) -> Result<(Self, Option<OwnedFd>), StartError> {
        match listen {
            Listen::Unix => Ok((Listening::Unix(socket), None)),
            Listen::Port => Ok((Listening::Port(Port::choose()?), None)),
            Listen::Pull => Ok((Listening::Pull, None)),
            Listen::Fd => {
                let listener = UnixListener::bind(&socket)
                    .map_err(|error| StartError(format!("could not listen on {}: {error}", socket.display())))?;
                Ok((Listening::Fd(socket), Some(listener.into())))
            }
        }
    }

    /// How we reach the process, when it listens.
    pub(super) fn address(&self) -> Option<Address> {
        Some(match self {
            Listening::Pull => return None,
            Listening::Unix(path) | Listening::Fd(path) => Address::Unix(path.clone()),
            Listening::Port(port) => Address::Tcp(port.address()),
        })
    }

    /// What the process is told about it.
    pub(super) fn variables(&self) -> Vec<(&'static str, OsString)> {
        match self {
            Listening::Unix(path) => vec![("ACTOR_SOCKET", path.into())],
            Listening::Port(port) => {
                vec![("HOST", port.address().ip().to_string().into()), ("PORT", port.0.to_string().into())]
            }
            Listening::Pull => Vec::new(),
            Listening::Fd(_) => vec![("LISTEN_FDS", "1".into()), ("LISTEN_FDNAMES", "actor".into())],
        }
    }

    /// What the process was to do to be ready, for a person.
    pub(super) fn describe(&self) -> String {
        match self {
            Listening::Pull => "ask for /v1/next (listen = \"pull\")".to_owned(),
            Listening::Unix(path) => format!("listen on {} (ACTOR_SOCKET)", path.display()),
            Listening::Port(port) => format!("listen on {} (HOST and PORT)", port.address()),
            Listening::Fd(_) => format!("listen on file descriptor {LISTEN_FD} (LISTEN_FDS)"),
        }
    }
}

/// A loopback port that no other actor of this runner is given meanwhile.
#[derive(Debug)]
pub(super) struct Port(u16);

impl Port {
    /// Picks a free one at random, below the range from which the kernel takes ports for outgoing connections: a port
    /// of that range could be gone again before the process binds it.
    fn choose() -> Result<Self, StartError> {
        for _ in 0..ATTEMPTS {
            let port = rand::rng().random_range(PORTS);
            if !TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
                continue;
            }
            let port = Port(port);
            if TcpListener::bind(port.address()).is_ok() {
                return Ok(port);
            }
        }
        Err(StartError(format!("no free port found between {} and {}", PORTS.start, PORTS.end - 1)))
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0).into()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// The first descriptor of the `LISTEN_FDS` convention.
pub(super) const LISTEN_FD: i32 = 3;

/// The ports that living actors of this process were given.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Where ports are picked: Linux takes outgoing ports from 32,768 up.
const PORTS: std::ops::Range<u16> = 20_000..32_768;

/// Enough to find one free port while most are taken.
const ATTEMPTS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice_while_it_is_held() {
        let ports: Vec<_> = (0..200).map(|_| Port::choose().unwrap()).collect();
        let distinct: BTreeSet<_> = ports.iter().map(|port| port.0).collect();
        assert_eq!(distinct.len(), ports.len());
    }
}
