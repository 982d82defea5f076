//! Who may act as which actor life.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;
use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};

use crate::host::{ActorContext, TokenIssuer};

/// Tokens of the lives that run, and for a while of those that are over.
#[derive(Debug, Default)]
pub struct Tokens {
    known: DashMap<String, Holder>,
    over: Mutex<VecDeque<String>>,
}

/// Whose token it is.
#[derive(Clone, Debug)]
pub(super) enum Holder {
    /// A life that runs.
    Live(ActorContext),
    /// One that is over.
    Over,
}

impl Tokens {
    pub(super) fn holder(&self, token: &str) -> Option<Holder> {
        // 256 random bits: what the time of a lookup gives away helps nobody to the rest.
        self.known.get(token).map(|holder| holder.clone())
    }
}

impl TokenIssuer for Tokens {
    fn issue(&self, context: ActorContext) -> SecretString {
        let token = BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>());
        self.known.insert(token.clone(), Holder::Live(context));
        token.into()
    }

    fn revoke(&self, token: &SecretString) {
        let token = token.expose_secret();
        if let Some(mut holder) = self.known.get_mut(token) {
            *holder = Holder::Over;
        }
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.push_back(token.to_owned());
        if over.len() > REMEMBERED
            && let Some(oldest) = over.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// How many tokens of lives that are over still answer 410; an older one is unknown and answers 401.
const REMEMBERED: usize = 65_536;
