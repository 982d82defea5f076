//! Reports to a control plane that is not always well.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use greenroom::report::{Pace, Patch, WorkerState};
use greenroom::reporter::{Reporter, ReporterSettings};
use greenroom::telemetry::metrics;
use serde_json::json;

use crate::double::{ControlPlane, Mood};
use crate::process::Daemon;

#[tokio::test]
async fn whatever_ails_the_control_plane_one_request_is_in_flight_and_the_end_is_right() {
    let mut plane = ControlPlane::start().await;
    let reporter = reporter(&plane, Duration::from_millis(250));
    let mut expected = WorkerState::default();
    let mut step = 0;
    let mut change = |reporter: &Reporter| {
        // Several changes while one request is out: they become one.
        for _ in 0..5 {
            step += 1;
            let gone = format!("k{}", step % 3);
            let patch = Patch::new()
                .set("worker_status", format!("step {step}"))
                .external(&format!("k{}", step % 4), step)
                .external(&gone, serde_json::Value::Null)
                .internal("step", step);
            expected.apply(patch.clone());
            reporter.push(patch);
        }
    };
    for mood in [Mood::Fails, Mood::Hangs, Mood::Garbage, Mood::Refuses, Mood::Takes, Mood::Hangs, Mood::Fails] {
        plane.mood.send_replace(mood);
        let before = plane.seen.borrow().requests.len();
        change(&reporter);
        plane.until("a request", |seen| seen.requests.len() > before).await;
        change(&reporter);
    }
    plane.crash().await;
    change(&reporter);
    plane.mood.send_replace(Mood::Takes);
    plane.listen().await;
    change(&reporter);
    let seen = plane.until("the final state", |seen| seen.state == expected).await;
    assert_eq!(seen.most_in_flight, 1);
    let counted = metrics::runner().encode(metrics::Format::Text);
    for result in ["taken", "failed", "refused"] {
        let none = format!("\ngreenroom_state_upload_total{{result=\"{result}\"}} 0\n");
        assert!(!counted.contains(&none), "{counted}");
    }

    reporter.close(Patch::new().set("worker_status", "stopped"), PATIENCE).await;
    let seen = plane.seen.borrow().clone();
    assert_eq!(seen.statuses.last().unwrap(), "stopped");
    assert_eq!((seen.in_flight, seen.most_in_flight), (0, 1));
}

#[tokio::test]
async fn nothing_is_sent_after_close_even_when_the_last_word_was_not_taken() {
    let plane = ControlPlane::start().await;
    plane.mood.send_replace(Mood::Hangs);
    let reporter = reporter(&plane, PATIENCE);
    reporter.push(Patch::new().set("worker_status", "ready"));
    plane.until("a request", |seen| seen.in_flight == 1).await;
    reporter.close(Patch::new().set("worker_status", "stopped"), Duration::from_millis(50)).await;
    // The one in flight is dropped, and no other begins: its task is over.
    plane.until("the end of the request", |seen| seen.in_flight == 0).await;
    assert_eq!(plane.seen.borrow().requests.len(), 1);
    assert_eq!(plane.seen.borrow().statuses, ["ready"]);
}

#[tokio::test]
async fn the_daemon_tells_when_it_connects_serves_and_stops() {
    let plane = ControlPlane::start().await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "canary-report\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("http://{}/base/", plane.address);
    let arguments = [
        "dev",
        "--listen=127.0.0.1:0",
        "--admin=off",
        "--slots=7",
        "--runner-key=me",
        "--report-url",
        &url,
        "--report-token-file",
        token.to_str().unwrap(),
    ];
    let mut dev = Daemon::start(dir, &arguments);
    dev.line("greenroom is ready").await;
    let running = |seen: &crate::double::Seen| {
        let state = seen.state.to_json();
        state["worker_status"] == "ready"
            && state["external_metadata"]["actors"] == json!({"counter": {"running": 1}, "echo": {"running": 1}})
    };
    let seen = plane.until("both actors", running).await;
    let state = seen.state.to_json();
    assert_eq!(state["external_metadata"]["slots"], json!({"total": 7, "used": 2}));
    assert_eq!(state["internal_metadata"]["runner_key"], "me");
    assert_eq!(state["internal_metadata"]["versions"]["greenroom"], env!("CARGO_PKG_VERSION"));
    assert!(seen.requests.iter().all(|(_, head)| head.starts_with("put /base/worker http/1.1")));
    assert!(seen.requests.iter().all(|(_, head)| head.contains("authorization: bearer canary-report")));
    let _dir = dev.stop().await;
    let seen = plane.seen.borrow().clone();
    let words: Vec<&str> = seen.statuses.iter().map(String::as_str).collect();
    assert!(words.ends_with(&["stopped"]) && words.contains(&"ready"), "{words:?}");
    assert_eq!(seen.state.to_json()["external_metadata"]["slots"]["used"], 0);
    assert_eq!(seen.most_in_flight, 1);
}

fn reporter(plane: &ControlPlane, timeout: Duration) -> Reporter {
    let pace =
        Pace { first: Duration::from_millis(5), most: Duration::from_millis(40), refused: Duration::from_millis(40) };
    let url = format!("http://{}", plane.address).parse().unwrap();
    Reporter::start(ReporterSettings { url, token: None, pace, timeout }).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(30);
