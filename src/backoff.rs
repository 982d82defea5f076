//! Exponential delays with jitter, as plain arithmetic.
//!
//! The random part comes from a small seeded generator inside, so that a session with the same seed does the same
//! thing twice; the seed itself comes from the shell.

use std::time::Duration;

/// Delays that double from `first` to `most`, each lengthened by up to a quarter at random.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
    seed: u64,
}

impl Backoff {
    /// A schedule at its beginning.
    #[must_use]
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Backoff { first, most, attempt: 0, seed }
    }

    /// The delay before the next attempt.
    #[must_use]
    pub fn next_delay(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.attempt).unwrap_or(u32::MAX));
        self.attempt = self.attempt.saturating_add(1);
        let base = doubled.min(self.most);
        base + base.mul_f64(self.fraction() * JITTER)
    }

    /// How many delays were handed out since the last reset.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Goes back to at most this many delays handed out.
    pub fn rewind(&mut self, attempts: u32) {
        self.attempt = self.attempt.min(attempts);
    }

    /// Begins again with the shortest delay.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next value of a splitmix64 sequence, as a fraction of one.
    fn fraction(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The most that chance adds, as a part of the delay: what the TypeScript runner uses.
const JITTER: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_most_and_vary_by_a_quarter() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 7);
        for base in [1, 2, 4, 8, 16, 30, 30, 30].map(Duration::from_secs) {
            let delay = backoff.next_delay();
            assert!(delay >= base && delay <= base.mul_f64(1.25), "{delay:?} for {base:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next_delay() <= Duration::from_millis(37_500));
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(1250));
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), seed);
            [backoff.next_delay(), backoff.next_delay(), backoff.next_delay()]
        };
        assert_eq!(delays(3), delays(3));
        assert_ne!(delays(3), delays(4));
    }
}
