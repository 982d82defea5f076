//! A request's body on its way to an actor in pieces, as fast as the actor takes them.
//!
//! A task reads the client's body only as far as there is credit for it. Until the first grant comes back, all that was
//! sent is kept: no actor has taken any of it, so the request can be tried again. After that it cannot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use greenroom_protocol::credit::{GRANT, WINDOW, cost};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::request_body::{Unread, broken, too_slow};
use crate::credit::Credit;
use crate::gateway::handle::Uplink;
use crate::gateway::refusal::Refusal;
use crate::gateway::{GatewayError, StreamUp};

/// A body that is not there as a whole.
#[derive(Debug)]
pub(super) struct Upload {
    /// Read, and still to be sent. None is larger than a grant.
    ready: VecDeque<Bytes>,
    /// What was sent, as long as all of it is kept.
    sent: Option<Vec<Bytes>>,
    sent_cost: usize,
    rest: Incoming,
    /// The rest has been read.
    ended: bool,
    /// How long the client may pause.
    idle: Duration,
}

/// The task that sends an upload. Dropped, it lets the client send what is left, unheard.
#[derive(Debug)]
pub(super) struct Pump {
    back: oneshot::Sender<oneshot::Sender<Upload>>,
    failure: oneshot::Receiver<Refusal>,
    progress: Arc<AtomicUsize>,
}

impl Upload {
    /// A body that begins with these pieces.
    pub(super) fn new(pieces: VecDeque<Bytes>, rest: Incoming, idle: Duration) -> Self {
        let mut upload =
            Upload { ready: VecDeque::new(), sent: Some(Vec::new()), sent_cost: 0, rest, ended: false, idle };
        for piece in pieces {
            upload.push(piece);
        }
        upload
    }

    /// The first piece, which travels with the head.
    pub(super) fn first(&mut self, credit: &Credit) -> Option<Bytes> {
        let piece = self.ready.pop_front()?;
        // Nothing has been sent on it, so there is enough.
        let _ = credit.spend(piece.len()).now_or_never();
        self.note_sent(&piece);
        Some(piece)
    }

    /// Goes back to the beginning; `false` when that is not there any more.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(sent) = self.sent.take() else { return false };
        for piece in sent.into_iter().rev() {
            self.ready.push_front(piece);
        }
        self.sent = Some(Vec::new());
        self.sent_cost = 0;
        true
    }

    /// What was read and the rest, for who wants it whole.
    pub(super) fn into_parts(self) -> (VecDeque<Bytes>, Incoming) {
        (self.ready, self.rest)
    }

    /// Sends it all from a task of its own.
    pub(super) fn start(self, uplink: Uplink, credit: Credit, tasks: &TaskTracker) -> Pump {
        let (back, wanted) = oneshot::channel();
        let (failed, failure) = oneshot::channel();
        let progress = Arc::new(AtomicUsize::new(0));
        tasks.spawn(self.run(uplink, credit, Arc::clone(&progress), wanted, failed));
        Pump { back, failure, progress }
    }

    async fn run(
        mut self,
        uplink: Uplink,
        credit: Credit,
        progress: Arc<AtomicUsize>,
        mut wanted: oneshot::Receiver<oneshot::Sender<Upload>>,
        failed: oneshot::Sender<Refusal>,
    ) {
        let wanted = tokio::select! {
            biased;
            wanted = &mut wanted => wanted,
            sent = self.send_all(&uplink, &credit, &progress) => {
                if let Err(refusal) = sent {
                    // First why, then that: whoever sees the stream end may ask for the reason.
                    let _ = failed.send(refusal);
                    uplink.abandon().await;
                }
                wanted.await
            }
        };
        match wanted {
            Ok(reply) => drop(reply.send(self)),
            // The response is complete before the request was, or the client is gone.
            Err(_) if self.ended => {}
            Err(_) => Unread::drain(self.rest).await,
        }
    }

    async fn send_all(&mut self, uplink: &Uplink, credit: &Credit, progress: &AtomicUsize) -> Result<(), Refusal> {
        let stopped = |error: GatewayError| Refusal::from(error);
        loop {
            while let Some(piece) = self.ready.front() {
                credit.spend(piece.len()).await;
                let Some(body) = self.ready.pop_front() else { break };
                self.note_sent(&body);
                uplink.send(StreamUp::Chunk { body, finish: false }).await.map_err(stopped)?;
                progress.fetch_add(1, Ordering::Relaxed);
            }
            if self.ended {
                uplink.send(StreamUp::Chunk { body: Bytes::new(), finish: true }).await.map_err(stopped)?;
                progress.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            match timeout(self.idle, self.rest.frame()).await {
                Err(_) => return Err(too_slow(self.idle)),
                Ok(Some(Err(_))) => return Err(broken()),
                Ok(None) => self.ended = true,
                // Trailers are left out.
                Ok(Some(Ok(frame))) => frame.into_data().map_or((), |piece| self.push(piece)),
            }
        }
    }

    fn push(&mut self, mut piece: Bytes) {
        while piece.len() > GRANT {
            self.ready.push_back(piece.split_to(GRANT));
        }
        if !piece.is_empty() {
            self.ready.push_back(piece);
        }
    }

    fn note_sent(&mut self, piece: &Bytes) {
        self.sent_cost += cost(piece.len());
        if self.sent_cost > WINDOW {
            // There was credit for more than a window: the actor has taken some.
            self.sent = None;
        }
        if let Some(sent) = &mut self.sent {
            sent.push(piece.clone());
        }
    }
}

impl Pump {
    /// Why the client's body did not come, when it did not.
    pub(super) fn failure(&mut self) -> Option<Refusal> {
        self.failure.try_recv().ok()
    }

    /// Rises while the body moves on.
    pub(super) fn progress(&self) -> usize {
        self.progress.load(Ordering::Relaxed)
    }

    /// Stops, and gives the upload back.
    pub(super) async fn stop(self) -> Option<Upload> {
        let (reply, upload) = oneshot::channel();
        self.back.send(reply).ok()?;
        upload.await.ok()
    }
}
