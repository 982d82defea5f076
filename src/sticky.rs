//! Which backend answered, remembered so that the next call may go there again.
//!
//! An actor's calls through one egress go to a pool of backends, each with caches of its own. The upstream says with
//! every answer which backend it was; [`Tracker`] keeps the last one durably and offers it as a hint. It follows the
//! upstream: when the preferred backend is away or full and another one answers, that one is the next hint.
//!
//! What is in memory is never ahead of what is on disk: an answer is first written, and only when the write has
//! succeeded it is what the next call is told. So a restart goes on with exactly the last hint that was durable.

/// Which backend answered, and the key under which it keeps its cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The backend's name.
    pub backend: String,
    /// The cache key, when the upstream gave one.
    pub cache_key: Option<String>,
}

/// The record of one actor or job at one egress. Decides what is written when, and writes nothing itself.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// On disk, as far as is known.
    persisted: Option<Record>,
    /// On its way to the disk.
    writing: Option<Record>,
    /// What answered last.
    seen: Option<Record>,
    /// What is on disk may be something else: reading it failed, or a write had no answer.
    unsure: bool,
}

/// The durable record has changed from one backend or key to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// What was there before.
    pub old: Option<Record>,
    /// What is there now.
    pub new: Record,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is on disk.
    Durable,
    /// It is not.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl Tracker {
    /// A tracker of what was read from disk.
    #[must_use]
    pub fn restored(persisted: Option<Record>) -> Self {
        Tracker { persisted, writing: None, seen: None, unsure: false }
    }

    /// A tracker where the disk could not be read: without a hint, and the next answer is written whatever it is.
    #[must_use]
    pub fn unread() -> Self {
        Tracker { unsure: true, ..Tracker::restored(None) }
    }

    /// The hint for the next call: what is known to be on disk.
    #[must_use]
    pub fn hint(&self) -> Option<&Record> {
        self.persisted.as_ref()
    }

    /// Whether reading the disk failed and nothing was written since.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unsure && self.persisted.is_none() && self.writing.is_none()
    }

    /// An answer came from this backend. Returns what is to be written, if anything; [`Tracker::written`] wants to hear
    /// of it. One write is under way at a time.
    #[must_use]
    pub fn observe(&mut self, backend: &str, cache_key: Option<&str>) -> Option<Record> {
        // An answer without a key says nothing of the key its backend gave before.
        let known = [&self.seen, &self.writing, &self.persisted].into_iter().flatten();
        let known = known.into_iter().find(|record| record.backend == backend);
        let cache_key = cache_key.map(str::to_owned).or_else(|| known.and_then(|record| record.cache_key.clone()));
        self.seen = Some(Record { backend: backend.to_owned(), cache_key });
        self.next_write()
    }

    /// The write that [`Tracker::observe`] or this wanted came to an end. Returns the change to tell, if there is one,
    /// and the next write when another backend has answered meanwhile. A failed write is not repeated before the next
    /// answer.
    #[must_use]
    pub fn written(&mut self, outcome: Written) -> (Option<Switch>, Option<Record>) {
        let Some(written) = self.writing.take() else { return (None, None) };
        match outcome {
            Written::Durable => {
                self.unsure = false;
                let old = self.persisted.replace(written.clone());
                let switch = (old.as_ref() != Some(&written)).then_some(Switch { old, new: written });
                (switch, self.next_write())
            }
            Written::Failed => (None, None),
            Written::Unknown => {
                self.unsure = true;
                (None, None)
            }
        }
    }

    fn next_write(&mut self) -> Option<Record> {
        let seen = self.seen.as_ref()?;
        let known = self.persisted.as_ref() == Some(seen) && !self.unsure;
        if known || self.writing.is_some() {
            return None;
        }
        self.writing.clone_from(&self.seen);
        self.writing.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unchanged_answers_write_nothing() {
        let mut tracker = Tracker::restored(Some(record("a", Some("k"))));
        assert_eq!(tracker.observe("a", Some("k")), None);
        assert_eq!(tracker.observe("a", None), None);
        assert_eq!(tracker.observe("a", Some("other")), Some(record("a", Some("other"))));
    }

    #[test]
    fn the_hint_is_the_old_one_until_the_write_has_succeeded() {
        let mut tracker = Tracker::restored(Some(record("a", None)));
        assert_eq!(tracker.observe("b", Some("k")), Some(record("b", Some("k"))));
        assert_eq!(tracker.hint(), Some(&record("a", None)));
        let switch = Switch { old: Some(record("a", None)), new: record("b", Some("k")) };
        assert_eq!(tracker.written(Written::Durable), (Some(switch), None));
        assert_eq!(tracker.hint(), Some(&record("b", Some("k"))));
    }

    #[test]
    fn a_failed_write_is_retried_on_the_next_answer_and_told_once() {
        let mut tracker = Tracker::restored(None);
        for _ in 0..3 {
            assert_eq!(tracker.observe("b", None), Some(record("b", None)));
            assert_eq!(tracker.written(Written::Failed), (None, None));
            assert_eq!(tracker.hint(), None);
        }
        assert!(tracker.observe("b", None).is_some());
        assert!(tracker.written(Written::Durable).0.is_some());
        assert_eq!(tracker.observe("b", None), None);
    }

    #[test]
    fn the_latest_of_many_answers_is_written_after_the_one_under_way() {
        let mut tracker = Tracker::restored(None);
        assert_eq!(tracker.observe("a", None), Some(record("a", None)));
        assert_eq!(tracker.observe("b", None), None);
        assert_eq!(tracker.observe("c", None), None);
        let (switch, next) = tracker.written(Written::Durable);
        assert_eq!(switch, Some(Switch { old: None, new: record("a", None) }));
        assert_eq!(next, Some(record("c", None)));
    }

    #[test]
    fn after_a_write_of_unknown_outcome_the_next_answer_is_written_whatever_it_is() {
        let mut tracker = Tracker::restored(Some(record("a", None)));
        assert!(tracker.observe("b", None).is_some());
        assert_eq!(tracker.written(Written::Unknown), (None, None));
        assert_eq!(tracker.hint(), Some(&record("a", None)));
        // The disk may say b by now.
        assert_eq!(tracker.observe("a", None), Some(record("a", None)));
        assert_eq!(tracker.written(Written::Durable), (None, None));
        assert_eq!(tracker.observe("a", None), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Answer(usize, Option<usize>),
        /// The write under way ends; the first says whether the disk has it, the second whether we hear so.
        End {
            applied: bool,
            told: bool,
        },
        /// The daemon is killed and started again.
        Kill,
    }

    proptest! {
        #[test]
        fn memory_is_never_ahead_of_the_disk(steps in prop::collection::vec(steps(), 0..60)) {
            let mut disk: Option<Record> = None;
            let mut tracker = Tracker::restored(None);
            let mut writing: Option<Record> = None;
            let mut unsure = false;
            for step in steps {
                match step {
                    Step::Answer(backend, key) => {
                        let before = tracker.hint().cloned();
                        let next = tracker.observe(NAMES[backend], key.map(|key| NAMES[key]));
                        prop_assert_eq!(tracker.hint(), before.as_ref(), "an answer alone moves nothing");
                        if let Some(next) = next {
                            prop_assert!(writing.is_none(), "two writes at once");
                            prop_assert!(unsure || Some(&next) != disk.as_ref(), "nothing has changed");
                            writing = Some(next);
                        }
                    }
                    Step::End { applied, told } => if let Some(record) = writing.take() {
                        let outcome = match (applied, told) {
                            (true, true) => Written::Durable,
                            (false, true) => Written::Failed,
                            (_, false) => Written::Unknown,
                        };
                        if applied {
                            disk = Some(record);
                        }
                        unsure = match outcome {
                            Written::Durable => false,
                            Written::Failed => unsure,
                            Written::Unknown => true,
                        };
                        let before = tracker.hint().cloned();
                        let (switch, next) = tracker.written(outcome);
                        if let Some(switch) = switch {
                            prop_assert_ne!(&switch.old, &Some(switch.new.clone()));
                            prop_assert_eq!((&switch.old, Some(&switch.new)), (&before, disk.as_ref()));
                        }
                        writing = next;
                    },
                    Step::Kill => {
                        writing = None;
                        unsure = false;
                        tracker = Tracker::restored(disk.clone());
                    }
                }
                if !unsure {
                    prop_assert_eq!(tracker.hint(), disk.as_ref());
                }
            }
        }
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_usize, prop::option::of(0..3_usize)).prop_map(|(backend, key)| Step::Answer(backend, key)),
            3 => (any::<bool>(), prop::bool::weighted(0.8)).prop_map(|(applied, told)| Step::End { applied, told }),
            1 => Just(Step::Kill),
        ]
    }

    fn record(backend: &str, cache_key: Option<&str>) -> Record {
        Record { backend: backend.to_owned(), cache_key: cache_key.map(str::to_owned) }
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];
}
