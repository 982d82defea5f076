//! Deliberate bugs, put between the cores and the rest of the world, to know that the laws catch such.

/// One kind of bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Acknowledgements of commands are swallowed now and then.
    SkipCommandAck,
    /// Acknowledgements of events are swallowed now and then.
    SkipEventAck,
    /// What a past life of an actor says counts for the present one.
    DeliverAcrossGenerations,
    /// After a reconnect the events that were not acknowledged are not sent again.
    ForgetToResendEvents,
    /// After a reconnect the commands that were not acknowledged are not sent again.
    ForgetToResendCommands,
    /// Events are acknowledged before what they changed is durable.
    AcknowledgeEventsBeforeSync,
    /// Storage requests are answered before they are durable.
    AnswerStorageBeforeSync,
    /// Messages of sockets that hibernate are acknowledged before the actor has taken them.
    AcknowledgeMessagesBeforeTaken,
    /// Alarms ring before their time.
    RingEarly,
    /// What a client said on a socket that hibernates is not sent again.
    ForgetToResendMessages,
}
