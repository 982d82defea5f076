//! Probes, status and metrics.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use greenroom::admin::{AdminDoors, AdminOptions};
use greenroom::runner::Runner;
use serde_json::json;

use crate::client::{Dev, get, request, tcp};
use crate::process::Daemon;

#[tokio::test]
async fn a_ready_daemon_says_so_in_every_form() {
    let mut dev = Dev::start(&[]).await;
    assert_eq!(get(&dev.admin, "/livez").await.status, 200);
    let ready = get(&dev.admin, "/readyz").await;
    assert!(ready.status == 200 && ready.body.starts_with("ready since 20"), "{}", ready.body);
    let status = get(&dev.admin, "/status").await.json();
    assert_eq!(status["state"], "ready");
    assert_eq!(status["gateway"]["link"], "open");
    assert_eq!(status["gateway"]["reason"], json!(null));
    assert_eq!(status["runner"]["pool"], "default");
    assert_eq!(status["slots"]["total"], 1000);
    assert_eq!(status["draining"], false);
    dev.until("/status", |status| status["actors"]["counter"]["running"] == 1).await;
    dev.daemon.record("actor runs").await;
    dev.daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_without_a_gateway_says_why_it_is_not_ready_and_since_when() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["run", "--endpoint", "http://127.0.0.1:1", "--admin", "127.0.0.1:0"];
    let mut daemon = Daemon::start(dir, &arguments);
    let [serves, _] = daemon.records(["admin address serves", "not connected to the gateway"]).await;
    let admin = serves["address"].as_str().unwrap().to_owned();
    let ready = get(&admin, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with("not ready: "), "{}", ready.body);
    assert!(ready.body.contains("127.0.0.1:1") && ready.body.contains("since 20"), "{}", ready.body);
    let ready = get(&admin, "/readyz?format=json").await.json();
    assert_eq!(ready["ready"], false);
    assert!(ready["reason"].as_str().unwrap().contains("refused"), "{ready}");
    let accept = tcp(&admin, &request("GET", "/readyz", &admin, "accept: application/json\r\n", "")).await;
    assert_eq!(accept.json()["ready"], false);
    assert_eq!(get(&admin, "/livez").await.status, 200);
    let metrics = get(&admin, "/metrics").await.body;
    assert!(metrics.contains("\ngreenroom_gateway_connected 0\n"), "{metrics}");
    assert!(!metrics.contains("\ngreenroom_gateway_connects_total{result=\"failed\"} 0\n"), "{metrics}");
    daemon.stop().await;
}

#[tokio::test]
async fn metrics_count_what_happens_and_name_no_ids_and_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "canary-token").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let token = token.to_str().unwrap();
    let dev = Dev::start(&["--admin-token-file", token, "--admin-write-token-file", token]).await;
    let list = "/actors?namespace=default&name=counter&key=dev";
    let list =
        tcp(&dev.gateway, &request("GET", list, &dev.gateway, "authorization: Bearer canary-token\r\n", "")).await;
    let counter = list.json()["actors"][0]["actor_id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(get(&dev.gateway, &format!("/gateway/{counter}/")).await.status, 200);
    }
    assert_eq!(get(&dev.gateway, &format!("/gateway/{counter}/nothing")).await.status, 404);
    let metrics = get(&dev.admin, "/metrics").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    for line in [
        "greenroom_gateway_connected 1",
        "greenroom_tunnel_requests_total{name=\"counter\",code=\"2xx\"} 3",
        "greenroom_tunnel_requests_total{name=\"counter\",code=\"4xx\"} 1",
        "greenroom_tunnel_request_seconds_count{name=\"counter\"} 4",
        "greenroom_tunnel_inflight{name=\"counter\"} 0",
        "greenroom_actors{name=\"counter\",state=\"running\"} 1",
        "greenroom_actor_starts_total{name=\"counter\",reason=\"create\",result=\"ok\"} 1",
        "greenroom_slots{kind=\"used\"} 2",
        "greenroom_kv_ops_total{op=\"put\",result=\"ok\"} 3",
    ] {
        assert!(metrics.body.lines().any(|found| found == line), "missing {line} in\n{}", metrics.body);
    }
    let status = get(&dev.admin, "/status").await.body;
    for text in [&metrics.body, &status] {
        assert!(!text.contains("canary"), "{text}");
    }
    assert!(!metrics.body.contains(&counter), "{}", metrics.body);
    let accept = "accept: application/openmetrics-text;version=1.0.0\r\n";
    let open = tcp(&dev.admin, &request("GET", "/metrics", &dev.admin, accept, "")).await;
    assert!(open.head.contains("application/openmetrics-text") && open.body.ends_with("# EOF\n"), "{}", open.head);
    dev.daemon.stop().await;
}

#[tokio::test]
async fn it_answers_while_everything_else_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let runner = Runner::builder("http://127.0.0.1:1".parse().unwrap()).start().unwrap();
    let options = AdminOptions {
        address: None,
        insisted: false,
        socket: dir.path().join("admin.sock"),
        write_token: None,
        drain_timeout: Duration::from_secs(1),
    };
    let admin = AdminDoors::bind(options).await.unwrap().serve(runner.clone()).unwrap();
    // This runtime has one thread, and the calls below block it: the runner's driver does not turn meanwhile.
    let alive = blocking(admin.socket(), "/livez");
    assert!(alive.starts_with("HTTP/1.1 503") && alive.contains("may be stuck"), "{alive}");
    let ready = blocking(admin.socket(), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("not ready: dialling the gateway"), "{ready}");
    let metrics = blocking(admin.socket(), "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("process_open_fds"), "{metrics}");
    runner.stop_now().await;
    runner.wait().await;
}

fn blocking(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request("GET", path, "localhost", "", "").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
