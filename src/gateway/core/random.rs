//! Chance, seeded from outside: the same seed gives the same gateway twice.

use std::sync::Arc;

use crate::gateway::Id;

/// A splitmix64 sequence.
#[derive(Clone, Debug)]
pub(super) struct Random(u64, u64);

impl Random {
    pub(super) fn new(seed: [u64; 2]) -> Self {
        Random(seed[0], seed[1])
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A new id, from both halves of the seed: 64 bits alone could meet an id of an earlier process.
    pub(super) fn id(&mut self) -> Arc<str> {
        let low = self.next();
        self.1 = self.1.wrapping_add(0xD1B5_4A32_D192_ED03);
        let high = mix(self.1);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&low.to_le_bytes());
        bytes[8..].copy_from_slice(&high.to_le_bytes());
        Arc::from(Id::from_random(bytes).as_str())
    }
}

fn mix(value: u64) -> u64 {
    let mut mixed = value;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
