//! The API over a driver played by the test, held against what the engine answers.

mod actors;
mod pools;
mod service;

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use crate::gateway::core::Answer;
use crate::gateway::fake::{ACTOR, FakeDriver, NAMESPACE, code, http, json, record, serve};
use crate::gateway::ingress::Patience;
use crate::gateway::public_api::ApiSettings;
use crate::store::{NamespaceRecord, RunnerRecord};

const OTHER: &str = "d5gpa1olwrpqzfvgr9elazm9t8bl00";
const THIRD: &str = "ljoje6kkk81ti8jg5qjkzz9qmscl00";

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
