//! The way to the task that owns the sockets of an actor. Most actors never have one, so it is made for the first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tracing::Span;

use super::engine::{INPUTS, Input};

/// The way to the engine of one life.
#[derive(Debug, Default)]
pub(in crate::host) struct Door(Mutex<State>);

/// What comes to an engine.
pub(in crate::host) type Inputs = mpsc::Receiver<Box<Input>>;
/// The way there; its senders wait while it is full.
pub(in crate::host) type EngineSender = mpsc::Sender<Box<Input>>;

#[derive(Debug, Default)]
enum State {
    /// The actor does not run yet.
    #[default]
    Early,
    /// Nor does it now, and it has asked for something; that waits.
    Waiting(EngineSender, Inputs),
    /// It runs, and there has been no socket.
    Quiet(Span),
    /// There is an engine.
    Engine(EngineSender),
    /// The life is over.
    Over,
}

/// Where a wish of the actor goes.
#[derive(Debug)]
pub(in crate::host) enum Way {
    /// To the engine, which is there or will be.
    To(EngineSender),
    /// Nowhere: without an engine there are no sockets.
    NoEngine,
    /// Nowhere any more.
    Over,
}

impl Door {
    /// The way for the actor itself.
    pub(super) fn way(&self) -> Way {
        self.state().way()
    }

    /// The actor runs, in the span of now. Answers what an engine is to be made for, when it is `needed` or already
    /// asked for something.
    pub(super) fn begin(&self, needed: bool) -> Option<Inputs> {
        let mut state = self.state();
        let (engine, inputs) = match std::mem::replace(&mut *state, State::Over) {
            State::Early if needed => mpsc::channel(INPUTS),
            State::Waiting(engine, inputs) => (engine, inputs),
            State::Early => {
                *state = State::Quiet(Span::current());
                return None;
            }
            other @ (State::Quiet(_) | State::Engine(_) | State::Over) => {
                *state = other;
                return None;
            }
        };
        *state = State::Engine(engine);
        Some(inputs)
    }

    /// The way for a socket; the first one makes the engine, in the actor's span. Nothing when the life is over.
    pub(super) fn for_socket(&self, make: impl FnOnce(Inputs)) -> Option<EngineSender> {
        let mut state = self.state();
        if let State::Quiet(span) = &*state {
            let (engine, inputs) = mpsc::channel(INPUTS);
            span.in_scope(|| make(inputs));
            *state = State::Engine(engine);
        }
        match state.way() {
            Way::To(engine) => Some(engine),
            Way::NoEngine | Way::Over => None,
        }
    }

    /// The life is over. What waits for an engine that never came is answered so.
    pub(super) fn end(&self) {
        *self.state() = State::Over;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn way(&mut self) -> Way {
        match self {
            State::Early => {
                let (engine, inputs) = mpsc::channel(INPUTS);
                *self = State::Waiting(engine.clone(), inputs);
                Way::To(engine)
            }
            State::Waiting(engine, _) | State::Engine(engine) => Way::To(engine.clone()),
            State::Quiet(_) => Way::NoEngine,
            State::Over => Way::Over,
        }
    }
}
