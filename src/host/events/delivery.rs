//! Telling an actor one event.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::activity::Work;
use super::gate::Passage;
use crate::host::panics::caught;
use crate::host::{Delivery, EventAnswer, EventError, Events, HostedActor};

/// Tells one actor life its events. Cheap to clone; dropping the future of a telling takes the event back as far as
/// that is possible.
#[derive(Clone)]
pub(in crate::host) struct Teller {
    actor: Arc<dyn HostedActor>,
    events: Events,
}

/// What an event came to.
#[derive(Debug)]
pub(in crate::host) struct Told {
    pub(in crate::host) result: Result<EventAnswer, EventError>,
    /// To be held until the answer has had its effect: whoever shuts the gate waits for it.
    pub(in crate::host) passage: Passage,
}

impl Teller {
    /// The teller of an actor that runs.
    pub(in crate::host) fn new(actor: Arc<dyn HostedActor>, events: Events) -> Self {
        Teller { actor, events }
    }

    /// Waits for the event's turn, tells it, and waits for the answer until the handler's deadline.
    pub(in crate::host) async fn tell(&self, delivery: Delivery) -> Told {
        // One that waits for its turn keeps the actor awake as well.
        let _working = self.events.activity().working(Work::Event);
        let passage = self.events.gate().pass().await;
        let limit = self.events.settings().handler_timeout;
        let result = match timeout(limit, caught(self.actor.clone().event(delivery))).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(EventError::Failed(panic)),
            Err(_) => Err(EventError::Failed(format!("did not answer within {limit:?}"))),
        };
        Told { result, passage }
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

/// How long an actor may take to answer an event, unless its host says otherwise: a gateway waits as long for the
/// acknowledgement of a frame.
pub const HANDLER_TIMEOUT: Duration = Duration::from_secs(30);
