//! Arithmetic on message indexes, which are u16 and wrap.
//!
//! The rule is the engine's: `a` is newer than `b` when it lies less than 32,767 steps ahead of it on the circle.

/// Whether `a` comes after `b`. Of two indexes on opposite sides of the circle (32,767 to 32,769 steps apart) neither
/// does.
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

    #[test]
    fn whatever_the_place_on_the_circle_only_the_steps_between_matter() {
        for b in (0..=u16::MAX).step_by(251).chain([u16::MAX]) {
            for steps in 0..=u16::MAX {
                let a = b.wrapping_add(steps);
                assert_eq!(newer(a, b), (1..HALF).contains(&steps), "{a} after {b}");
            }
        }
    }

    #[test]
    fn of_two_indexes_at_most_one_is_newer() {
        for steps in 0..=u16::MAX {
            let a = 40_000u16.wrapping_add(steps);
            assert!(!(newer(a, 40_000) && newer(40_000, a)), "{steps}");
        }
    }

    #[test]
    fn the_next_index_is_newer_all_the_way_round() {
        let mut index = 0;
        for _ in 0..=u16::MAX {
            assert!(newer(next(index), index));
            index = next(index);
        }
        assert_eq!(index, 0);
    }
}
