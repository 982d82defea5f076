//! `/runners`, `/namespaces` and `/runner-configs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Request};
use serde_json::{Value, json};

use super::{OTHER, THIRD, check_code, check_refusal, check_shape, namespace, runner, send, start};
use crate::gateway::core::{Answer, CallRequest};
use crate::gateway::fake::{ACTOR, NAMESPACE, get, http, json};
use crate::gateway::{GatewayError, LiveRunner};
use crate::store::{Change, RunnerConfigRecord, RunnerRecord};

#[tokio::test]
async fn runners_are_listed() {
    let (address, mut driver) = start().await;
    let runners = [
        RunnerRecord { create_ts: 30, ..runner(OTHER) },
        RunnerRecord { create_ts: 20, key: "l".into(), ..runner(ACTOR) },
        RunnerRecord { create_ts: 10, key: "m".into(), pool: "apool".into(), stop_ts: Some(15), ..runner(THIRD) },
    ];
    driver.remember(runners.into_iter().map(Change::Runner).collect()).await;
    let live = LiveRunner { remaining_slots: 98, last_ping_ts: 99, last_rtt: Duration::from_millis(3) };
    let live = BTreeMap::from([(Arc::from(ACTOR), live)]);
    let one = format!("&runner_ids={THIRD}");
    for (query, expected) in [
        ("", &[OTHER, ACTOR][..]),
        ("&name=pool", &[OTHER, ACTOR]),
        ("&name=none", &[]),
        ("&include_stopped=true", &[OTHER, ACTOR, THIRD]),
        ("&limit=1&cursor=30", &[ACTOR]),
        (&one, &[THIRD]),
    ] {
        let path = format!("/runners?namespace=default{query}");
        let client = tokio::spawn(async move { get(address, &path).await });
        driver.live_runners(live.clone()).await;
        let response = client.await.expect("client");
        check_shape(&response, "runners_list");
        let body = json(&response);
        let listed = body["runners"].as_array().expect("a list").iter().map(|runner| runner["runner_id"].clone());
        assert_eq!(listed.collect::<Vec<_>>(), expected, "{query}");
        if query.is_empty() {
            assert_eq!(body["runners"][0]["remaining_slots"], 100);
            assert_eq!(body["runners"][0]["last_rtt"], 0);
            assert_eq!(body["runners"][1]["remaining_slots"], 98);
            assert_eq!(body["runners"][1]["last_ping_ts"], 99);
            assert_eq!(body["runners"][1]["last_rtt"], 3);
            assert_eq!(body["runners"][1]["metadata"], json!({ "language": "typescript" }));
            assert_eq!(body["pagination"]["cursor"], "20");
        }
    }
    check_code(&get(address, "/runners?namespace=default&runner_id=garbage").await, 400, "api.bad_request");
    let response = get(address, "/runners/names?namespace=default").await;
    check_shape(&response, "runners_names");
    assert_eq!(json(&response)["names"], json!(["apool", "pool"]));
    let response = get(address, "/runners/names?namespace=default&cursor=apool").await;
    assert_eq!(json(&response)["names"], json!(["pool"]));
}

#[tokio::test]
async fn namespaces_are_listed_and_created() {
    let (address, mut driver) = start().await;
    check_shape(&get(address, "/namespaces?name=default").await, "namespaces_by_name");
    check_shape(&get(address, "/namespaces?name=absent").await, "namespaces_by_name_absent");
    let found = get(address, &format!("/namespaces?namespace_ids={NAMESPACE},{OTHER}")).await;
    assert_eq!(json(&found)["namespaces"].as_array().map(Vec::len), Some(1));
    check_code(&get(address, "/namespaces?namespace_ids=garbage").await, 400, "api.bad_request");
    driver.remember(vec![Change::Namespace(namespace("new", 3))]).await;
    let response = get(address, "/namespaces?limit=1").await;
    check_shape(&response, "namespaces_list");
    assert_eq!(json(&response)["namespaces"][0]["name"], "new");
    assert_eq!(json(&response)["pagination"]["cursor"], "3");
    assert_eq!(json(&get(address, "/namespaces?cursor=3").await)["namespaces"][0]["name"], "second");

    let create = json!({ "name": "third", "display_name": "Third" });
    for (answer, fixture) in [
        (Ok(Answer::Namespace(namespace("third", 4))), "namespaces_create"),
        (Err(GatewayError::NamespaceNameNotUnique), "error_namespace_not_unique"),
    ] {
        let client = tokio::spawn(send(address, Method::POST, "/namespaces", create.clone()));
        let (CallRequest::CreateNamespace { name, display_name }, reply) = driver.call().await else {
            panic!("not a create");
        };
        assert_eq!((&*name, display_name.as_str()), ("third", "Third"));
        reply.send(answer).expect("somebody waits");
        check_shape(&client.await.expect("client"), fixture);
    }
    let bad = send(address, Method::POST, "/namespaces", json!({ "name": "Bad Name", "display_name": "x" })).await;
    check_refusal(&bad, "error_namespace_bad_name");
    let missing = send(address, Method::POST, "/namespaces", json!({ "name": "fourth" })).await;
    check_refusal(&missing, "error_namespace_missing_field");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn settings_of_pools_are_kept() {
    let (address, mut driver) = start().await;
    let path = "/runner-configs/other?namespace=default";
    for (settings, drain, metadata) in [
        (json!({ "normal": {} }), true, None),
        (json!({ "normal": { "drain_on_version_upgrade": false }, "metadata": { "a": 1 } }), false, Some(r#"{"a":1}"#)),
    ] {
        let client = tokio::spawn(send(address, Method::PUT, path, json!({ "datacenters": { "default": settings } })));
        let (CallRequest::PutRunnerConfig { namespace, pool, drain_on_version_upgrade, metadata: stored }, reply) =
            driver.call().await
        else {
            panic!("not a put");
        };
        assert_eq!((&*namespace, &*pool, drain_on_version_upgrade), ("default", "other", drain));
        assert_eq!(stored.as_deref(), metadata);
        reply.send(Ok(Answer::ConfigPut { changed: true })).expect("somebody waits");
        check_shape(&client.await.expect("client"), "runner_configs_put");
    }
    let nothing = send(address, Method::PUT, path, json!({ "datacenters": {} })).await;
    assert_eq!(json(&nothing), json!({ "endpoint_config_changed": false }));
    let put = |settings| send(address, Method::PUT, path, json!({ "datacenters": settings }));
    check_refusal(&put(json!({ "nowhere": { "normal": {} } })).await, "error_runner_config_unknown_datacenter");
    check_code(&put(json!({ "default": {} })).await, 400, "api.bad_request");
    check_code(&put(json!({ "default": { "serverless": { "url": "x" } } })).await, 400, "api.bad_request");
    check_code(&put(json!({ "default": { "normal": { "actor_eviction_delay": 5 } } })).await, 400, "api.bad_request");
    check_code(&put(json!("x")).await, 400, "api.bad_request");

    let config = |pool: &str, metadata: Option<&str>| RunnerConfigRecord {
        namespace_id: NAMESPACE.into(),
        pool: pool.into(),
        drain_on_version_upgrade: false,
        metadata: metadata.map(str::to_owned),
    };
    let all = [config("pool", None), config("other", Some("5"))];
    driver.remember(all.into_iter().map(Change::RunnerConfig).collect()).await;
    for (query, names, cursor) in [
        ("", &["other", "pool"][..], Value::Null),
        ("&runner_name=pool", &["pool"], Value::Null),
        ("&runner_names=pool,absent", &["pool"], Value::Null),
        ("&variant=serverless", &[], Value::Null),
        ("&limit=1", &["other"], json!("other")),
        ("&limit=1&cursor=other", &["pool"], Value::Null),
    ] {
        let response = get(address, &format!("/runner-configs?namespace=default{query}")).await;
        let body = json(&response);
        let listed: Vec<_> = body["runner_configs"].as_object().expect("object").keys().cloned().collect();
        assert_eq!(listed, names, "{query}");
        assert_eq!(body["pagination"]["cursor"], cursor, "{query}");
        if query == "&runner_name=pool" {
            check_shape(&response, "runner_configs_by_name");
        }
    }
    check_code(&get(address, "/runner-configs?namespace=default&variant=x").await, 400, "api.bad_request");

    let client = tokio::spawn(http(address, Request::delete(path), ""));
    let (CallRequest::DropRunnerConfig { namespace, pool }, reply) = driver.call().await else {
        panic!("not a delete");
    };
    assert_eq!((&*namespace, &*pool), ("default", "other"));
    reply.send(Ok(Answer::Done)).expect("somebody waits");
    check_shape(&client.await.expect("client"), "runner_configs_delete");
}
