//! Where out-of-process actors reach the API of their runner, and the tokens they knock with.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use crate::host::ActorContext;

/// What a host tells its processes about the actor API. The API itself is not this layer's business.
#[derive(Clone)]
pub struct Doors {
    /// The API on TCP.
    pub tcp: SocketAddr,
    /// The same API on a Unix socket.
    pub unix: PathBuf,
    /// Who makes the tokens.
    pub tokens: Arc<dyn TokenIssuer>,
}

/// Makes and takes back the tokens of actor lives.
pub trait TokenIssuer: Send + Sync {
    /// A new secret that lets its bearer act as this life.
    fn issue(&self, context: ActorContext) -> SecretString;

    /// The life is over; its token opens nothing from now on.
    fn revoke(&self, token: &SecretString);
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors").field("tcp", &self.tcp).field("unix", &self.unix).finish_non_exhaustive()
    }
}

/// A token that is taken back when dropped.
pub(super) struct Token {
    secret: SecretString,
    issuer: Arc<dyn TokenIssuer>,
}

impl Token {
    pub(super) fn issue(issuer: Arc<dyn TokenIssuer>, context: ActorContext) -> Self {
        Token { secret: issuer.issue(context), issuer }
    }

    pub(super) fn secret(&self) -> &SecretString {
        &self.secret
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.issuer.revoke(&self.secret);
    }
}
