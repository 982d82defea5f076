//! The one way both ends get a numbered message across a connection that may break.
//!
//! The sender keeps each item in an [`Outbox`] under a rising index until the receiver acknowledges it; after a
//! reconnect everything kept is sent again, in order. The receiver's [`Cursor`] lets each index through once and
//! knows what to acknowledge. Runners deliver events this way, gateways commands.

use std::collections::VecDeque;

/// Items numbered and kept until acknowledged.
#[derive(Clone, Debug)]
pub struct Outbox<T> {
    next: i64,
    capacity: usize,
    /// How many of `kept`, from the oldest on, were sent on this connection.
    sent: usize,
    /// How many of `kept`, from the oldest on, were sent on any connection; only these can be acknowledged.
    ever_sent: usize,
    kept: VecDeque<(i64, T)>,
}

/// The outbox holds as many unacknowledged items as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} items wait for an acknowledgement, no more are taken")]
pub struct Full(pub usize);

impl<T> Outbox<T> {
    /// An empty outbox whose first item gets the index `first`, holding at most `capacity` items.
    #[must_use]
    pub fn new(first: i64, capacity: usize) -> Self {
        Outbox { next: first, capacity, sent: 0, ever_sent: 0, kept: VecDeque::new() }
    }

    /// Takes an item and returns its index.
    ///
    /// # Errors
    /// [`Full`] when the bound is reached; the item is not taken and no index is used up.
    pub fn push(&mut self, item: T) -> Result<i64, Full> {
        if self.kept.len() >= self.capacity {
            return Err(Full(self.kept.len()));
        }
        Ok(self.push_beyond(item))
    }

    /// Takes an item even when the bound is reached: for the one that must not be lost, such as the last of its stream.
    pub fn push_beyond(&mut self, item: T) -> i64 {
        let index = self.next;
        self.next = self.next.saturating_add(1);
        self.kept.push_back((index, item));
        index
    }

    /// The next item that was not sent on this connection.
    pub fn send_next(&mut self) -> Option<(i64, &T)> {
        let (index, item) = self.kept.get(self.sent)?;
        self.sent += 1;
        self.ever_sent = self.ever_sent.max(self.sent);
        Some((*index, item))
    }

    /// The connection is gone: everything kept counts as not sent.
    pub fn disconnected(&mut self) {
        self.sent = 0;
    }

    /// Forgets every item up to and including `index` that was sent on this connection or an earlier one; answers how
    /// many. What was never sent stays, whatever the peer claims to have.
    pub fn acknowledge(&mut self, index: i64) -> usize {
        self.release(index).count()
    }

    /// As [`Outbox::acknowledge`], for a sender that wants to see what is forgotten, oldest first.
    pub fn release(&mut self, index: i64) -> impl Iterator<Item = T> {
        let reached = self.kept.iter().take(self.ever_sent).take_while(|(kept, _)| *kept <= index).count();
        self.ever_sent -= reached;
        self.sent = self.sent.saturating_sub(reached);
        self.kept.drain(..reached).map(|(_, item)| item)
    }

    /// Forgets everything, sent or not, when nobody waits for it any more. Numbering goes on where it was.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.sent = 0;
        self.ever_sent = 0;
    }

    /// The index the next item will get.
    #[must_use]
    pub fn next_index(&self) -> i64 {
        self.next
    }

    /// How many items wait for an acknowledgement.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// How many items were sent on this connection and wait for an acknowledgement.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sent
    }

    /// Nothing waits for an acknowledgement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Nothing waits to be sent on this connection.
    #[must_use]
    pub fn all_sent(&self) -> bool {
        self.sent == self.kept.len()
    }

    /// What is kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &T)> {
        self.kept.iter().map(|(index, item)| (*index, item))
    }
}

/// The receiver's place in a stream of rising indexes. Gaps are fine, repeats are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    last: Option<i64>,
    unacknowledged: u64,
}

/// Whether an item is new to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// Take it.
    New,
    /// It was taken before; drop it.
    Repeat,
}

impl Cursor {
    /// A cursor that has already taken everything up to `last`, and says so again.
    #[must_use]
    pub fn resumed(last: Option<i64>) -> Self {
        Cursor { last, unacknowledged: u64::from(last.is_some()) }
    }

    /// Notes the arrival of `index`. A repeat means that the sender missed the acknowledgement, so one is due again.
    pub fn arrive(&mut self, index: i64) -> Arrival {
        if self.last.is_some_and(|last| index <= last) {
            self.acknowledge_again();
            return Arrival::Repeat;
        }
        self.last = Some(index);
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        Arrival::New
    }

    /// The highest index taken.
    #[must_use]
    pub fn last(&self) -> Option<i64> {
        self.last
    }

    /// How many items were taken since the last acknowledgement; at least 1 when one is due for another reason.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    /// The index to acknowledge now, once per advance or repeat.
    pub fn take_acknowledgement(&mut self) -> Option<i64> {
        if self.unacknowledged == 0 {
            return None;
        }
        self.unacknowledged = 0;
        self.last
    }

    /// Makes an acknowledgement due although nothing new arrived, for a sender that may have missed the last one.
    pub fn acknowledge_again(&mut self) {
        if self.last.is_some() {
            self.unacknowledged = self.unacknowledged.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_items_are_sent_again_in_order_after_a_disconnect() {
        let mut outbox = Outbox::new(0, 10);
        for item in ["a", "b", "c"] {
            outbox.push(item).expect("room");
        }
        while outbox.send_next().is_some() {}
        assert_eq!(outbox.acknowledge(0), 1);
        outbox.disconnected();
        assert_eq!(outbox.send_next(), Some((1, &"b")));
        assert_eq!(outbox.send_next(), Some((2, &"c")));
        assert_eq!(outbox.send_next(), None);
    }

    #[test]
    fn a_full_outbox_refuses_without_using_up_an_index() {
        let mut outbox = Outbox::new(5, 1);
        assert_eq!(outbox.push("a"), Ok(5));
        assert_eq!(outbox.push("b"), Err(Full(1)));
        assert_eq!(outbox.push_beyond("last"), 6);
        while outbox.send_next().is_some() {}
        assert_eq!(outbox.acknowledge(6), 2);
        assert_eq!(outbox.push("c"), Ok(7));
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_loses_nothing() {
        let mut outbox = Outbox::new(0, 10);
        for item in ["a", "b", "c"] {
            outbox.push(item).expect("room");
        }
        assert_eq!(outbox.acknowledge(i64::MAX), 0);
        outbox.send_next();
        assert_eq!(outbox.acknowledge(i64::MAX), 1);
        assert_eq!(outbox.send_next(), Some((1, &"b")));
        assert_eq!(outbox.send_next(), Some((2, &"c")));
    }

    #[test]
    fn a_cleared_outbox_keeps_counting() {
        let mut outbox = Outbox::new(0, 10);
        for item in ["a", "b"] {
            outbox.push(item).expect("room");
        }
        outbox.send_next();
        outbox.clear();
        assert!(outbox.is_empty() && outbox.all_sent());
        assert_eq!(outbox.push("c"), Ok(2));
        assert_eq!(outbox.acknowledge(2), 0);
        assert_eq!(outbox.send_next(), Some((2, &"c")));
    }

    #[test]
    fn an_acknowledgement_may_come_after_a_reconnect_and_before_the_resend() {
        let mut outbox = Outbox::new(0, 10);
        for item in ["a", "b", "c"] {
            outbox.push(item).expect("room");
        }
        outbox.send_next();
        outbox.send_next();
        outbox.disconnected();
        assert_eq!(outbox.acknowledge(1), 2);
        assert_eq!(outbox.send_next(), Some((2, &"c")));
        assert!(outbox.all_sent());
        assert_eq!(outbox.in_flight(), 1);
        assert_eq!(outbox.release(2).collect::<Vec<_>>(), ["c"]);
        assert_eq!(outbox.in_flight(), 0);
    }

    #[test]
    fn a_cursor_takes_each_index_once_and_allows_gaps() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.arrive(0), Arrival::New);
        assert_eq!(cursor.arrive(0), Arrival::Repeat);
        assert_eq!(cursor.arrive(7), Arrival::New);
        assert_eq!(cursor.arrive(3), Arrival::Repeat);
        assert_eq!(cursor.take_acknowledgement(), Some(7));
        assert_eq!(cursor.take_acknowledgement(), None);
        cursor.acknowledge_again();
        assert_eq!(cursor.take_acknowledgement(), Some(7));
    }

    #[test]
    fn a_cursor_counts_what_it_took_since_its_last_acknowledgement() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.unacknowledged(), 0);
        for index in [5, 6, 300] {
            assert_eq!(cursor.arrive(index), Arrival::New);
        }
        assert_eq!(cursor.unacknowledged(), 3);
        assert_eq!(cursor.take_acknowledgement(), Some(300));
        assert_eq!(cursor.unacknowledged(), 0);
    }

    #[test]
    fn a_repeat_is_acknowledged_again() {
        let mut cursor = Cursor::resumed(Some(4));
        assert_eq!(cursor.take_acknowledgement(), Some(4));
        assert_eq!(cursor.take_acknowledgement(), None);
        assert_eq!(cursor.arrive(2), Arrival::Repeat);
        assert_eq!(cursor.take_acknowledgement(), Some(4));
    }

    #[test]
    fn a_cursor_that_took_nothing_acknowledges_nothing() {
        let mut cursor = Cursor::resumed(None);
        cursor.acknowledge_again();
        assert_eq!(cursor.take_acknowledgement(), None);
    }
}
