//! How many files, and so connections, the system lets this process have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Takes as many as there may be. Only for a process without children: they inherit it, and some programs cannot deal
/// with file numbers beyond the usual 1,024.
pub(super) fn take_all() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!(%error, ?current, "the limit of open files stays as it is");
    }
}

/// How many connections there is room for, at most `wanted`.
pub(super) fn connections(wanted: usize) -> usize {
    let Rlimit { current, .. } = getrlimit(Resource::Nofile);
    let open = current.map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX));
    // A small limit is shared with everything else.
    wanted.min(open.saturating_sub(RESERVED).max(open / 2))
}

/// For the database, its log, the console, and a runner's sockets in the same process.
const RESERVED: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_something_and_not_for_more_than_wanted() {
        assert_eq!(connections(1), 1);
        assert!(connections(usize::MAX) > 0);
    }
}
