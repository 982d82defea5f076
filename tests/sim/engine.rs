//! A model of the Rivet engine with its irregularities, in place of our gateway.

use std::collections::VecDeque;
use std::time::Instant;

use greenroom::gateway::core::{Effect, Input, Now, Settings};

/// The engine.
pub struct Engine {
    effects: VecDeque<Effect>,
}

impl Engine {
    pub fn new(_: Settings, _: u64) -> Self {
        Engine { effects: VecDeque::new() }
    }

    pub fn handle(&mut self, _: Input, _: Now) {}

    pub fn handle_timeout(&mut self, _: Now) {}

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn reset(&mut self) {}
}
