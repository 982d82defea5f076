//! What is worth remembering about sockets for a while.

use std::collections::{BTreeMap, VecDeque};

use greenroom_protocol::StreamId;

/// Notes about sockets; beyond the bound the oldest go.
#[derive(Debug)]
pub(super) struct Recent<T> {
    notes: BTreeMap<StreamId, T>,
    /// Ids in the order of their notes. A note that was taken leaves its id behind until its turn.
    order: VecDeque<StreamId>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent { notes: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<T> Recent<T> {
    /// Notes something, in place of what was noted before; gives the note that had to go for it.
    #[must_use]
    pub(super) fn note(&mut self, id: StreamId, note: T) -> Option<(StreamId, T)> {
        if let Some(before) = self.notes.insert(id, note) {
            return Some((id, before));
        }
        self.order.push_back(id);
        if self.order.len() <= NOTES_MAX {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.notes.remove_entry(&oldest)
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&T> {
        self.notes.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut T> {
        self.notes.get_mut(&id)
    }

    pub(super) fn take(&mut self, id: StreamId) -> Option<T> {
        self.notes.remove(&id)
    }
}

/// The most notes of a kind.
const NOTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_note_goes_when_there_are_too_many() {
        let id = |number: usize| {
            let number = u32::try_from(number).expect("small").to_be_bytes();
            StreamId { gateway: [0; 4], request: number }
        };
        let mut recent = Recent::default();
        for number in 0..NOTES_MAX {
            assert_eq!(recent.note(id(number), number), None);
        }
        assert_eq!(recent.take(id(1)), Some(1));
        assert_eq!(recent.note(id(2), 7), Some((id(2), 2)), "noted anew");
        assert_eq!(recent.note(id(NOTES_MAX), NOTES_MAX), Some((id(0), 0)));
        assert_eq!(recent.note(id(NOTES_MAX + 1), NOTES_MAX + 1), None, "the turn of one that was taken");
        assert_eq!(recent.get(id(2)), Some(&7));
        assert_eq!(recent.order.len(), NOTES_MAX);
    }
}
