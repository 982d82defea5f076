//! Sockets that outlive an actor's process.

use greenroom_protocol::StreamId;

use crate::actor::ActorKey;
use crate::session::Session;

impl Session {
    /// A life that starts says which of its clients' sockets it knows.
    pub(super) fn restore(&mut self, actor: &ActorKey, sockets: Vec<(StreamId, u16)>, unknown: Vec<StreamId>) {
        let live = self.actors.life(actor).is_some_and(|life| life.is_live());
        if !live {
            return;
        }
        for (id, last_in) in sockets {
            self.restore_socket(id, actor, last_in);
        }
        for id in unknown {
            self.send_tunnel(id, 0, super::tunnel::unknown_socket());
        }
    }
}
