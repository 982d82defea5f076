//! What the gateway says of itself, and who is let in.

use hyper::Request;
use secrecy::SecretString;
use serde_json::json;

use super::{check_code, check_refusal, check_shape, start};
use crate::gateway::GatewayHealth;
use crate::gateway::fake::{ACTOR, get, http, json, serve};
use crate::gateway::ingress::Patience;
use crate::gateway::public_api::ApiSettings;

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
    for path in ["/ui", "/ui/", "/ui/x/y"] {
        check_code(&get(address, path).await, 501, "api.not_implemented");
    }
    let client = tokio::spawn(async move { get(address, "/metrics").await });
    let health = GatewayHealth { awake_actors: 3, waiting_actors: 1, connected_runners: 2, ..GatewayHealth::default() };
    driver.health().await.send(health).expect("somebody waits");
    let metrics = client.await.expect("client");
    let text = std::str::from_utf8(metrics.body()).expect("text");
    for line in ["greenroom_gateway_runners 2", "greenroom_gateway_actors{phase=\"placed\"} 2"] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    assert_eq!(get(address, "/runners/connect?x=y").await.status(), 200);
}

#[tokio::test]
async fn reports_of_workers_are_merged_and_shown_by_their_key() {
    let (address, _driver) = start().await;
    let put = async |body: &str| {
        http(address, Request::put("/worker").header("content-type", "application/json"), body).await
    };
    let first = r#"{"worker_status":"connecting","external_metadata":{"a":{"x":1},"b":2},"internal_metadata":{"runner_key":"r"}}"#;
    assert_eq!(put(first).await.status(), 200);
    let second = r#"{"worker_status":"ready","external_metadata":{"a":{"y":2},"b":null},"internal_metadata":{"runner_key":"r"}}"#;
    assert_eq!(put(second).await.status(), 200);
    assert_eq!(put(r#"{"worker_status":"stopped"}"#).await.status(), 200);
    let shown = json(&get(address, "/worker").await);
    let workers = shown["workers"].as_array().expect("a list");
    assert_eq!((&workers[0]["key"], &workers[0]["worker_status"]), (&json!("default"), &json!("stopped")));
    assert_eq!((&workers[1]["key"], &workers[1]["worker_status"]), (&json!("r"), &json!("ready")));
    assert_eq!(workers[1]["external_metadata"], json!({ "a": { "y": 2 } }));
    assert!(workers[1]["update_ts"].as_i64().is_some_and(|at| at > 0));
    for wrong in ["[]", "{", r#"{"external_metadata":1}"#, r#"{"internal_metadata":{"runner_key":5}}"#] {
        check_code(&put(wrong).await, 400, "api.bad_request");
    }
    assert_eq!(json(&get(address, "/worker").await)["workers"].as_array().expect("a list").len(), 2);
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
