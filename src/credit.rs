//! Credit on which the pieces of one body travel; who has too little left waits. What is counted, and why:
//! [`greenroom_protocol::credit`].

use std::sync::Arc;

use greenroom_protocol::credit::{GRANT, WINDOW, cost};
use tokio::sync::Semaphore;

/// The sender's side of a window. Clones share it.
#[derive(Clone, Debug)]
pub struct Credit {
    left: Arc<Semaphore>,
}

impl Credit {
    /// A whole window.
    #[must_use]
    pub fn new() -> Self {
        Credit { left: Arc::new(Semaphore::new(WINDOW)) }
    }

    /// Waits until there is credit for a piece of at most [`GRANT`] bytes, and uses it up. Cancelling uses up nothing.
    pub async fn spend(&self, bytes: usize) {
        debug_assert!(bytes <= GRANT, "larger pieces are cut");
        let cost = u32::try_from(cost(bytes)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        if let Ok(permits) = self.left.acquire_many(cost).await {
            permits.forget();
        }
    }

    /// The receiver gives a grant back. One that it does not owe changes nothing.
    pub fn grant(&self) {
        if self.left.available_permits() + GRANT <= WINDOW {
            self.left.add_permits(GRANT);
        }
    }
}

impl Default for Credit {
    fn default() -> Self {
        Credit::new()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_has_no_credit_left_waits_for_a_grant() {
        let credit = Credit::new();
        credit.grant();
        for _ in 0..WINDOW / GRANT {
            assert_eq!(credit.spend(GRANT).now_or_never(), Some(()));
        }
        assert_eq!(credit.spend(1).now_or_never(), None, "a grant that was not owed counted");
        credit.grant();
        assert_eq!(credit.spend(GRANT).now_or_never(), Some(()));
        assert_eq!(credit.spend(1).now_or_never(), None);
    }
}
