//! The API over a driver played by the test, held against what the engine answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenroom_protocol::KvRequest;
use hyper::{Method, Request, Response};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{ApiSettings, PublicApi};
use crate::gateway::core::{Answer, CallRequest};
use crate::gateway::fake::{ACTOR, FakeDriver, NAMESPACE, SECOND, code, get, http, json, serve};
use crate::gateway::ingress::Patience;
use crate::gateway::{GatewayError, GatewayHealth, LiveRunner};
use crate::store::{
    ActorError, ActorName, ActorRecord, Change, CrashPolicy, NamespaceRecord, Phase, RunnerConfigRecord, RunnerRecord,
};

const OTHER: &str = "d5gpa1olwrpqzfvgr9elazm9t8bl00";
const THIRD: &str = "ljoje6kkk81ti8jg5qjkzz9qmscl00";

#[tokio::test]
async fn an_actor_is_created() {
    let (address, mut driver) = start().await;
    let body = json!({
        "name": "counter", "key": "one", "runner_name_selector": "pool", "crash_policy": "sleep", "input": "aGVsbG8=",
    });
    let client = tokio::spawn(send(address, Method::POST, "/actors?namespace=default", body));
    let (CallRequest::Create(actor), reply) = driver.call().await else { panic!("not a create") };
    assert_eq!(&*actor.namespace, "default");
    assert_eq!(&*actor.name, "counter");
    assert_eq!(actor.key.as_deref(), Some("one"));
    assert_eq!(&*actor.pool, "pool");
    assert_eq!(actor.crash_policy, CrashPolicy::Sleep);
    assert_eq!(actor.input, Some(Bytes::from("hello")));
    reply.send(Ok(created(true))).expect("somebody waits");
    let response = client.await.expect("client");
    check_shape(&response, "actors_create");
    let actor = &json(&response)["actor"];
    assert_eq!(actor["actor_id"], ACTOR);
    assert_eq!(actor["start_ts"], Value::Null);
    assert_eq!(actor.get("error"), None);
}

#[tokio::test]
async fn an_actor_is_found_or_created() {
    let (address, mut driver) = start().await;
    for (created, fixture) in [(true, "actors_get_or_create_created"), (false, "actors_get_or_create_existing")] {
        let client = tokio::spawn(send(address, Method::PUT, "/actors?namespace=default", create_body()));
        let (CallRequest::GetOrCreate(actor), reply) = driver.call().await else { panic!("not a get or create") };
        assert_eq!(actor.key.as_deref(), Some("one"));
        reply.send(Ok(self::created(created))).expect("somebody waits");
        let response = client.await.expect("client");
        check_shape(&response, fixture);
        assert_eq!(json(&response)["created"], created);
    }
}

#[tokio::test]
async fn a_create_that_is_wrong_says_how() {
    let (address, mut driver) = start().await;
    let body = |change: &dyn Fn(&mut Value)| {
        let mut body = create_body();
        change(&mut body);
        body
    };
    let post = |body| send(address, Method::POST, "/actors?namespace=default", body);
    let unknown = post(body(&|body| body["colour"] = json!("red"))).await;
    check_refusal(&unknown, "error_unknown_body_field");
    assert!(reason(&unknown).contains("colour: unknown field `colour`, expected one of `datacenter`, `name`, `key`"));
    let missing = post(json!({ "name": "counter" })).await;
    check_refusal(&missing, "error_missing_fields");
    assert!(reason(&missing).contains("missing field `runner_name_selector`"));
    let policy = post(body(&|body| body["crash_policy"] = json!("dance"))).await;
    check_refusal(&policy, "error_bad_crash_policy");
    assert!(reason(&policy).contains("unknown variant `dance`"));
    check_refusal(&post(body(&|body| body["key"] = json!(""))).await, "error_empty_key");
    check_refusal(&post(body(&|body| body["key"] = json!("k".repeat(1_025)))).await, "error_key_too_large");
    check_code(&post(body(&|body| body["key"] = json!("ä".repeat(600)))).await, 400, "actor.key_too_large");
    check_code(&post(body(&|body| body["key"] = json!(5))).await, 400, "api.bad_request");
    check_code(&post(body(&|body| body["input"] = json!("no base64!"))).await, 400, "api.bad_request");
    check_code(&post(body(&|body| body["input"] = json!("YQ"))).await, 400, "api.bad_request");
    check_code(&post(body(&|body| body["datacenter"] = json!("mars"))).await, 400, "datacenter.not_found");
    check_code(&post(json!([])).await, 400, "api.bad_request");
    let keyless = send(
        address,
        Method::PUT,
        "/actors?namespace=default",
        body(&|body| {
            body.as_object_mut().expect("object").remove("key");
        }),
    );
    check_refusal(&keyless.await, "error_get_or_create_without_key");

    let broken = Request::post("/actors?namespace=default").header("content-type", "application/json");
    check_refusal(&http(address, broken, "{").await, "error_body_not_json");
    let untyped = Request::post("/actors?namespace=default");
    check_refusal(&http(address, untyped, &create_body().to_string()).await, "error_missing_content_type");
    let large = post(body(&|body| body["input"] = json!("A".repeat(PublicApi::BODY_MAX)))).await;
    assert!(reason(&large).contains("length limit exceeded"));

    let absent = send(address, Method::POST, "/actors?namespace=absent", create_body()).await;
    check_refusal(&absent, "error_unknown_namespace_create");
    let nowhere = send(address, Method::POST, "/actors", create_body()).await;
    check_refusal(&nowhere, "error_missing_namespace_parameter");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_create_that_fails_says_why() {
    let (address, mut driver) = start().await;
    let existing = GatewayError::DuplicateKey { existing_actor_id: ACTOR.into(), key: "one".into() };
    for (error, fixture) in [
        (existing, "error_duplicate_key"),
        (GatewayError::NoRunnerConfig { pool: "pool".into() }, "error_no_runner_config"),
        (GatewayError::ActorDestroyed, "error_duplicate_key_race"),
    ] {
        let client = tokio::spawn(send(address, Method::POST, "/actors?namespace=default", create_body()));
        let (CallRequest::Create(_), reply) = driver.call().await else { panic!("not a create") };
        reply.send(Err(error)).expect("somebody waits");
        check_refusal(&client.await.expect("client"), fixture);
    }
}

#[tokio::test]
async fn actors_are_listed_by_name() {
    let (address, driver) = start().await;
    let list = |query: &'static str| async move {
        get(address, &format!("/actors?namespace=default&name=counter{query}")).await
    };
    check_shape(&list("").await, "actors_by_key_absent");
    let waits = Some(ActorError::NoCapacity);
    let actors = [
        ActorRecord { create_ts: 1_000, ..record(ACTOR) },
        ActorRecord { create_ts: 2_000, key: Some("a,b".into()), error: waits, ..record(OTHER) },
        ActorRecord { create_ts: 3_000, destroy_ts: Some(4_000), phase: Phase::Destroyed, ..record(THIRD) },
    ];
    driver.remember(actors.into_iter().map(|actor| Change::Actor(Box::new(actor))).collect()).await;
    for (query, expected, cursor) in [
        ("", &[OTHER, ACTOR][..], json!("1000")),
        ("&key=", &[OTHER, ACTOR], json!("1000")),
        ("&key=a%2Cb", &[OTHER], json!("2000")),
        ("&include_destroyed=true", &[THIRD, OTHER, ACTOR], json!("1000")),
        ("&limit=1", &[OTHER], json!("2000")),
        ("&limit=1&cursor=2000", &[ACTOR], json!("1000")),
        ("&cursor=1000", &[], Value::Null),
        ("&limit=0", &[], Value::Null),
    ] {
        let response = list(query).await;
        if expected.first() == Some(&ACTOR) {
            check_shape(&response, "actors_by_name");
        }
        assert_eq!(ids(&response), expected, "{query}");
        assert_eq!(json(&response)["pagination"]["cursor"], cursor, "{query}");
    }
    let body = json(&list("").await);
    assert_eq!(body["actors"][0]["error"], "no_capacity");
    assert_eq!(body["actors"][1].get("error"), None);
    let body = json(&get(address, "/actors?namespace=default&name=other").await);
    assert_eq!(body["actors"], json!([]));
}

#[tokio::test]
async fn actors_are_listed_by_id() {
    let (address, driver) = start().await;
    let crashed = Some(ActorError::Crashed { message: None });
    let sleeping = ActorRecord { error: crashed, sleep_ts: Some(5), start_ts: Some(2), ..record(ACTOR) };
    let destroyed = ActorRecord { create_ts: 2_000, destroy_ts: Some(9), phase: Phase::Destroyed, ..record(OTHER) };
    let foreign = ActorRecord { namespace_id: SECOND.into(), ..record(THIRD) };
    let actors = [sleeping, destroyed, foreign];
    driver.remember(actors.into_iter().map(|actor| Change::Actor(Box::new(actor))).collect()).await;
    for query in [
        format!("actor_ids={ACTOR},garbage,,{OTHER},{THIRD}"),
        format!("actor_id={ACTOR}&actor_id={OTHER}&actor_id={THIRD}&name="),
    ] {
        let response = get(address, &format!("/actors?namespace=default&{query}")).await;
        assert_eq!(ids(&response), [OTHER, ACTOR], "{query}");
    }
    let response = get(address, &format!("/actors?namespace=default&actor_ids={ACTOR}")).await;
    check_shape(&response, "actors_by_ids_sleeping");
    assert_eq!(json(&response)["actors"][0]["error"], json!({ "crashed": { "message": null } }));
    let twice = get(address, &format!("/actors?namespace=default&actor_ids={ACTOR},{ACTOR}")).await;
    assert_eq!(ids(&twice), [ACTOR, ACTOR]);
}

#[tokio::test]
async fn a_list_that_is_asked_wrongly_says_how() {
    let (address, mut driver) = start().await;
    let list = |query: String| async move { get(address, &format!("/actors?namespace=default&{query}")).await };
    check_refusal(&list(String::new()).await, "error_list_without_name");
    check_refusal(&list(format!("name=counter&actor_ids={ACTOR}")).await, "error_list_name_and_ids");
    check_refusal(&list("name=counter&colour=red".to_owned()).await, "error_unknown_query_field");
    check_refusal(&list("actor_id=garbage".to_owned()).await, "error_bad_actor_id_in_query");
    check_code(&list("actor_ids=garbage".to_owned()).await, 400, "validation.invalid_input");
    check_code(&list("key=one".to_owned()).await, 400, "validation.invalid_input");
    check_code(&list("name=x&limit=-1".to_owned()).await, 400, "api.bad_request");
    check_code(&list("name=x&cursor=abc".to_owned()).await, 400, "api.bad_request");
    check_code(&list("name=x&name=y".to_owned()).await, 400, "api.bad_request");
    check_code(&list("name=x&include_destroyed=1".to_owned()).await, 400, "api.bad_request");
    let many = list(format!("actor_ids={}", [ACTOR; 33].join(","))).await;
    check_code(&many, 400, "validation.too_many_actor_ids");
    assert_eq!(json(&many)["metadata"], json!({ "count": 33, "max": 32 }));
    check_refusal(&get(address, "/actors?namespace=absent&name=x").await, "error_unknown_namespace_list");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn an_actor_is_destroyed() {
    let (address, mut driver) = start().await;
    let path = format!("/actors/{ACTOR}?namespace=default");
    for (answer, fixture) in
        [(Ok(Answer::Done), "actors_delete"), (Err(GatewayError::ActorNotFound), "error_delete_unknown_actor")]
    {
        let client = tokio::spawn(http(address, Request::delete(&path), ""));
        let (CallRequest::Destroy { namespace, actor_id }, reply) = driver.call().await else {
            panic!("not a destroy")
        };
        assert_eq!((&*namespace, &*actor_id), ("default", ACTOR));
        reply.send(answer).expect("somebody waits");
        check_shape(&client.await.expect("client"), fixture);
    }
    let unparsable = http(address, Request::delete("/actors/garbage?namespace=default"), "").await;
    check_refusal(&unparsable, "error_delete_unparsable_id");
    let unknown = http(address, Request::delete(format!("{path}&x=1")), "").await;
    check_code(&unknown, 400, "api.bad_request");
    assert!(driver.is_idle());
}

#[tokio::test]
async fn names_of_actors_are_listed() {
    let (address, driver) = start().await;
    check_shape(&get(address, "/actors/names?namespace=default").await, "actors_names_empty");
    let name = |name: &str, metadata: &str| {
        Change::ActorName(ActorName {
            namespace_id: NAMESPACE.into(),
            name: name.into(),
            metadata: metadata.to_owned(),
        })
    };
    driver.remember(vec![name("counter", r#"{"kind":"test"}"#), name("broken", "{")]).await;
    let response = get(address, "/actors/names?namespace=default&cursor=broken").await;
    check_shape(&response, "actors_names");
    let body = json(&get(address, "/actors/names?namespace=default").await);
    assert_eq!(body["names"]["counter"]["metadata"]["kind"], "test");
    assert_eq!(body["names"]["broken"]["metadata"], json!({}));
    assert_eq!(body["pagination"]["cursor"], "counter");
    let body = json(&get(address, "/actors/names?namespace=default&limit=1").await);
    assert_eq!(body["pagination"]["cursor"], "broken");
}

#[tokio::test]
async fn a_stored_value_is_shown() {
    let (address, driver) = start().await;
    let path = |key: &str| format!("/actors/{ACTOR}/kv/keys/{key}?namespace=default");
    check_refusal(&get(address, &path("YWJzZW50")).await, "error_kv_unknown_actor");
    driver.remember(vec![Change::Actor(Box::new(record(ACTOR)))]).await;
    let keys = vec![Bytes::from_static(b"count"), Bytes::from_static(b"\xff\xff")];
    let put = KvRequest::Put { keys, values: vec![Bytes::from_static(b"2"); 2] };
    driver.store().kv(ACTOR.into(), put).await.expect("stored");
    // A slash of the key's base64 is percent-encoded in the path.
    for key in ["Y291bnQ%3D", "Y291bnQ=", "%2F%2F8%3D"] {
        let response = get(address, &path(key)).await;
        check_shape(&response, "actors_kv_get");
        assert_eq!(json(&response)["value"], "Mg==");
    }
    check_refusal(&get(address, &path("YWJzZW50")).await, "error_kv_key_not_found");
    for bad in ["%21%21", "YQ", "%20"] {
        check_code(&get(address, &path(bad)).await, 400, "api.bad_request");
    }
    let foreign = ActorRecord { namespace_id: SECOND.into(), ..record(OTHER) };
    driver.remember(vec![Change::Actor(Box::new(foreign))]).await;
    let response = get(address, &format!("/actors/{OTHER}/kv/keys/YQ==?namespace=default")).await;
    check_refusal(&response, "error_kv_unknown_actor");
}

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

#[tokio::test]
async fn the_gateway_tells_of_itself() {
    let (address, mut driver) = start().await;
    let client = tokio::spawn(async move { get(address, "/health").await });
    driver.health().await.send(GatewayHealth::default()).expect("somebody waits");
    let response = client.await.expect("client");
    assert_eq!(response.status(), 200);
    assert_eq!(json(&response)["status"], "ok");
    let client = tokio::spawn(async move { get(address, "/health").await });
    drop(driver.health().await);
    assert_eq!(client.await.expect("client").status(), 503);

    assert_eq!(json(&get(address, "/metadata").await)["runtime"], "engine");
    let datacenters = get(address, "/datacenters").await;
    check_shape(&datacenters, "datacenters");
    assert_eq!(json(&datacenters)["datacenters"][0]["url"], "http://test/");
    let root = get(address, "/").await;
    assert_eq!((root.status().as_u16(), &root.headers()["location"]), (308, &"/ui/".parse().expect("value")));
    for path in ["/ui", "/ui/", "/ui/x/y", "/metrics"] {
        check_code(&get(address, path).await, 501, "api.not_implemented");
    }
    check_code(&http(address, Request::put("/worker"), "{}").await, 501, "api.not_implemented");
    assert_eq!(get(address, "/runners/connect?x=y").await.status(), 200);
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_told() {
    let (address, mut driver) = start().await;
    check_refusal(&get(address, "/nowhere").await, "error_unknown_route");
    for path in ["/actors/", "/Actors", "/health/", "/actors//names", "/%61ctors"] {
        let response = get(address, path).await;
        check_code(&response, 404, "api.not_found");
    }
    for (method, path) in [
        ("PATCH", "/actors?namespace=default".to_owned()),
        ("GET", format!("/actors/{ACTOR}?namespace=default")),
        ("POST", "/health".to_owned()),
        ("DELETE", "/namespaces".to_owned()),
    ] {
        let response = http(address, Request::builder().method(method).uri(&path), "").await;
        assert_eq!(response.status(), 405, "{method} {path}");
        assert!(response.body().is_empty());
        assert!(response.headers().contains_key("allow"));
        assert_eq!(response.headers()["x-rivet-ray-id"].len(), 30);
    }
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_token_opens_what_is_not_open_anyway() {
    let settings = ApiSettings { admin_token: Some(SecretString::from("secret")), ..ApiSettings::default() };
    let (address, mut driver, _) = serve(Patience::default(), settings).await;
    let call = |path: &'static str, token: Option<&'static str>| async move {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        http(address, request, "").await
    };
    for path in [
        "/actors?namespace=default&name=x",
        "/actors",
        "/actors/names?namespace=default",
        "/actors/x/kv/keys/y",
        "/runners",
        "/runners/names",
        "/namespaces",
        "/runner-configs",
        "/datacenters",
        "/metrics",
        "/worker",
    ] {
        let missing = call(path, None).await;
        check_code(&missing, 403, "api.forbidden");
        assert_eq!(json(&missing)["message"], "Access denied: Token not provided");
        assert_eq!(json(&missing)["metadata"], json!({ "reason": "Token not provided" }));
        assert_eq!(missing.headers().get("x-rivet-error"), None);
        for wrong in ["Bearer", "Bearer wrong", "Bearer secre", "Bearer secrets", "Basic secret"] {
            check_code(&call(path, Some(wrong)).await, 403, "api.forbidden");
        }
    }
    let right = call("/namespaces?name=default", Some("Bearer secret")).await;
    assert_eq!(right.status(), 200);
    assert_eq!(call("/metadata", None).await.status(), 200);
    assert!(driver.is_idle());
    let client = tokio::spawn(call("/health", None));
    driver.health().await.send(GatewayHealth::default()).expect("somebody waits");
    assert_eq!(client.await.expect("client").status(), 200);
    // Clients of actors need no token, as with the engine.
    let path = format!("/gateway/{ACTOR}/");
    let client = tokio::spawn(async move { get(address, &path).await });
    driver.open().await.respond(200, &[], "");
    assert_eq!(client.await.expect("client").status(), 200);
}

#[tokio::test]
async fn browsers_may_use_the_api() {
    let (address, _driver) = start().await;
    let request = Request::options("/actors")
        .header("origin", "http://site.test")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization");
    let response = http(address, request, "").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["access-control-allow-origin"], "http://site.test");
    assert_eq!(response.headers()["access-control-allow-methods"], "PUT");
    assert_eq!(response.headers()["access-control-allow-headers"], "authorization");
    assert_eq!(response.headers()["access-control-allow-credentials"], "true");
    let request = Request::get("/namespaces?name=default").header("origin", "http://site.test");
    let response = http(address, request, "").await;
    assert_eq!(response.headers()["access-control-allow-origin"], "http://site.test");
    let response = get(address, "/namespaces?name=default").await;
    assert_eq!(response.headers().get("access-control-allow-origin"), None);
}

async fn start() -> (SocketAddr, FakeDriver) {
    let (address, driver, _) = serve(Patience::default(), ApiSettings::default()).await;
    (address, driver)
}

async fn send(address: SocketAddr, method: Method, path: &str, body: Value) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    http(address, request, &body.to_string()).await
}

fn created(created: bool) -> Answer {
    Answer::Actor { record: Box::new(record(ACTOR)), created }
}

/// The ids of listed actors.
fn ids(response: &Response<Bytes>) -> Vec<String> {
    let body = json(response);
    let actors = body["actors"].as_array().expect("a list");
    actors.iter().map(|actor| actor["actor_id"].as_str().expect("an id").to_owned()).collect()
}

fn create_body() -> Value {
    json!({ "name": "counter", "key": "one", "runner_name_selector": "pool", "crash_policy": "sleep" })
}

fn record(id: &str) -> ActorRecord {
    ActorRecord {
        id: id.into(),
        namespace_id: NAMESPACE.into(),
        name: "counter".into(),
        key: Some("one".into()),
        pool: "pool".into(),
        crash_policy: CrashPolicy::Sleep,
        input: None,
        phase: Phase::Pending,
        generation: 0,
        runner_id: None,
        next_command: 0,
        command_acknowledged: false,
        last_event: None,
        alarm_at: None,
        wake_after_stop: false,
        restarts: 0,
        error: None,
        create_ts: 1_000,
        start_ts: None,
        pending_allocation_ts: None,
        connectable_ts: None,
        sleep_ts: None,
        reschedule_ts: None,
        destroy_ts: None,
    }
}

fn namespace(name: &str, create_ts: i64) -> NamespaceRecord {
    NamespaceRecord { id: OTHER.into(), name: name.into(), display_name: "Any".to_owned(), create_ts }
}

fn runner(id: &str) -> RunnerRecord {
    RunnerRecord {
        id: id.into(),
        namespace_id: NAMESPACE.into(),
        pool: "pool".into(),
        key: "k".into(),
        version: 1,
        total_slots: 100,
        metadata: r#"{"language":"typescript"}"#.to_owned(),
        create_ts: 10,
        last_connected_ts: 11,
        last_ping_ts: 12,
        drain_ts: None,
        stop_ts: None,
    }
}

/// What the engine answered.
fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/interop/fixtures/engine-2.3.19/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the fixture is there");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

fn reason(response: &Response<Bytes>) -> String {
    json(response)["metadata"]["reason"].as_str().expect("a reason").to_owned()
}

#[track_caller]
fn check_code(response: &Response<Bytes>, status: u16, name: &str) {
    assert_eq!(code(response), name);
    assert_eq!(response.status(), status);
}

/// Status, group and code of a refusal are the engine's, and the metadata has the same fields.
#[track_caller]
fn check_refusal(response: &Response<Bytes>, name: &str) {
    let expected = fixture(name);
    let body = json(response);
    assert_eq!(body["group"], expected["body"]["group"], "{body}");
    assert_eq!(body["code"], expected["body"]["code"], "{body}");
    check_shape(response, name);
}

/// Status and content type are the engine's, and the body has the same fields with values of the same kind.
#[track_caller]
fn check_shape(response: &Response<Bytes>, name: &str) {
    let expected = fixture(name);
    assert_eq!(expected["status"], response.status().as_u16(), "{:?}", response.body());
    assert_eq!(expected["headers"]["content-type"], response.headers()["content-type"].to_str().expect("text"));
    if let Some(difference) = difference(&json(response), &expected["body"], "body") {
        panic!("{name}: {difference}");
    }
}

/// Where two bodies differ in form. Null stands for a value of any kind; the first elements of lists are compared.
fn difference(ours: &Value, theirs: &Value, at: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Object(ours), Value::Object(theirs)) => {
            let missing = theirs.keys().find(|key| !ours.contains_key(*key));
            let surplus = ours.keys().find(|key| !theirs.contains_key(*key));
            if let Some(key) = missing.or(surplus) {
                return Some(format!("{at}.{key} is only in one of them"));
            }
            ours.iter().find_map(|(key, value)| difference(value, &theirs[key], &format!("{at}.{key}")))
        }
        (Value::Array(ours), Value::Array(theirs)) => difference(ours.first()?, theirs.first()?, &format!("{at}[0]")),
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => None,
        (ours, theirs) => Some(format!("{at}: {ours} is not like {theirs}")),
    }
}
