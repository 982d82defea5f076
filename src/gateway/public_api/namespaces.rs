//! `/namespaces`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::actors::unexpected;
use super::page::{Page, Pagination};
use super::query::Query;
use super::refusal::{Answer, JsonBody};
use crate::gateway::refusal::Refusal;
use crate::store::{self, Found, NamespaceRecord};

#[derive(Debug, Serialize)]
struct Namespace {
    namespace_id: String,
    name: String,
    display_name: String,
    create_ts: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    namespaces: Vec<Namespace>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
pub(super) struct Created {
    namespace: Namespace,
}

/// The body of POST.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    display_name: String,
}

pub(super) async fn list(State(api): State<Api>, query: Query) -> Answer<Listed> {
    let parameters = query.with(&["limit", "cursor", "name", "namespace_ids", "namespace_id"])?;
    let page = Page::of(&parameters)?;
    let mut ids = parameters.id_list("namespace_ids")?;
    ids.extend(parameters.ids("namespace_id")?);
    let named = parameters.text("name")?;
    let by_id = parameters.text("namespace_ids").is_ok_and(|list| list.is_some()) || !ids.is_empty();
    let (namespaces, cursor) = if let Some(name) = named {
        (api.gateway.namespace(name).into_iter().collect(), None)
    } else if by_id {
        (ids.iter().filter_map(|id| api.gateway.namespace_by_id(id.as_str())).collect(), None)
    } else {
        let mut all = match api.gateway.read(store::Query::Namespaces).await? {
            Found::Namespaces(namespaces) => namespaces,
            other => return Err(unexpected(&other)),
        };
        all.sort_by_key(|namespace| std::cmp::Reverse(namespace.create_ts));
        all.retain(|namespace| page.before.is_none_or(|before| namespace.create_ts < before));
        all.truncate(page.limit);
        let last = all.last().map(|namespace| namespace.create_ts);
        (all, last)
    };
    let namespaces: Vec<_> = namespaces.into_iter().map(Namespace::from).collect();
    Ok(Json(Listed { namespaces, pagination: Pagination::after(cursor) }))
}

pub(super) async fn create(State(api): State<Api>, query: Query, body: JsonBody<Create>) -> Answer<Created> {
    query.with(&[])?;
    let Create { name, display_name } = body.0;
    check(&name, &display_name).map_err(|why| {
        let message = format!("Failed to create namespace: {why}");
        Refusal::new("namespace", "failed_to_create", message).with(json!({ "reason": why }))
    })?;
    let namespace = api.gateway.create_namespace(&name, &display_name).await?;
    Ok(Json(Created { namespace: namespace.into() }))
}

/// Names stand in URLs and in files, so they are plain: lower-case letters and digits, with single dashes between.
fn check(name: &str, display_name: &str) -> Result<(), &'static str> {
    match name.len() {
        0 => return Err("name too short"),
        1..=64 => {}
        _ => return Err("name too long"),
    }
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    if !name.split('-').all(plain) {
        return Err("invalid name");
    }
    match display_name.len() {
        0 => Err("display name too short"),
        1..=128 => Ok(()),
        _ => Err("display name too long"),
    }
}

impl From<NamespaceRecord> for Namespace {
    fn from(namespace: NamespaceRecord) -> Self {
        Namespace {
            namespace_id: namespace.id.to_string(),
            name: namespace.name.to_string(),
            display_name: namespace.display_name,
            create_ts: namespace.create_ts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_not_too_long() {
        assert_eq!(check("a-1-b", "Any text"), Ok(()));
        assert_eq!(check(&"a".repeat(64), &"x".repeat(128)), Ok(()));
        assert_eq!(check("", "x"), Err("name too short"));
        assert_eq!(check(&"a".repeat(65), "x"), Err("name too long"));
        for bad in ["A", "a b", "a--b", "-a", "a-", "ä", "a_b", "a/b"] {
            assert_eq!(check(bad, "x"), Err("invalid name"), "{bad}");
        }
        assert_eq!(check("a", ""), Err("display name too short"));
        assert_eq!(check("a", &"x".repeat(129)), Err("display name too long"));
    }
}
