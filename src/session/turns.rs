//! The order in which messages for actors are handled when many have come at once.
//!
//! They came through one socket, one behind the other, and whatever is done for one keeps those behind it waiting. So the
//! lives they are for take turns: in each round every one of them has one message handled, and a patient client's request
//! waits for one message of the neighbour that others flood, not for all of them. What belongs to one stream keeps its
//! order.

use std::collections::VecDeque;

use greenroom_protocol::{MessageId, ToClient, ToClientTunnel};

use super::Session;
use crate::number_map::NumberMap;

/// When a message is to be handled.
#[derive(Debug)]
pub enum When {
    /// When it is its turn; [`Turns`] keeps it until then.
    InTurn,
    /// Now: nothing depends on whether it comes before what waits.
    Now(ToClient),
    /// When nothing waits any more.
    Last(ToClient),
}

/// Messages for actors that came and wait to be handled.
#[derive(Debug, Default)]
pub struct Turns {
    /// By round, and in a round as they came.
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// How many of them are for [`NOBODY`].
    of_nobody: usize,
    /// The round of what was taken last. The first is 1.
    round: u64,
    /// The last round in which each life has its turn. Those that are over mean nothing.
    lives: NumberMap<Life, u64>,
    batch: Batch,
}

#[derive(Debug)]
struct Waiting {
    round: u64,
    life: Life,
    id: MessageId,
    message: ToClientTunnel,
}

/// What was taken since [`Turns::begin_batch`].
#[derive(Debug, Default)]
struct Batch {
    /// Messages, but an opening counts as [`OPENING`] of them.
    work: usize,
    /// How many messages in this round.
    in_round: usize,
    /// Whose the first was.
    first: Option<Life>,
    /// Others had their turn too.
    shared: bool,
}

/// The number of a life, or [`NOBODY`].
type Life = u64;

impl Turns {
    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many more messages may come before some of these are handled.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.bytes < BYTES { MESSAGES.saturating_sub(self.waiting.len()) } else { 0 }
    }

    /// Takes a message in, if it is one that may wait for its turn.
    pub fn take_in(&mut self, message: ToClient, session: &Session) -> When {
        match message {
            // What came for the older stream of this id belongs to the older life.
            ToClient::Tunnel { id, message } if session.reopens(id, &message) => {
                When::Last(ToClient::Tunnel { id, message })
            }
            ToClient::Tunnel { id, message } => {
                let life = session.life_of(id, &message);
                self.add(id, message, life);
                When::InTurn
            }
            ToClient::Kv { .. } => When::Now(message),
            // Commands and what else is said of lives find everything handled that was said before.
            ToClient::Init { .. } | ToClient::Commands(_) | ToClient::AckEvents(_) | ToClient::Ping { .. } => {
                When::Last(message)
            }
        }
    }

    /// Lets a message wait for the turn of its life, or for that of whatever else waits of its stream: an opening, of
    /// which the session does not know yet, or what came before it knew the stream.
    fn add(&mut self, id: MessageId, message: ToClientTunnel, life: Option<u64>) {
        let earlier = match life {
            Some(_) if self.of_nobody == 0 => None,
            Some(_) | None => self.waiting.iter().rev().find(|other| other.id.stream == id.stream),
        };
        let life = earlier.map(|earlier| earlier.life).or(life).unwrap_or(NOBODY);
        self.of_nobody += usize::from(life == NOBODY);
        let last = self.lives.entry(life).or_insert(0);
        let round = self.round.max(*last + 1);
        *last = round;
        self.bytes += message.payload_len();
        let one = Waiting { round, life, id, message };
        match self.waiting.back() {
            Some(back) if back.round > round => {
                let place = self.waiting.partition_point(|other| other.round <= round);
                self.waiting.insert(place, one);
            }
            Some(_) | None => self.waiting.push_back(one),
        }
    }

    /// Begins a batch: what is handled before others get to answer.
    pub fn begin_batch(&mut self) {
        self.batch = Batch::default();
    }

    /// The next message, until the batch is over. It is earlier when one life has the rest to itself: then those that it
    /// shared the batch with are answered first.
    pub fn next_of_batch(&mut self) -> Option<(MessageId, ToClientTunnel)> {
        let round = self.waiting.front()?.round;
        if round != self.round {
            let alone = self.batch.in_round == 1;
            if self.batch.shared && alone && self.batch.work >= SHARED_BATCH {
                return None;
            }
            self.batch.in_round = 0;
        }
        if self.batch.work >= BATCH {
            return None;
        }
        let life = self.waiting.front()?.life;
        let (id, message) = self.take()?;
        self.batch.work += if message.opens() { OPENING } else { 1 };
        self.batch.in_round += 1;
        self.batch.shared |= *self.batch.first.get_or_insert(life) != life;
        Some((id, message))
    }

    /// The next message, whatever the batch.
    pub fn take(&mut self) -> Option<(MessageId, ToClientTunnel)> {
        let Waiting { round, life, id, message } = self.waiting.pop_front()?;
        self.round = round;
        self.of_nobody -= usize::from(life == NOBODY);
        self.bytes -= message.payload_len();
        if self.waiting.is_empty() {
            self.lives.clear();
        } else if self.lives.len() > REMEMBERED {
            self.lives.retain(|_, last| *last > round);
        }
        Some((id, message))
    }
}

/// Messages for streams that nobody here has.
const NOBODY: Life = u64::MAX;
/// What an opening and its answer cost, about, in messages that follow one: measured by the benchmark.
const OPENING: usize = 2;
/// The work that is done before those who were given it get to answer. Whoever asks meanwhile waits for this long, and
/// each answer that is written alone is dearer by a system call.
const BATCH: usize = 32;
/// The least, when there is more.
const SHARED_BATCH: usize = 8;
/// The most messages that wait.
const MESSAGES: usize = 512;
/// The bytes of messages that wait beyond which no more come.
const BYTES: usize = 16 * 1024 * 1024;
/// Lives that are looked through for those whose turns are over.
const REMEMBERED: usize = 4 * MESSAGES;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use greenroom_protocol::{KvResponse, StreamId};

    use super::*;
    use crate::session::Input;
    use crate::session::fixture::{open_with_actor, start};

    const FLOODED: u64 = 1;
    const PATIENT: u64 = 2;

    fn at(stream: u32, index: u16) -> MessageId {
        MessageId { stream: StreamId { gateway: *b"gate", request: stream.to_be_bytes() }, index }
    }

    fn frame(bytes: usize) -> ToClientTunnel {
        ToClientTunnel::WebSocketMessage { data: Bytes::from(vec![0; bytes]), binary: true }
    }

    fn opening() -> ToClientTunnel {
        ToClientTunnel::WebSocketOpen { actor_id: "a".into(), path: "/".into(), headers: vec![] }
    }

    /// Forty messages for one life, and then one for another.
    fn flooded() -> Turns {
        let mut turns = Turns::default();
        for index in 0..40 {
            turns.add(at(1, index), frame(1), Some(FLOODED));
        }
        turns.add(at(2, 0), frame(1), Some(PATIENT));
        turns
    }

    /// The stream and index of everything in the next batch.
    fn batch(turns: &mut Turns) -> Vec<(u32, u16)> {
        turns.begin_batch();
        std::iter::from_fn(|| turns.next_of_batch())
            .map(|(id, _)| (u32::from_be_bytes(id.stream.request), id.index))
            .collect()
    }

    #[test]
    fn a_message_waits_for_one_of_each_other_life() {
        let mut turns = flooded();
        assert_eq!(batch(&mut turns)[..3], [(1, 0), (2, 0), (1, 1)]);
        // One that comes later likewise, and what one life was given it does not get back in the next round.
        turns.add(at(2, 1), frame(1), Some(PATIENT));
        turns.add(at(3, 0), frame(1), None);
        assert!(batch(&mut turns)[..3].contains(&(2, 1)));
    }

    #[test]
    fn a_batch_ends_with_the_last_round_that_several_share() {
        let mut turns = flooded();
        assert_eq!(batch(&mut turns).len(), SHARED_BATCH);
        assert_eq!(batch(&mut turns).len(), BATCH);
        let rest = batch(&mut turns).len() + batch(&mut turns).len();
        assert_eq!(rest, 41 - SHARED_BATCH - BATCH);
        assert!(turns.is_empty());
        assert!(batch(&mut turns).is_empty());
    }

    #[test]
    fn who_comes_between_two_batches_shares_the_next() {
        let mut turns = Turns::default();
        for index in 0..2 * BATCH as u16 {
            turns.add(at(1, index), frame(1), Some(FLOODED));
        }
        assert_eq!(batch(&mut turns).len(), BATCH);
        turns.add(at(2, 0), frame(1), Some(PATIENT));
        let next = batch(&mut turns);
        assert_eq!((next[0], next.len()), ((2, 0), SHARED_BATCH));
    }

    #[test]
    fn a_stream_keeps_its_order_although_its_opening_waits() {
        let mut turns = Turns::default();
        for stream in 10..14 {
            turns.add(at(stream, 0), frame(1), Some(FLOODED));
        }
        turns.add(at(1, 0), opening(), Some(FLOODED));
        turns.add(at(1, 1), frame(1), None);
        turns.add(at(2, 0), opening(), Some(PATIENT));
        turns.add(at(1, 2), frame(1), None);
        turns.add(at(2, 1), frame(1), None);
        let order = std::iter::from_fn(|| turns.take()).map(|(id, _)| id).collect::<Vec<_>>();
        for stream in [1, 2] {
            let indexes: Vec<_> =
                order.iter().filter(|id| id.stream == at(stream, 0).stream).map(|id| id.index).collect();
            assert!(indexes.is_sorted(), "{indexes:?} on {stream}");
        }
        assert_eq!(order[1..4], [at(2, 0), at(11, 0), at(2, 1)]);
    }

    #[test]
    fn a_stream_keeps_its_order_when_its_life_becomes_known() {
        let mut turns = Turns::default();
        turns.add(at(5, 0), frame(1), None);
        turns.add(at(1, 0), frame(1), None);
        turns.add(at(1, 1), frame(1), Some(PATIENT));
        turns.add(at(2, 0), frame(1), Some(PATIENT));
        let order = std::iter::from_fn(|| turns.take()).map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(order, [at(5, 0), at(2, 0), at(1, 0), at(1, 1)]);
        turns.add(at(1, 2), frame(1), Some(PATIENT));
        assert_eq!(turns.waiting[0].life, PATIENT);
    }

    #[test]
    fn what_belongs_to_an_older_life_is_handled_before_a_newer_one() {
        let (now, mut turns) = (Instant::now(), Turns::default());
        let mut session = open_with_actor(now);
        let opened = || ToClient::Tunnel { id: at(1, 0), message: opening() };
        assert!(matches!(turns.take_in(opened(), &session), When::InTurn));
        let put = ToClient::Kv { request_id: 1, response: KvResponse::Put };
        assert!(matches!(turns.take_in(put, &session), When::Now(_)));
        assert!(matches!(turns.take_in(start(), &session), When::Last(ToClient::Commands(_))));
        // The stream is open: its next opening may be for another life.
        session.handle(Input::Received(opened()), now);
        assert!(matches!(turns.take_in(opened(), &session), When::Last(_)));
        let said = ToClient::Tunnel { id: at(1, 1), message: frame(1) };
        assert!(matches!(turns.take_in(said, &session), When::InTurn));
    }

    #[test]
    fn more_than_a_bound_does_not_wait() {
        let mut turns = Turns::default();
        assert_eq!(turns.room(), MESSAGES);
        turns.add(at(1, 0), frame(BYTES), Some(1));
        assert_eq!(turns.room(), 0);
        turns.take();
        for index in 0..MESSAGES {
            turns.add(at(1, index as u16), frame(1), Some(index as u64));
        }
        assert_eq!(turns.room(), 0);
        turns.take();
        assert_eq!(turns.room(), 1);
    }

    #[test]
    fn lives_whose_turns_are_over_are_forgotten() {
        let mut turns = Turns::default();
        turns.add(at(1, 0), frame(1), Some(0));
        for life in 1..=3 * REMEMBERED as u64 {
            turns.add(at(1, 0), frame(1), Some(life));
            turns.take();
        }
        assert!(!turns.is_empty());
        assert!(turns.lives.len() <= REMEMBERED, "{}", turns.lives.len());
    }
}
