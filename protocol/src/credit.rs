//! Flow control of bodies between our own two ends, negotiated as [`Features::credit`](crate::Features::credit).
//!
//! For each stream and direction the sender of a body begins with a [`WINDOW`] of credit. Each piece uses up its
//! [`cost`]; who has too little left waits, and nobody else with it. The receiver gives credit back in grants of
//! [`GRANT`] bytes as the body is taken out of its hands, by the actor or by the client. So neither end ever holds more
//! than a window of any body.
//!
//! A grant is an empty chunk that does not finish, in the other direction: a `RequestChunk` grants more of the response,
//! a `ResponseChunk` more of the request, also before the response has begun. Such chunks say nothing otherwise, so no
//! message had to be invented. Bodies that travel whole in the first message cost nothing.
//!
//! Grants and pieces rely on an unbroken connection: a body that is in flight when the connection breaks is broken off
//! by both ends, since nobody knows which of its pieces were lost.

/// What a sender may have on its way before it has to wait, in bytes.
pub const WINDOW: usize = 1024 * 1024;

/// What one grant gives back, in bytes; also the largest piece, so that other streams get their turn.
pub const GRANT: usize = 256 * 1024;

/// What a piece costs: its bytes, but at least as much as keeping it takes, so that many small pieces are bounded too.
#[must_use]
pub const fn cost(bytes: usize) -> usize {
    if bytes > PIECE { bytes } else { PIECE }
}

/// The smallest cost of a piece. A window has room for at most [`PIECES`] of them.
pub const PIECE: usize = 1024;

/// The most pieces that a window has room for.
pub const PIECES: usize = WINDOW / PIECE;

/// The receiver's side of a window: what the sender may still send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    left: usize,
}

/// The sender has sent more than it had credit for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more of a body came than there was credit for")]
pub struct Overrun;

/// What was taken out of the receiver's hands and not granted again yet.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    bytes: usize,
}

impl Window {
    /// Counts a piece that came. The empty piece at the end is free.
    ///
    /// # Errors
    /// [`Overrun`] when the sender ignores its credit; the stream cannot go on.
    pub fn came(&mut self, bytes: usize, finish: bool) -> Result<(), Overrun> {
        if bytes == 0 && finish {
            return Ok(());
        }
        self.left = self.left.checked_sub(cost(bytes)).ok_or(Overrun)?;
        Ok(())
    }

    /// Counts a grant that goes out; `false` when there is nothing left to give back.
    #[must_use]
    pub fn grant(&mut self) -> bool {
        let fits = self.left + GRANT <= WINDOW;
        if fits {
            self.left += GRANT;
        }
        fits
    }
}

impl Default for Window {
    fn default() -> Self {
        Window { left: WINDOW }
    }
}

impl Taken {
    /// Counts a piece that was taken; answers how many grants are due for it.
    #[must_use]
    pub fn took(&mut self, bytes: usize) -> usize {
        self.bytes += cost(bytes);
        let grants = self.bytes / GRANT;
        self.bytes %= GRANT;
        grants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_used_up_and_given_back_and_never_more_than_that() {
        let mut window = Window::default();
        assert!(!window.grant(), "nothing came yet");
        for _ in 0..WINDOW / GRANT {
            assert_eq!(window.came(GRANT, false), Ok(()));
        }
        assert_eq!(window.came(0, true), Ok(()));
        assert_eq!(window.came(1, true), Err(Overrun));
        assert!(window.grant());
        assert_eq!(window.came(GRANT, true), Ok(()));
    }

    #[test]
    fn small_pieces_cost_as_much_as_keeping_them() {
        let mut window = Window::default();
        for _ in 0..PIECES {
            assert_eq!(window.came(1, false), Ok(()));
        }
        assert_eq!(window.came(1, false), Err(Overrun));
        let mut taken = Taken::default();
        assert_eq!((0..PIECES).map(|_| taken.took(1)).sum::<usize>(), WINDOW / GRANT);
    }
}
