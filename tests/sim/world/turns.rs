//! The order in which a runner handles what came: as its driver does, but with time between one batch and the next.

use greenroom::protocol::ToClient;
use greenroom::session::{Input, When};

use super::{Happening, World};

impl World {
    /// A message has come, and waits or is handled.
    pub fn take_turns(&mut self, number: usize, message: ToClient) {
        let runner = &mut self.runners[number];
        let session = runner.session.as_ref().filter(|_| self.conditions.crowded);
        let Some(session) = session else { return self.tell_runner(number, Input::Received(message)) };
        let idle = runner.turns.is_empty();
        match runner.turns.take_in(message, session) {
            When::InTurn if idle => self.later_turn(number),
            When::InTurn => {}
            When::Now(message) => self.tell_runner(number, Input::Received(message)),
            When::Last(message) => {
                self.take_all_turns(number);
                self.tell_runner(number, Input::Received(message));
            }
        }
    }

    /// Some of what waits is handled.
    pub fn turn(&mut self, number: usize, process: u64) {
        if self.runners[number].process != process {
            return;
        }
        self.runners[number].turns.begin_batch();
        while let Some((id, message)) = self.runners[number].turns.next_of_batch() {
            self.tell_runner(number, Input::Received(ToClient::Tunnel { id, message }));
        }
        if !self.runners[number].turns.is_empty() {
            self.later_turn(number);
        }
    }

    pub fn take_all_turns(&mut self, number: usize) {
        while let Some((id, message)) = self.runners[number].turns.take() {
            self.tell_runner(number, Input::Received(ToClient::Tunnel { id, message }));
        }
    }

    fn later_turn(&mut self, number: usize) {
        let (after, process) = (self.dice.millis(0, 20), self.runners[number].process);
        self.later(after, Happening::Turn { runner: number, process });
    }
}
