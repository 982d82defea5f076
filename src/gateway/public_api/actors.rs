//! `/actors`: create, find, list, destroy, and look into their storage.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Api;
use super::page::{Page, Pagination, limit};
use super::query::{Parameters, Query, path_id};
use super::refusal::{Answer, JsonBody};
use crate::gateway::refusal::Refusal;
use crate::gateway::{CreateActor, GatewayError, Id};
use crate::store::{self, ActorError, ActorRecord, CrashPolicy, Found, NamespaceRecord};

/// An actor as the API shows it. Times are in milliseconds since the epoch.
#[derive(Debug, Serialize)]
struct Actor {
    actor_id: String,
    name: String,
    key: Option<String>,
    namespace_id: String,
    datacenter: &'static str,
    runner_name_selector: String,
    crash_policy: Policy,
    create_ts: i64,
    start_ts: Option<i64>,
    pending_allocation_ts: Option<i64>,
    connectable_ts: Option<i64>,
    sleep_ts: Option<i64>,
    reschedule_ts: Option<i64>,
    destroy_ts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    Restart,
    Sleep,
    Destroy,
}

/// The body of POST.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    datacenter: Option<String>,
    name: String,
    key: Option<String>,
    input: Option<String>,
    runner_name_selector: String,
    crash_policy: Policy,
}

/// The body of PUT.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetOrCreate {
    datacenter: Option<String>,
    name: String,
    key: String,
    input: Option<String>,
    runner_name_selector: String,
    crash_policy: Policy,
}

#[derive(Debug, Serialize)]
pub(super) struct Created {
    actor: Actor,
}

#[derive(Debug, Serialize)]
pub(super) struct GotOrCreated {
    actor: Actor,
    created: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    actors: Vec<Actor>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
pub(super) struct Names {
    names: Map<String, Value>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
pub(super) struct KvValue {
    value: String,
    update_ts: i64,
}

pub(super) async fn create(State(api): State<Api>, query: Query, body: JsonBody<Create>) -> Answer<Created> {
    let namespace = query.with(&["namespace"])?.namespace(&api)?;
    let pool = body.0.runner_name_selector.clone();
    let actor = body.0.check(&namespace)?;
    let created = api.gateway.create_actor(actor).await.map_err(|error| explain(error, &namespace, &pool))?;
    Ok(Json(Created { actor: created.into() }))
}

pub(super) async fn get_or_create(
    State(api): State<Api>,
    query: Query,
    body: JsonBody<GetOrCreate>,
) -> Answer<GotOrCreated> {
    let namespace = query.with(&["namespace"])?.namespace(&api)?;
    let GetOrCreate { datacenter, name, key, input, runner_name_selector, crash_policy } = body.0;
    let pool = runner_name_selector.clone();
    let create = Create { datacenter, name, key: Some(key), input, runner_name_selector, crash_policy };
    let actor = create.check(&namespace)?;
    let answer = api.gateway.get_or_create_actor(actor).await;
    let (actor, created) = answer.map_err(|error| explain(error, &namespace, &pool))?;
    Ok(Json(GotOrCreated { actor: actor.into(), created }))
}

pub(super) async fn list(State(api): State<Api>, query: Query) -> Answer<Listed> {
    let parameters =
        query.with(&["namespace", "name", "key", "actor_ids", "actor_id", "include_destroyed", "limit", "cursor"])?;
    let page = Page::of(&parameters)?;
    let include_destroyed = parameters.flag("include_destroyed")?;
    let namespace = parameters.namespace(&api)?;
    let name = parameters.text("name")?;
    let key = parameters.text("key")?;
    let ids = ids(&parameters)?;
    let actors = match name {
        Some(_) if !ids.is_empty() => {
            return Err(Refusal::invalid_input(
                "Cannot provide both actor_id and (name + key). Use either actor_id or (name + key).",
            ));
        }
        Some(name) => {
            let query = store::Query::Actors {
                namespace_id: namespace.id,
                name: name.into(),
                key: key.map(Arc::from),
                include_destroyed,
                created_before: page.before,
                limit: page.limit,
            };
            match api.gateway.read(query).await? {
                Found::Actors(actors) => actors,
                other => return Err(unexpected(&other)),
            }
        }
        None if key.is_some() => return Err(Refusal::invalid_input("Name is required when key is provided.")),
        None if ids.is_empty() => return Err(Refusal::invalid_input("Name is required when not using actor_ids.")),
        None => by_ids(&api, &namespace, &ids).await?,
    };
    let pagination = Pagination::after(actors.last().map(|actor| actor.create_ts));
    Ok(Json(Listed { actors: actors.into_iter().map(Actor::from).collect(), pagination }))
}

pub(super) async fn destroy(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<Value> {
    let id = path_id(&id)?;
    let namespace = query.with(&["namespace"])?.namespace(&api)?;
    api.gateway.destroy_actor(&namespace.name, id.as_str()).await?;
    Ok(Json(json!({})))
}

/// Sleeping and moving an actor from outside is for another kind of actor in the engine: it takes the call and does
/// nothing, and so does this gateway. An actor goes to sleep by itself.
pub(super) async fn no_effect(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Answer<Value> {
    let id = path_id(&id)?;
    let namespace = query.with(&["namespace"])?.namespace(&api)?;
    actor_of(&api, &namespace, id).await?;
    Ok(Json(json!({})))
}

pub(super) async fn names(State(api): State<Api>, query: Query) -> Answer<Names> {
    let parameters = query.with(&["namespace", "limit", "cursor"])?;
    let limit = limit(&parameters)?;
    let namespace = parameters.namespace(&api)?;
    let after = parameters.text("cursor")?.map(Arc::from);
    let found = match api.gateway.read(store::Query::ActorNames { namespace_id: namespace.id, after, limit }).await? {
        Found::ActorNames(names) => names,
        other => return Err(unexpected(&other)),
    };
    let cursor = found.last().map(|name| name.name.to_string());
    let names = found.into_iter().map(|name| {
        let metadata = serde_json::from_str(&name.metadata).unwrap_or_else(|_| json!({}));
        (name.name.to_string(), json!({ "metadata": metadata }))
    });
    Ok(Json(Names { names: names.collect(), pagination: Pagination { cursor } }))
}

pub(super) async fn kv_get(
    State(api): State<Api>,
    Path((id, key)): Path<(String, String)>,
    query: Query,
) -> Answer<KvValue> {
    let id = path_id(&id)?;
    let namespace = query.with(&["namespace"])?.namespace(&api)?;
    let key = BASE64
        .decode(key.as_bytes())
        .map_err(|error| Refusal::bad_request(format!("Invalid URL: the key is not base64: {error}")))?;
    let actor = actor_of(&api, &namespace, id).await?;
    match api.gateway.read(store::Query::KvValue { actor_id: actor.id, key: Bytes::from(key) }).await? {
        Found::KvValue(Some((value, update_ts))) => Ok(Json(KvValue { value: BASE64.encode(&value), update_ts })),
        Found::KvValue(None) => {
            Err(Refusal::new("actor", "kv_key_not_found", "The KV key does not exist for this actor."))
        }
        other => Err(unexpected(&other)),
    }
}

impl Create {
    fn check(self, namespace: &NamespaceRecord) -> Result<CreateActor, Refusal> {
        check_datacenter(self.datacenter.as_deref())?;
        if let Some(key) = &self.key {
            check_key(key)?;
        }
        let input = match self.input {
            None => None,
            // The engine drops an input that it cannot read, and the actor starts without; that is found out too late.
            Some(text) => Some(BASE64.decode(text.as_bytes()).map_err(|error| {
                let why =
                    format!("Failed to deserialize the JSON body into the target type: input: not base64: {error}");
                Refusal::bad_request(why)
            })?),
        };
        Ok(CreateActor {
            namespace: Arc::clone(&namespace.name),
            name: self.name.into(),
            key: self.key.map(Arc::from),
            pool: self.runner_name_selector.into(),
            crash_policy: self.crash_policy.into(),
            input: input.map(Bytes::from),
        })
    }
}

/// Checks where an actor is wanted; anywhere is fine.
///
/// # Errors
/// A data center that is not this one.
pub(in crate::gateway) fn check_datacenter(name: Option<&str>) -> Result<(), Refusal> {
    match name {
        None | Some(DATACENTER) => Ok(()),
        Some(_) => Err(Refusal::new("datacenter", "not_found", "The provided datacenter does not exist.")),
    }
}

/// Checks the key of a new actor.
///
/// # Errors
/// It is empty or too long.
pub(in crate::gateway) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::new("actor", "empty_key", "Key label cannot be empty."));
    }
    if key.len() > KEY_MAX {
        let mut end = KEY_MAX;
        while !key.is_char_boundary(end) {
            end -= 1;
        }
        let preview = &key[..end];
        let message = format!("Key label too large (max {KEY_MAX} bytes): {preview}");
        let metadata = json!({ "key_preview": preview, "max_size": KEY_MAX });
        return Err(Refusal::new("actor", "key_too_large", message).with(metadata));
    }
    Ok(())
}

/// The ids asked for. A list with commas is taken as it comes, without those that are none; repeated ids are not.
fn ids(parameters: &Parameters) -> Result<Vec<Id>, Refusal> {
    let listed = parameters.all("actor_ids").flat_map(|list| list.split(','));
    let mut ids: Vec<Id> = listed.filter_map(|text| text.parse().ok()).collect();
    ids.extend(parameters.ids("actor_id")?);
    if ids.len() > IDS_MAX {
        let message = format!("Too many actor IDs provided. Maximum is {IDS_MAX}, got {}", ids.len());
        let metadata = json!({ "count": ids.len(), "max": IDS_MAX });
        return Err(Refusal::new("validation", "too_many_actor_ids", message).with(metadata));
    }
    Ok(ids)
}

async fn by_ids(api: &Api, namespace: &NamespaceRecord, ids: &[Id]) -> Result<Vec<ActorRecord>, Refusal> {
    let mut actors = Vec::with_capacity(ids.len());
    for id in ids {
        match api.gateway.actor(id.as_str()).await {
            Ok(actor) if actor.record.namespace_id == namespace.id => actors.push(actor.record),
            Ok(_) | Err(GatewayError::ActorNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    actors.sort_by_key(|actor| std::cmp::Reverse(actor.create_ts));
    Ok(actors)
}

/// An actor of this namespace, also a destroyed one.
async fn actor_of(api: &Api, namespace: &NamespaceRecord, id: Id) -> Result<ActorRecord, Refusal> {
    let actor = api.gateway.actor(id.as_str()).await?;
    if actor.record.namespace_id != namespace.id {
        return Err(Refusal::actor_not_found());
    }
    Ok(actor.record)
}

/// What to say when an actor was not made.
pub(in crate::gateway) fn explain(error: GatewayError, namespace: &NamespaceRecord, pool: &str) -> Refusal {
    let missing = matches!(error, GatewayError::NoRunnerConfig { .. });
    let refusal = Refusal::from(error);
    match missing {
        true => refusal.with(json!({ "namespace": &*namespace.name, "pool_name": pool })),
        false => refusal,
    }
}

/// The store answered another question than the one that was asked.
pub(in crate::gateway) fn unexpected(found: &Found) -> Refusal {
    tracing::error!(?found, "the store answered another question");
    Refusal::internal("An internal error occurred")
}

impl From<ActorRecord> for Actor {
    fn from(actor: ActorRecord) -> Self {
        Actor {
            actor_id: actor.id.to_string(),
            name: actor.name.to_string(),
            key: actor.key.map(|key| key.to_string()),
            namespace_id: actor.namespace_id.to_string(),
            datacenter: DATACENTER,
            runner_name_selector: actor.pool.to_string(),
            crash_policy: actor.crash_policy.into(),
            create_ts: actor.create_ts,
            start_ts: actor.start_ts,
            pending_allocation_ts: actor.pending_allocation_ts,
            connectable_ts: actor.connectable_ts,
            sleep_ts: actor.sleep_ts,
            reschedule_ts: actor.reschedule_ts,
            destroy_ts: actor.destroy_ts,
            error: actor.error.as_ref().map(error_json),
        }
    }
}

fn error_json(error: &ActorError) -> Value {
    match error {
        ActorError::NoCapacity => json!("no_capacity"),
        ActorError::Crashed { message } => json!({ "crashed": { "message": message } }),
        ActorError::RunnerNoResponse { runner_id } => json!({ "runner_no_response": { "runner_id": &**runner_id } }),
        ActorError::RunnerConnectionLost { runner_id } => {
            json!({ "runner_connection_lost": { "runner_id": &**runner_id } })
        }
        ActorError::RunnerDrainingTimeout { runner_id } => {
            json!({ "runner_draining_timeout": { "runner_id": &**runner_id } })
        }
    }
}

impl From<CrashPolicy> for Policy {
    fn from(policy: CrashPolicy) -> Self {
        match policy {
            CrashPolicy::Restart => Policy::Restart,
            CrashPolicy::Sleep => Policy::Sleep,
            CrashPolicy::Destroy => Policy::Destroy,
        }
    }
}

impl From<Policy> for CrashPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Restart => CrashPolicy::Restart,
            Policy::Sleep => CrashPolicy::Sleep,
            Policy::Destroy => CrashPolicy::Destroy,
        }
    }
}

/// The one data center of this gateway.
pub(super) const DATACENTER: &str = "default";

/// The longest key of an actor, in bytes, as in the engine.
const KEY_MAX: usize = 1024;

/// The most actors asked for by id at once, as in the engine.
const IDS_MAX: usize = 32;
