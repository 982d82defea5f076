//! `/runners`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::actors::{DATACENTER, unexpected};
use super::page::{Page, Pagination, limit};
use super::query::Query;
use super::refusal::Answer;
use crate::gateway::LiveRunner;
use crate::store::{self, Found, RunnerRecord};

/// A runner as the API shows it. Times are in milliseconds since the epoch.
#[derive(Debug, Serialize)]
struct Runner {
    runner_id: String,
    namespace_id: String,
    datacenter: &'static str,
    name: String,
    key: String,
    version: u32,
    total_slots: u32,
    remaining_slots: u32,
    create_ts: i64,
    drain_ts: Option<i64>,
    stop_ts: Option<i64>,
    last_ping_ts: i64,
    last_connected_ts: i64,
    last_rtt: u64,
    metadata: Value,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    runners: Vec<Runner>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
pub(super) struct Names {
    names: Vec<String>,
    pagination: Pagination,
}

pub(super) async fn list(State(api): State<Api>, query: Query) -> Answer<Listed> {
    let known = &["namespace", "name", "runner_ids", "runner_id", "include_stopped", "limit", "cursor"];
    let parameters = query.with(known)?;
    let page = Page::of(&parameters)?;
    let include_stopped = parameters.flag("include_stopped")?;
    let mut ids = parameters.id_list("runner_ids")?;
    ids.extend(parameters.ids("runner_id")?);
    let by_id = !ids.is_empty();
    let namespace = parameters.namespace(&api)?;
    let query = store::Query::RunnersOf {
        namespace_id: namespace.id,
        pool: parameters.text("name")?.map(Arc::from),
        // Who knows a runner's id wants to see it in any state, and wherever it stands in the list.
        include_stopped: include_stopped || by_id,
        limit: if by_id { Page::LIMIT_MAX } else { page.limit },
        created_before: page.before,
    };
    let mut runners = match api.gateway.read(query).await? {
        Found::Runners(runners) => runners,
        other => return Err(unexpected(&other)),
    };
    if by_id {
        runners.retain(|runner| ids.iter().any(|id| id.as_str() == &*runner.id));
        runners.truncate(page.limit);
    }
    let live = api.gateway.live_runners().await?;
    let pagination = Pagination::after(runners.last().map(|runner| runner.create_ts));
    let runners = runners.into_iter().map(|runner| show(runner, &live)).collect();
    Ok(Json(Listed { runners, pagination }))
}

pub(super) async fn names(State(api): State<Api>, query: Query) -> Answer<Names> {
    let parameters = query.with(&["namespace", "limit", "cursor"])?;
    let limit = limit(&parameters)?;
    let after = parameters.text("cursor")?;
    let namespace = parameters.namespace(&api)?;
    let query = store::Query::RunnersOf {
        namespace_id: namespace.id,
        pool: None,
        include_stopped: true,
        limit: Page::LIMIT_MAX,
        created_before: None,
    };
    let runners = match api.gateway.read(query).await? {
        Found::Runners(runners) => runners,
        other => return Err(unexpected(&other)),
    };
    let mut names: Vec<_> = runners.into_iter().map(|runner| runner.pool.to_string()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| after.is_none_or(|after| name.as_str() > after));
    names.truncate(limit);
    let cursor = names.last().cloned();
    Ok(Json(Names { names, pagination: Pagination { cursor } }))
}

fn show(runner: RunnerRecord, live: &BTreeMap<Arc<str>, LiveRunner>) -> Runner {
    let live = live.get(&runner.id);
    Runner {
        datacenter: DATACENTER,
        remaining_slots: live.map_or(runner.total_slots, |live| live.remaining_slots),
        last_ping_ts: live.map_or(runner.last_ping_ts, |live| live.last_ping_ts),
        last_rtt: live.map_or(0, |live| u64::try_from(live.last_rtt.as_millis()).unwrap_or(u64::MAX)),
        metadata: serde_json::from_str(&runner.metadata).unwrap_or_else(|_| json!({})),
        runner_id: runner.id.to_string(),
        namespace_id: runner.namespace_id.to_string(),
        name: runner.pool.to_string(),
        key: runner.key.to_string(),
        version: runner.version,
        total_slots: runner.total_slots,
        create_ts: runner.create_ts,
        drain_ts: runner.drain_ts,
        stop_ts: runner.stop_ts,
        last_connected_ts: runner.last_connected_ts,
    }
}
