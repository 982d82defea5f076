//! The task that owns the sockets of one actor life.

use std::collections::HashMap;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use greenroom_protocol::{KvRequest, StreamId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::delivery::{Teller, Told};
use super::door::{EngineSender, Inputs};
use super::sockets::Wish;
use super::table::{Effect, SocketError, Table, Ticket};
use crate::host::{ActorContext, Call, Frame, KvError, StreamKey, WebSocket, WebSocketRequest};

/// What comes to the engine; bounded, and its senders wait. Boxed on its way, because a channel has room for many from
/// the beginning, and most are empty.
#[derive(Debug)]
pub(in crate::host) enum Input {
    /// A client wants a socket.
    Opened(WebSocketRequest, StreamKey),
    /// The gateway holds a socket of an earlier life.
    Reattached(StreamKey),
    /// A client sent or closed.
    Frame(StreamKey, Frame),
    /// Nothing more comes on this stream.
    Detached(StreamKey),
    /// The actor wants something.
    Wish(Wish),
}

/// The engine of one life, from when the actor runs.
pub(in crate::host) struct Engine {
    table: Table,
    inputs: Inputs,
    teller: Teller,
    context: ActorContext,
    tellings: JoinSet<(StreamId, Told)>,
    storing: OptionFuture<BoxFuture<'static, Result<(), KvError>>>,
    tickets: HashMap<Ticket, oneshot::Sender<Result<(), SocketError>>>,
    next_ticket: Ticket,
}

impl Engine {
    pub(super) fn new(table: Table, inputs: Inputs, teller: Teller, context: ActorContext) -> Self {
        Engine {
            table,
            inputs,
            teller,
            context,
            tellings: JoinSet::new(),
            storing: None.into(),
            tickets: HashMap::new(),
            next_ticket: 0,
        }
    }

    /// Runs until it is dropped with the life. Most actors have no socket for most of the time: what the loop takes is
    /// taken when there is something to do.
    pub(in crate::host) async fn run(mut self: Box<Self>) {
        let first = self.table.poll_effect();
        if first.is_none() && self.table.poll_timeout().is_none() {
            match self.inputs.recv().await {
                Some(input) => self.take(*input),
                None => return,
            }
        }
        Box::pin(self.serve(first)).await;
    }

    async fn serve(mut self: Box<Self>, first: Option<Effect>) {
        if let Some(effect) = first {
            self.perform(effect).await;
        }
        loop {
            while let Some(effect) = self.table.poll_effect() {
                self.perform(effect).await;
            }
            let due = self.table.poll_timeout();
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(*input),
                    None => return,
                },
                Some(told) = self.tellings.join_next() => match told {
                    Ok((socket, Told { result, passage })) => {
                        self.table.told(socket, result, Instant::now());
                        drop(passage);
                    }
                    // The code of the actor is caught where it runs; the rest is ours.
                    Err(error) => tracing::error!(%error, "telling an event failed"),
                },
                Some(result) = &mut self.storing => {
                    self.storing = None.into();
                    self.table.stored(result, Instant::now());
                }
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.table.handle_timeout(Instant::now());
                }
            }
        }
    }

    fn take(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Opened(request, stream) => self.table.opened(request, stream),
            Input::Reattached(stream) => self.table.reattached(stream),
            Input::Frame(stream, frame) => self.table.frame(stream, frame, now),
            Input::Detached(stream) => self.table.detached(stream, now),
            Input::Wish(wish) => self.grant(wish, now),
        }
    }

    /// Whoever wished may have given up waiting for the answer.
    fn grant(&mut self, wish: Wish, now: Instant) {
        match wish {
            Wish::List { tag, answer } => drop(answer.send(self.table.list(tag.as_deref()))),
            Wish::Send { socket, frame, answer } => drop(answer.send(self.table.send(socket, frame))),
            Wish::Broadcast { tag, frame, answer } => {
                drop(answer.send(self.table.broadcast(tag.as_deref(), &frame)));
            }
            Wish::Close { socket, code, reason, answer } => {
                drop(answer.send(self.table.close(socket, code, &reason, now)));
            }
            Wish::Attachment { socket, answer } => drop(answer.send(self.table.attachment(socket))),
            Wish::Attach { socket, attachment, answer } => {
                let ticket = self.ticket(answer);
                self.table.attach(socket, attachment, ticket);
            }
            Wish::Flush { answer } => {
                let ticket = self.ticket(answer);
                self.table.flush(ticket);
            }
        }
    }

    fn ticket(&mut self, answer: oneshot::Sender<Result<(), SocketError>>) -> Ticket {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, answer);
        self.next_ticket
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Tell { socket, delivery } => {
                let teller = self.teller.clone();
                self.tellings.spawn(async move { (socket, teller.tell(delivery).await) });
            }
            Effect::Store(entries) => {
                let (keys, values) = entries.into_iter().unzip();
                self.storage(KvRequest::Put { keys, values });
            }
            Effect::Erase(keys) => self.storage(KvRequest::Delete { keys }),
            Effect::Reply { stream, reply } => {
                let call = Call::Stream { actor: self.context.key().clone(), stream, reply };
                // Without a runner there is no client to tell.
                let _ = self.context.calls().send(call).await;
            }
            Effect::Answer { ticket, result } => {
                if let Some(answer) = self.tickets.remove(&ticket) {
                    // Whoever waited may have given up.
                    let _ = answer.send(result);
                }
            }
        }
    }

    fn storage(&mut self, request: KvRequest) {
        let context = self.context.clone();
        self.storing = Some(async move { context.kv_with_notes(request).await.map(drop) }.boxed()).into();
    }
}

/// Hands the frames of one stream to the engine until it ends; dropped before that, it says so.
pub(in crate::host) async fn forward(
    engine: Option<EngineSender>,
    request: Option<WebSocketRequest>,
    socket: WebSocket,
) {
    let (stream, mut frames) = socket.detach();
    // Without an engine the life is over; what becomes of its sockets is the session's matter.
    let Some(engine) = engine else { return };
    let mut end = SaysDetached { engine, stream: Some(stream) };
    let first = match request {
        Some(request) => Input::Opened(request, stream),
        None => Input::Reattached(stream),
    };
    if end.engine.send(Box::new(first)).await.is_err() {
        return;
    }
    while let Some(frame) = frames.recv().await {
        let last = matches!(frame, Frame::Closed { .. });
        if end.engine.send(Box::new(Input::Frame(stream, frame))).await.is_err() {
            return;
        }
        if last {
            end.stream = None;
            return;
        }
    }
}

struct SaysDetached {
    engine: EngineSender,
    stream: Option<StreamKey>,
}

impl Drop for SaysDetached {
    fn drop(&mut self) {
        use mpsc::error::TrySendError;
        let Some(stream) = self.stream.take() else { return };
        if let Err(TrySendError::Full(input)) = self.engine.try_send(Box::new(Input::Detached(stream))) {
            let engine = self.engine.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    // The life may end meanwhile, and then nobody waits for this.
                    let _ = engine.send(input).await;
                });
            }
        }
    }
}

/// Inputs that may wait for the engine; beyond this their senders wait.
pub(in crate::host) const INPUTS: usize = 256;
