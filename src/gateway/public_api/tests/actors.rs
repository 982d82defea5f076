//! `/actors`.

use bytes::Bytes;
use greenroom_protocol::KvRequest;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::{
    OTHER, THIRD, check_code, check_refusal, check_shape, create_body, created, ids, reason, record, send, start,
};
use crate::gateway::GatewayError;
use crate::gateway::core::{Answer, CallRequest};
use crate::gateway::fake::{ACTOR, NAMESPACE, SECOND, get, http, json};
use crate::gateway::public_api::PublicApi;
use crate::store::{ActorError, ActorName, ActorRecord, Change, CrashPolicy, Phase};

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
