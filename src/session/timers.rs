//! Everything that happens because time passes.

use std::time::Instant;

use crate::session::Session;

impl Session {
    /// When [`Session::handle_timeout`] is due, whatever else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.link.timeout(),
            self.acknowledgements_due().filter(|_| self.link.is_open()),
            self.storage.timeout(),
            self.hibernation.timeout().filter(|_| self.link.is_open()),
            self.next_forget(),
            self.drain_timeout(),
        ];
        if self.link.is_over() { None } else { timers.into_iter().flatten().min() }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.link.is_over() {
            return;
        }
        self.link_timeout(now);
        if self.link.is_open() && self.acknowledgements_due().is_some_and(|due| due <= now) {
            self.flush_acknowledgements();
        }
        self.storage_timeout(now);
        self.hibernation_timeout(now);
        self.forget_settled(now);
        self.advance_drain(now);
    }
}
