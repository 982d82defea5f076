//! `/runner-configs`: the settings of pools.
//!
//! The engine has two kinds of pools: runners that connect (`normal`) and endpoints that it calls (`serverless`). Here
//! there is only the first kind.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Api;
use super::actors::DATACENTER;
use super::page::{Pagination, limit};
use super::query::Query;
use super::refusal::{Answer, JsonBody};
use crate::gateway::refusal::Refusal;
use crate::store::RunnerConfigRecord;

/// The body of PUT.
#[derive(Debug, Deserialize)]
pub(super) struct Put {
    datacenters: BTreeMap<String, Pool>,
}

#[derive(Debug, Deserialize)]
struct Pool {
    normal: Option<Normal>,
    serverless: Option<Value>,
    metadata: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Normal {
    #[serde(default = "yes")]
    drain_on_version_upgrade: bool,
    #[serde(default)]
    actor_eviction_delay: u64,
    #[serde(default)]
    actor_eviction_period: u64,
    #[serde(default = "one")]
    actor_eviction_rate: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    runner_configs: Map<String, Value>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
pub(super) struct Stored {
    endpoint_config_changed: bool,
}

pub(super) async fn list(State(api): State<Api>, query: Query) -> Answer<Listed> {
    let parameters = query.with(&["namespace", "limit", "cursor", "variant", "runner_names", "runner_name"])?;
    let limit = limit(&parameters)?;
    let namespace = parameters.namespace(&api)?;
    let listed = parameters.all("runner_names").flat_map(|list| list.split(','));
    let names: Vec<_> = listed.chain(parameters.all("runner_name")).filter(|name| !name.is_empty()).collect();
    let after = parameters.text("cursor")?;
    let wanted = match parameters.text("variant")? {
        None | Some("normal") => true,
        Some("serverless") => false,
        Some(other) => {
            return Err(Refusal::bad_request(format!(
                "Failed to deserialize query string: variant: unknown variant `{other}`, expected `serverless` or \
                 `normal`"
            )));
        }
    };
    let mut configs = api.gateway.runner_configs(&namespace.name).await?;
    configs.sort_by(|a, b| a.pool.cmp(&b.pool));
    configs.retain(|config| {
        wanted
            && (names.is_empty() || names.contains(&&*config.pool))
            && after.is_none_or(|after| &*config.pool > after)
    });
    let more = configs.len() > limit;
    configs.truncate(limit);
    let cursor = configs.last().filter(|_| more).map(|config| config.pool.to_string());
    let runner_configs = configs.into_iter().map(|config| (config.pool.to_string(), show(&config))).collect();
    Ok(Json(Listed { runner_configs, pagination: Pagination { cursor } }))
}

pub(super) async fn put(
    State(api): State<Api>,
    Path(pool): Path<String>,
    query: Query,
    body: JsonBody<Put>,
) -> Answer<Stored> {
    let namespace = query.with(&["namespace"])?.namespace(&api)?;
    let mut settings = None;
    for (datacenter, pool) in body.0.datacenters {
        let invalid = |why: &str| {
            Refusal::bad_request(format!(
                "Failed to deserialize the JSON body into the target type: datacenters.{datacenter}: {why}"
            ))
        };
        if datacenter != DATACENTER {
            return Err(Refusal::new("datacenter", "not_found", "The provided datacenter does not exist."));
        }
        if pool.serverless.is_some() {
            return Err(invalid("serverless pools are not supported by this gateway; connect a runner instead"));
        }
        let Some(normal) = pool.normal else {
            return Err(invalid("missing field `normal`"));
        };
        if normal.actor_eviction_delay != 0 || normal.actor_eviction_period != 0 || normal.actor_eviction_rate < 1.0 {
            return Err(invalid("this gateway does not spread evictions over time; leave actor_eviction_* out"));
        }
        settings = Some((normal.drain_on_version_upgrade, pool.metadata.map(|metadata| metadata.to_string())));
    }
    let Some((drain_on_version_upgrade, metadata)) = settings else {
        return Ok(Json(Stored { endpoint_config_changed: false }));
    };
    let stored = api.gateway.put_runner_config(&namespace.name, &pool, drain_on_version_upgrade, metadata);
    Ok(Json(Stored { endpoint_config_changed: stored.await? }))
}

pub(super) async fn delete(State(api): State<Api>, Path(pool): Path<String>, query: Query) -> Answer<Value> {
    let namespace = query.with(&["namespace"])?.namespace(&api)?;
    api.gateway.delete_runner_config(&namespace.name, &pool).await?;
    Ok(Json(json!({})))
}

fn show(config: &RunnerConfigRecord) -> Value {
    let mut pool = json!({
        "normal": {
            "drain_on_version_upgrade": config.drain_on_version_upgrade,
            "actor_eviction_delay": 0,
            "actor_eviction_period": 0,
            "actor_eviction_rate": 1.0,
        },
        "protocol_version": null,
    });
    if let Some(metadata) = config.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok()) {
        pool["metadata"] = metadata;
    }
    json!({ "datacenters": { DATACENTER: pool } })
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}
