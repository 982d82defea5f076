//! Requests to actors named by name and key.

use bytes::Bytes;
use hyper::Request;
use serde_json::Value;

use super::start;
use crate::gateway::core::{Answer, CallRequest};
use crate::gateway::fake::{ACTOR, code, get, http, json, record};
use crate::gateway::{CreateActor, GatewayError};
use crate::store::{ActorRecord, Change, CrashPolicy, Phase};

const GET: &str = "rvt-namespace=default&rvt-method=get";
const CREATE: &str = "rvt-namespace=default&rvt-method=getOrCreate&rvt-pool=pool";

#[tokio::test]
async fn an_actor_is_found_by_its_key() {
    let (address, mut driver, _) = start().await;
    let gone = ActorRecord { phase: Phase::Destroyed, destroy_ts: Some(1), ..record(OTHER) };
    driver.remember(vec![Change::Actor(Box::new(gone)), Change::Actor(Box::new(record(ACTOR)))]).await;
    let request = Request::post(format!("/gateway/counter/a/b?{GET}&rvt-key=one&c=d%20e&rvt-token=t"));
    let client = tokio::spawn(http(address, request, "hello"));
    let wanted = driver.wanted().await;
    assert_eq!(&*wanted.actor_id, ACTOR);
    let stream = wanted.open();
    assert_eq!(stream.request(), ("POST", "/a/b?c=d%20e", b"hello".as_slice()));
    stream.respond(200, &[], "found");
    assert_eq!(client.await.expect("client").body(), "found");

    for (path, refusal) in [
        (format!("/gateway/counter/?{GET}&rvt-key=two"), "actor.not_found"),
        (format!("/gateway/counter/?{GET}"), "actor.not_found"),
        (format!("/gateway/other/?{GET}&rvt-key=one"), "actor.not_found"),
        ("/gateway/counter/?rvt-namespace=second&rvt-method=get&rvt-key=one".to_owned(), "actor.not_found"),
    ] {
        let response = get(address, &path).await;
        assert_eq!((response.status().as_u16(), code(&response).as_str()), (404, refusal), "{path}");
        assert_eq!(response.headers()["x-rivet-error"], refusal);
    }
    assert!(driver.is_idle());
}

#[tokio::test]
async fn an_actor_is_made_when_there_is_none() {
    let (address, mut driver, _) = start().await;
    let path = format!("/gateway/counter/x?{CREATE}&rvt-key=a,b&rvt-input=oWFhAQ&rvt-crash-policy=restart&y=1");
    let client = tokio::spawn(async move { get(address, &path).await });
    let (call, reply) = driver.call().await;
    let CallRequest::GetOrCreate(wanted) = call else { panic!("{call:?}") };
    assert_eq!(
        wanted,
        CreateActor {
            namespace: "default".into(),
            name: "counter".into(),
            key: Some("a/b".into()),
            pool: "pool".into(),
            crash_policy: CrashPolicy::Restart,
            input: Some(Bytes::from_static(b"\xa1\x61a\x01")),
        }
    );
    let made = ActorRecord { key: Some("a/b".into()), ..record(ACTOR) };
    reply.send(Ok(Answer::Actor { record: Box::new(made), created: true })).expect("somebody waits");
    let wanted = driver.wanted().await;
    assert_eq!(&*wanted.actor_id, ACTOR);
    let stream = wanted.open();
    assert_eq!(stream.request(), ("GET", "/x?y=1", b"".as_slice()));
    stream.respond(200, &[], "made");
    assert_eq!(client.await.expect("client").body(), "made");
}

#[tokio::test]
async fn an_actor_that_cannot_be_made_is_a_refusal() {
    let (address, mut driver, _) = start().await;
    let path = format!("/gateway/counter/x?{CREATE}&rvt-key=a");
    let client = tokio::spawn(async move { get(address, &path).await });
    let (_, reply) = driver.call().await;
    reply.send(Err(GatewayError::NoRunnerConfig { pool: "pool".into() })).expect("somebody waits");
    let response = client.await.expect("client");
    assert_eq!(response.status(), 400);
    assert_eq!(code(&response), "actor.no_runner_config_configured");
    assert_eq!(json(&response)["metadata"]["namespace"], "default");

    for (more, refusal) in [
        ("&rvt-region=elsewhere".to_owned(), "datacenter.not_found"),
        (format!("&rvt-key={}", "k".repeat(1_025)), "actor.key_too_large"),
        ("&rvt-input=%20".to_owned(), "guard.query_invalid_base64_input"),
    ] {
        let response = get(address, &format!("/gateway/counter/x?{CREATE}{more}")).await;
        assert_eq!((response.status().as_u16(), code(&response).as_str()), (400, refusal), "{more}");
    }
    assert!(driver.is_idle());
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_said_as_the_engine_says_it() {
    let (address, mut driver, _) = start().await;
    for fixture in ["get_absent", "missing_pool", "invalid", "unknown_namespace"] {
        let file = format!("tests/interop/fixtures/engine-2.3.19/error_gateway_query_{fixture}.json");
        let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).expect(&file);
        let recorded: Value = serde_json::from_str(&text).expect("JSON");
        let response = get(address, recorded["request"]["path"].as_str().expect("a path")).await;
        assert_eq!(response.status().as_u16(), recorded["status"], "{fixture}");
        assert_eq!(json(&response), recorded["body"], "{fixture}");
        assert_eq!(response.headers()["x-rivet-error"].to_str().ok(), recorded["headers"]["x-rivet-error"].as_str());
    }
    assert!(driver.is_idle());
}

#[tokio::test]
async fn a_preflight_makes_no_actor() {
    let (address, mut driver, _) = start().await;
    let request = Request::options(format!("/gateway/counter/x?{CREATE}"));
    assert_eq!(http(address, request, "").await.status(), 204);
    assert!(driver.is_idle());
}

const OTHER: &str = "1oe70n6l4jcqg4a8w8zsyhhwkqcl00";
