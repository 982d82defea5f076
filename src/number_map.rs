//! Maps by numbers, where nobody who could choose the numbers has a reason to choose them badly.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by numbers that the runner itself counts up, or that its gateway gives out, to which it owes everything else as
/// well: they need no hash that withstands choice, and every message passes several such maps.
///
/// The hash has no seed. Whoever goes through such a map in a core sorts what comes of it all the same, so that nothing
/// that is said depends on how a map is made.
pub type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads a number over all bits.
#[derive(Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let spread = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The map takes its place from the low bits, and a product has its best ones on top.
        self.0 = spread ^ (spread >> 32);
    }
}
