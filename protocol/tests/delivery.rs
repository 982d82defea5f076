//! An outbox and a cursor with a connection between them that breaks at any time.

use std::collections::VecDeque;

use greenroom_protocol::delivery::{Arrival, Cursor, Outbox};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_each_item_is_taken_once_and_in_order(first in -3..3i64, steps in steps()) {
        let mut ends = Ends::new(first);
        for step in steps {
            ends.take(&step);
            prop_assert_eq!(&ends.taken, &ends.pushed[..ends.taken.len()]);
        }
        ends.settle();
        prop_assert_eq!(&ends.taken, &ends.pushed);
        prop_assert!(ends.outbox.is_empty());
    }

    #[test]
    fn a_lying_receiver_reaches_only_what_was_sent(
        first in -3..3i64,
        steps in steps(),
        claims in prop::collection::vec(any::<i64>(), 1..5),
    ) {
        let mut ends = Ends::new(first);
        let every = steps.len() / claims.len() + 1;
        let mut claims = claims.into_iter();
        for chunk in steps.chunks(every) {
            chunk.iter().for_each(|step| ends.take(step));
            ends.outbox.acknowledge(claims.next().unwrap_or(i64::MAX));
            let kept: Vec<u32> = ends.outbox.iter().map(|(_, item)| *item).collect();
            prop_assert!(ends.pushed.ends_with(&kept), "what is kept is the end of what was pushed");
            prop_assert!(kept.len() >= ends.pushed.len() - ends.ever_sent, "nothing unsent is forgotten");
        }
    }

    #[test]
    fn the_bound_holds_but_for_the_one_item_that_goes_beyond(steps in steps()) {
        let mut ends = Ends::new(0);
        let mut beyond = 0;
        for step in steps {
            beyond += usize::from(matches!(step, Step::PushBeyond));
            ends.take(&step);
            prop_assert!(ends.outbox.len() <= CAPACITY + beyond);
            let indexes: Vec<i64> = ends.outbox.iter().map(|(index, _)| index).collect();
            prop_assert!(indexes.is_sorted_by(|a, b| a + 1 == *b), "indexes rise by one");
            prop_assert!(indexes.last().is_none_or(|last| last + 1 == ends.outbox.next_index()));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    PushBeyond,
    Send,
    Arrive,
    Acknowledge,
    AcknowledgementArrives,
    Disconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => Just(Step::Push),
            1 => Just(Step::PushBeyond),
            4 => Just(Step::Send),
            4 => Just(Step::Arrive),
            2 => Just(Step::Acknowledge),
            2 => Just(Step::AcknowledgementArrives),
            1 => Just(Step::Disconnect),
        ],
        0..120,
    )
}

/// Both ends and what is under way between them.
struct Ends {
    outbox: Outbox<u32>,
    items: VecDeque<(i64, u32)>,
    cursor: Cursor,
    acknowledgements: VecDeque<i64>,
    pushed: Vec<u32>,
    taken: Vec<u32>,
    ever_sent: usize,
}

impl Ends {
    fn new(first: i64) -> Self {
        Ends {
            outbox: Outbox::new(first, CAPACITY),
            items: VecDeque::new(),
            cursor: Cursor::default(),
            acknowledgements: VecDeque::new(),
            pushed: Vec::new(),
            taken: Vec::new(),
            ever_sent: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        let item = self.pushed.len() as u32;
        match step {
            Step::Push => {
                if self.outbox.push(item).is_ok() {
                    self.pushed.push(item);
                }
            }
            Step::PushBeyond => {
                self.outbox.push_beyond(item);
                self.pushed.push(item);
            }
            Step::Send => {
                if let Some((index, item)) = self.outbox.send_next() {
                    self.ever_sent = self.ever_sent.max(*item as usize + 1);
                    self.items.push_back((index, *item));
                }
            }
            Step::Arrive => {
                if let Some((index, item)) = self.items.pop_front() {
                    match self.cursor.arrive(index) {
                        Arrival::New => self.taken.push(item),
                        Arrival::Repeat => assert!(self.taken.contains(&item), "only what was taken is a repeat"),
                    }
                }
            }
            Step::Acknowledge => self.acknowledgements.extend(self.cursor.take_acknowledgement()),
            Step::AcknowledgementArrives => {
                if let Some(index) = self.acknowledgements.pop_front() {
                    self.outbox.acknowledge(index);
                }
            }
            Step::Disconnect => {
                self.items.clear();
                self.acknowledgements.clear();
                self.outbox.disconnected();
            }
        }
    }

    /// The connection breaks once more and then holds until nothing is under way.
    fn settle(&mut self) {
        self.take(&Step::Disconnect);
        while !self.outbox.all_sent() || !self.items.is_empty() {
            self.take(&Step::Send);
            self.take(&Step::Arrive);
        }
        self.take(&Step::Acknowledge);
        self.take(&Step::AcknowledgementArrives);
    }
}

const CAPACITY: usize = 8;
