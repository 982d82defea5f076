//! Chance that can be had again: the same seed, the same throws.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// At least `low`, less than `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.throw() % (high - low)
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = usize::try_from(self.between(0, last as u64 + 1)).expect("it is less than a length");
            all.swap(last, other);
        }
    }

    /// Other dice, whose throws do not depend on when these are thrown.
    pub fn fork(&mut self) -> Dice {
        Dice(self.throw())
    }
}
