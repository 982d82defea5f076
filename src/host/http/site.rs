//! Where an app is, with the connections that are kept to it. An app that serves many actors has one for all of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HOST, HeaderValue};
use hyper::{StatusCode, Uri};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Address, Connection, Outbound, Pool, SendError};
use super::{App, Identity};
use crate::host::StartActor;

/// An app, whoever it serves. Cheap to clone.
#[derive(Clone)]
pub(in crate::host) struct Site {
    pub(super) address: Address,
    pub(super) pool: Arc<Pool>,
    doubted: Arc<Notify>,
}

/// What is wrong with an app that was looked at.
#[derive(Debug, thiserror::Error)]
pub(in crate::host) enum Unwell {
    /// No connection: nobody is there.
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    /// It is there, and does not answer.
    #[error("did not answer within {} s", LOOK_MAX.as_secs())]
    Slow,
    /// It closed the connection, or does not speak HTTP.
    #[error("did not answer the health check: {0}")]
    Broken(hyper::Error),
    /// It says that it is not well.
    #[error("answered the health check with status {}", .0.as_u16())]
    Status(StatusCode),
}

impl Site {
    /// An app that serves one actor.
    pub(super) fn of_one(address: Address) -> Self {
        Site { address, pool: Arc::new(Pool::new(IDLE_OF_ONE)), doubted: Arc::default() }
    }

    /// An app that serves many.
    pub(in crate::host) fn of_many(address: Address) -> Self {
        Site { address, pool: Arc::new(Pool::new(IDLE_OF_MANY)), doubted: Arc::default() }
    }

    /// The app as one of its actors has it; `gone` tells when it is no more.
    pub(in crate::host) fn app(&self, start: &StartActor, identity: Identity, gone: CancellationToken) -> App {
        App { site: self.clone(), name: start.name.clone(), identity, gone }
    }

    /// Resolves when the app accepts a connection.
    pub(in crate::host) async fn listens(&self) {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Ok(io) = self.address.connect().await
                && let Ok(connection) = Connection::open(io).await
            {
                return self.pool.put_back(connection).await;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_PAUSE_MAX);
        }
    }

    /// Looks whether the app is well: it accepts a connection, and with a path, answers a GET of it with 2xx.
    pub(in crate::host) async fn look(&self, path: Option<&Uri>) -> Result<(), Unwell> {
        let look = async {
            let io = self.address.connect_patiently().await.map_err(Unwell::Unreachable)?;
            let Some(path) = path else { return Ok(()) };
            let mut connection = Connection::open(io).await.map_err(Unwell::Broken)?;
            let mut request = hyper::Request::new(Outbound::whole(Bytes::new()));
            *request.uri_mut() = path.clone();
            request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
            match connection.send(request).await {
                Ok(response) if response.status().is_success() => Ok(()),
                Ok(response) => Err(Unwell::Status(response.status())),
                Err(SendError::Failed(error)) => Err(Unwell::Broken(error)),
                Err(SendError::Unsent(_)) => Err(Unwell::Unreachable(io::ErrorKind::ConnectionReset.into())),
            }
        };
        timeout(LOOK_MAX, look).await.unwrap_or(Err(Unwell::Slow))
    }

    /// Something went wrong with it: it should be looked at.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Resolves when somebody doubts that the app is well.
    pub(in crate::host) fn doubted(&self) -> Arc<Notify> {
        self.doubted.clone()
    }
}

/// The longest pause between two looks for an app that starts.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long an app may take to accept a connection and to answer a health check.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How many connections of one actor wait. Each is an open file and, in many servers, a thread.
const IDLE_OF_ONE: usize = 8;

/// How many connections to an app of many actors wait, for all of them together.
const IDLE_OF_MANY: usize = 64;
