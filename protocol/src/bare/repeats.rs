//! Finding a key that stands twice in a map.

use std::collections::HashSet;

use bytestring::ByteString;

/// Where a key stands for the second time, if one does.
///
/// The few keys of an honest map are compared with each other, without allocating. A large map costs one hash per key,
/// keyed at random, so that no choice of keys makes it quadratic.
pub(crate) fn first_repeat<T>(entries: &[(ByteString, T)]) -> Option<usize> {
    if entries.len() > COMPARED_MAX {
        let mut seen = HashSet::with_capacity(entries.len());
        return entries.iter().position(|(key, _)| !seen.insert(key.as_bytes().as_ref()));
    }
    let mut marks = 0u64;
    for (place, (key, _)) in entries.iter().enumerate() {
        let mark = mark(key.as_bytes());
        // Only a key with the mark of an earlier one can equal it.
        if marks & mark != 0 && entries[..place].iter().any(|(earlier, _)| earlier == key) {
            return Some(place);
        }
        marks |= mark;
    }
    None
}

/// One of 64 marks; equal keys have the same, and the usual header names mostly different ones.
#[inline]
fn mark(key: &[u8]) -> u64 {
    let [first, .., last] = key else { return 1 };
    let mixed = key.len().wrapping_mul(5).wrapping_add(usize::from(*first) * 11).wrapping_add(usize::from(*last) * 23);
    1 << (mixed % 64)
}

/// Up to this many keys comparing each with each is faster than hashing them.
const COMPARED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: impl IntoIterator<Item = String>, expected: Option<usize>) {
        let entries: Vec<(ByteString, ())> = keys.into_iter().map(|key| (ByteString::from(key), ())).collect();
        assert_eq!(first_repeat(&entries), expected, "{} keys", entries.len());
    }

    fn numbered(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("x-{number}")).collect()
    }

    #[test]
    fn different_keys_are_no_repeat_whatever_their_number() {
        for count in [0, 1, 2, COMPARED_MAX, COMPARED_MAX + 1, 10_000] {
            check(numbered(count), None);
        }
        check(["", "a", "b", "aa", "ab"].map(str::to_owned), None);
    }

    #[test]
    fn the_second_place_of_a_repeated_key_is_found_whatever_their_number() {
        for count in [1, 2, COMPARED_MAX - 1, COMPARED_MAX, 10_000] {
            let mut keys = numbered(count);
            keys.push(keys[count / 2].clone());
            check(keys, Some(count));
        }
        check(["", "a", ""].map(str::to_owned), Some(2));
    }
}
