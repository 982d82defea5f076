//! Finds the actor that a query names, or makes it.

use std::sync::Arc;

use super::Ingress;
use super::query_target::QueryTarget;
use super::target::ActorTarget;
use crate::gateway::public_api::actors::{check_datacenter, check_key, explain, unexpected};
use crate::gateway::refusal::Refusal;
use crate::gateway::{CreateActor, GatewayError};
use crate::store::{Found, Query};

impl Ingress {
    /// The actor that a query names. One that is made by this is durable before the request goes on to it.
    ///
    /// # Errors
    /// There is none, or it cannot be made.
    pub(super) async fn find(&self, target: QueryTarget) -> Result<ActorTarget, Refusal> {
        let QueryTarget { namespace, name, key, create, path, skip_ready_wait: _ } = target;
        let namespace = self.gateway.namespace(&namespace).ok_or(GatewayError::NamespaceNotFound)?;
        let record = match create {
            None => {
                let query = Query::Actors {
                    namespace_id: namespace.id,
                    name,
                    key: Some(key),
                    include_destroyed: false,
                    created_before: None,
                    limit: 1,
                };
                match self.gateway.read(query).await? {
                    Found::Actors(actors) => actors.into_iter().next().ok_or_else(Refusal::actor_not_found)?,
                    other => return Err(unexpected(&other)),
                }
            }
            Some(create) => {
                check_datacenter(create.region.as_deref())?;
                check_key(&key)?;
                let actor = CreateActor {
                    namespace: Arc::clone(&namespace.name),
                    name,
                    key: Some(key),
                    pool: Arc::clone(&create.pool),
                    crash_policy: create.crash_policy,
                    input: create.input,
                };
                let answer = self.gateway.get_or_create_actor(actor).await;
                answer.map_err(|error| explain(error, &namespace, &create.pool))?.0
            }
        };
        match record.id.parse() {
            Ok(actor) => Ok(ActorTarget { actor, path }),
            Err(error) => {
                Err(GatewayError::Internal(format!("a stored actor has the id {}: {error}", record.id)).into())
            }
        }
    }
}
