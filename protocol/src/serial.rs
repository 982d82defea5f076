//! Arithmetic on message indexes, which are u16 and wrap.
//!
//! The rule is the engine's: `a` is newer than `b` when it lies less than 32,767 steps ahead of it on the circle.

/// Whether `a` comes after `b`.
#[must_use]
pub fn newer(a: u16, b: u16) -> bool {
    a != b && a.wrapping_sub(b) < HALF
}

/// The index after this one.
#[must_use]
pub fn next(index: u16) -> u16 {
    index.wrapping_add(1)
}

const HALF: u16 = 32_767;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        assert!(newer(1, 0));
        assert!(newer(0, 65_535));
        assert!(newer(5, 65_530));
        assert!(!newer(65_535, 0));
        assert!(!newer(7, 7));
        assert!(newer(32_766, 0));
        assert!(!newer(32_767, 0));
        assert_eq!(next(65_535), 0);
    }
}
