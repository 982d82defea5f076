//! Storage requests of actors: who may ask. The rest is the store's.

use std::sync::Arc;

use bytestring::ByteString;
use greenroom_protocol::{KvRequest, KvResponse, ToClient};

use super::directory::is_placed;
use super::{ConnectionId, Core, Effect};
use crate::gateway::Id;

impl Core {
    pub(super) fn kv(
        &mut self,
        connection: ConnectionId,
        runner_id: &str,
        actor_id: &str,
        request_id: u32,
        request: KvRequest,
    ) {
        let refusal = match self.directory.actors.get(actor_id) {
            Some(actor) if !is_placed(actor.record.phase) => "actor does not exist".into(),
            Some(actor) if actor.record.runner_id.as_deref() != Some(runner_id) => {
                "actor does not belong to runner".into()
            }
            Some(actor) => {
                let actor_id: Arc<str> = actor.record.id.clone();
                return self.out.push(Effect::Kv { connection, request_id, actor_id, request });
            }
            None => match actor_id.parse::<Id>() {
                Ok(_) => "actor does not exist".into(),
                Err(error) => ByteString::from(error.to_string()),
            },
        };
        let message = ToClient::Kv { request_id, response: KvResponse::Error { message: refusal } };
        self.send_now(connection, message);
    }
}
