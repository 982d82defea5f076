//! Records that say the same again and again: the first few of a while, then how many more there were.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use tracing::Metadata;

use crate::telemetry::record::{Fields, Value};

/// What was said within the last while. Bounded: beyond its size, what is new is let through uncounted.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    said: HashMap<u64, Said>,
}

#[derive(Debug)]
struct Said {
    since: Instant,
    times: u64,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write it.
    Write,
    /// Write it, and that it came this many times more since it was last written.
    WriteWithCount(u64),
    /// Do not write it.
    Skip,
}

impl Repeats {
    /// Judges a record that comes from one place in the code and has these fields. Numbers do not make it another
    /// one: the tenth refusal with another delay says nothing new.
    pub fn judge(&mut self, metadata: &Metadata<'_>, message: &str, fields: &Fields, now: Instant) -> Verdict {
        // What an actor writes is its own business; its rate is limited where it is read.
        if fields.contains(super::fields::LINE) {
            return Verdict::Write;
        }
        let mut hasher = DefaultHasher::new();
        metadata.callsite().hash(&mut hasher);
        message.hash(&mut hasher);
        for (name, value) in fields.iter() {
            name.hash(&mut hasher);
            match value {
                Value::Text(text) => text.hash(&mut hasher),
                Value::Bool(value) => value.hash(&mut hasher),
                Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) => {}
            }
        }
        self.count(hasher.finish(), now)
    }

    fn count(&mut self, key: u64, now: Instant) -> Verdict {
        if self.said.len() >= KEYS_MAX && !self.said.contains_key(&key) {
            self.said.retain(|_, said| now.duration_since(said.since) < WINDOW);
            if self.said.len() >= KEYS_MAX {
                return Verdict::Write;
            }
        }
        let said = self.said.entry(key).or_insert(Said { since: now, times: 0 });
        if now.duration_since(said.since) >= WINDOW {
            let skipped = said.times.saturating_sub(WRITTEN);
            *said = Said { since: now, times: 1 };
            return if skipped == 0 { Verdict::Write } else { Verdict::WriteWithCount(skipped) };
        }
        said.times += 1;
        if said.times <= WRITTEN { Verdict::Write } else { Verdict::Skip }
    }
}

/// How long a record counts as said.
const WINDOW: Duration = Duration::from_secs(10);
/// How often it is written within that time.
const WRITTEN: u64 = 5;
/// How many different records are remembered at once.
const KEYS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_a_few_times_and_then_counted() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for _ in 0..WRITTEN {
            assert_eq!(repeats.count(1, start), Verdict::Write);
        }
        for _ in 0..7 {
            assert_eq!(repeats.count(1, start + WINDOW / 2), Verdict::Skip);
        }
        assert_eq!(repeats.count(2, start), Verdict::Write, "another record is another matter");
        assert_eq!(repeats.count(1, start + WINDOW), Verdict::WriteWithCount(7));
        assert_eq!(repeats.count(1, start + WINDOW), Verdict::Write);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for key in 0..3 * KEYS_MAX as u64 {
            assert_eq!(repeats.count(key, start), Verdict::Write);
        }
        assert_eq!(repeats.said.len(), KEYS_MAX);
        assert_eq!(repeats.count(u64::MAX, start + WINDOW), Verdict::Write);
        assert_eq!(repeats.said.len(), 1);
    }
}
