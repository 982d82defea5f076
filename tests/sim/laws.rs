//! What everybody is entitled to, whatever breaks.

use std::fmt;

/// A promise. The text of each says what it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// A generation of an actor is started once, on whatever runner and in whatever process of it.
    AGenerationStartsOnce,
    /// A runner does not run two generations of an actor at once.
    OneLifeOnARunner,
    /// A life is told to stop once, and only while it is there.
    AStopIsToldOnce,
    /// A command that reached a runner is acknowledged within a second, or with the next connection.
    ACommandIsAcknowledgedSoon,
    /// A gateway does not repeat a command whose acknowledgement it has.
    AnAcknowledgedCommandIsNotRepeated,
    /// A runner tells of a life what happened to it, and of no other.
    EventsSayWhatHappened,
    /// Events of a life go out in order, none skipped, and again until they are acknowledged.
    NoEventIsSkipped,
    /// Nobody is told of anything that a crash can still undo.
    NothingIsToldBeforeItIsDurable,
    /// What was acknowledged to an actor is readable ever after, and no older write replaces it.
    AnAcknowledgedWriteStays,
    /// A storage request is answered once, and in time.
    AStorageRequestIsAnswered,
    /// A stream goes to the newest life of its actor, and what is said on it comes from there.
    AStreamHasOneLife,
    /// A request that may change something runs at most once.
    ARequestRunsOnce,
    /// An answer that says nothing ran is true.
    NotTakenMeansNotRun,
    /// A client gets the answer to its own request.
    AnAnswerIsToItsRequest,
    /// A body that comes in pieces comes in order and whole, or is broken off.
    ABodyIsWhole,
    /// What a client says on a socket that hibernates reaches the actor in order, none skipped, none twice.
    ASocketIsReadInOrder,
    /// Such a socket is closed by its client, its actor, or with its actor; not because anything works badly for a while.
    ASocketStaysOpen,
    /// Of such a socket nothing is acknowledged that the actor has not made durable.
    NothingIsAcknowledgedBeforeItIsTaken,
    /// What an actor says on a socket reaches the client in order.
    AClientHearsInOrder,
    /// Everything that a client opened ends, or goes on with somebody at the other end.
    ARequestEnds,
    /// Every call of the gateway's users is answered.
    ACallIsAnswered,
    /// One socket to the gateway at a time, and what is sent on it begins with an introduction.
    OneConnection,
    /// A drain ends in its time.
    ADrainEnds,
    /// Every refusal has a reason that a person can read.
    ARefusalHasAReason,
    /// Nothing grows beyond its limit.
    EverythingIsBounded,
    /// An alarm is not lost.
    AnAlarmRings,
    /// An actor that sleeps is not woken before its alarm, if nobody else wants it.
    AnAlarmIsNotEarly,
    /// When everything works again, gateway and runners agree on which actor lives where.
    EverybodyAgrees,
    /// Whoever has nothing to do waits.
    NobodySpins,
    /// No input makes anybody panic.
    NobodyPanics,
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub law: Law,
    pub what: String,
    /// The step of the plan, or none when everything worked again.
    pub step: Option<usize>,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => write!(f, "{:?}, at step {step}: {}", self.law, self.what),
            None => write!(f, "{:?}, when everything worked again: {}", self.law, self.what),
        }
    }
}
