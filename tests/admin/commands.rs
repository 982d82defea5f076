//! The operator's commands, against a running daemon.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::client::Dev;

#[tokio::test]
async fn commands_find_the_daemon_of_their_data_directory() {
    let dev = Dev::start(&[]).await;
    dev.until("/status", |status| status["slots"]["used"] == 2).await;
    let text = ok(&greenroom(&dev, &["status"]).await);
    assert!(text.contains("is ready") && text.contains("2 of 1000 used"), "{text}");
    let status: Value = serde_json::from_str(&ok(&greenroom(&dev, &["status", "--json"]).await)).unwrap();
    assert_eq!(status["state"], "ready");
    let table = ok(&greenroom(&dev, &["actors"]).await);
    assert!(table.starts_with("ID ") && table.contains("counter") && table.contains("running"), "{table}");
    let shown = ok(&greenroom(&dev, &["actors", "show", "counter"]).await);
    assert!(shown.contains("generation") && shown.contains("The actor counter with the key"), "{shown}");
    let explained = ok(&greenroom(&dev, &["actors", "explain", "echo"]).await);
    assert!(explained.starts_with("The actor echo"), "{explained}");
    ok(&greenroom(&dev, &["actors", "logs", "counter"]).await);
    let slept = ok(&greenroom(&dev, &["actors", "sleep", "counter"]).await);
    assert!(slept.contains("asked to sleep"), "{slept}");
    assert_eq!(ok(&greenroom(&dev, &["log", "show"]).await).trim(), "info");
    let set = ok(&greenroom(&dev, &["log", "set", "debug", "--for", "10m"]).await);
    assert!(set.starts_with("debug (until 20") && set.contains("then info"), "{set}");
    dev.daemon.stop().await;
}

#[tokio::test]
async fn a_log_filter_goes_back_by_itself() {
    let dev = Dev::start(&[]).await;
    ok(&greenroom(&dev, &["log", "set", "debug", "--for", "50ms"]).await);
    dev.until("/log", |log| log["filter"] == "info" && log["until"].is_null()).await;
    dev.daemon.stop().await;
}

#[tokio::test]
async fn a_drain_is_watched_to_its_end() {
    let mut dev = Dev::start(&[]).await;
    dev.until("/status", |status| status["slots"]["used"] == 2).await;
    let told = ok(&greenroom(&dev, &["drain"]).await);
    assert!(told.starts_with("draining 2 actors") && told.trim_end().ends_with("stopped"), "{told}");
    assert_eq!(dev.daemon.exit_code().await, 0);
}

#[tokio::test]
async fn without_a_daemon_commands_say_where_they_looked() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let output = command(&["status", "--data-dir", data], &[("GREENROOM_ADMIN", "127.0.0.1:1")]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for place in [&format!("{data}/run/admin.sock"), "http://127.0.0.1:1", "--admin"] {
        assert!(stderr.contains(place), "missing {place} in {stderr}");
    }
    let output = command(&["drain", "--admin", "unix:/nowhere"], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let output = command(&["status", "--data-dir", data], &[("GREENROOM_ADMIN", "nowhere")]).await;
    assert_eq!(output.status.code(), Some(78));
}

#[tokio::test]
async fn what_the_daemon_refuses_is_told_with_what_to_do() {
    let dev = Dev::start(&[]).await;
    let output = command(&["drain", "--admin", &dev.admin], &[]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("--admin-write-token-file"), "{stderr}");
    let output = greenroom(&dev, &["actors", "show", "nobody"]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("greenroom actors list"), "{stderr}");
    dev.daemon.stop().await;
}

#[tokio::test]
async fn completions_and_the_manual_page_come_from_the_same_table() {
    for shell in ["bash", "zsh", "fish"] {
        let text = ok(&command(&["completions", shell], &[]).await);
        assert!(text.contains("runner-name") && text.contains("explain"), "{shell}");
    }
    let page = ok(&command(&["man"], &[]).await);
    for setting in greenroom::config::SETTINGS.iter().filter(|setting| setting.built) {
        let name = setting.variable.unwrap_or("actor");
        assert!(page.replace("\\-", "-").contains(name), "{name} is not in the manual page");
    }
    assert!(page.contains("EXIT STATUS") && page.contains("127.0.0.1:6490"), "{page}");
}

async fn greenroom(dev: &Dev, arguments: &[&str]) -> Output {
    let data = dev.daemon.dir.path().join("data");
    command(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat(), &[]).await
}

async fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(arguments).env_clear().envs(variables.iter().copied()).output().await.unwrap()
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
