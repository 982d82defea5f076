//! Which runner gets an actor.

use super::random::Random;

/// A runner that could take an actor now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<T> {
    pub(super) runner: T,
    pub(super) version: u32,
    pub(super) free: u32,
}

/// Picks among the candidates of the highest version, by chance and in proportion to their free slots.
pub(super) fn choose<T>(candidates: impl Iterator<Item = Candidate<T>>, random: &mut Random) -> Option<T> {
    let mut best: Option<Candidate<T>> = None;
    let mut slots = 0u64;
    for candidate in candidates.filter(|candidate| candidate.free > 0) {
        let highest = best.as_ref().map(|best| best.version);
        if highest.is_some_and(|highest| candidate.version < highest) {
            continue;
        }
        if highest.is_some_and(|highest| candidate.version > highest) {
            slots = 0;
        }
        slots += u64::from(candidate.free);
        // Each candidate so far holds the place with the probability of its share.
        if random.below(slots) < u64::from(candidate.free) {
            best = Some(candidate);
        }
    }
    best.map(|best| best.runner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(runner: &str, version: u32, free: u32) -> Candidate<&str> {
        Candidate { runner, version, free }
    }

    #[test]
    fn only_the_highest_version_with_room_gets_actors() {
        let mut random = Random::new([1, 2]);
        for _ in 0..100 {
            let full = [candidate("old", 1, 5), candidate("full", 3, 0), candidate("new", 2, 1)];
            assert_eq!(choose(full.into_iter(), &mut random), Some("new"));
        }
        assert_eq!(choose([candidate("full", 1, 0)].into_iter(), &mut random), None);
    }

    #[test]
    fn runners_are_chosen_in_proportion_to_their_free_slots() {
        let mut random = Random::new([3, 4]);
        let mut counts = [0u32; 2];
        for _ in 0..10_000 {
            match choose([candidate("small", 1, 10), candidate("large", 1, 90)].into_iter(), &mut random) {
                Some("small") => counts[0] += 1,
                _ => counts[1] += 1,
            }
        }
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
    }
}
