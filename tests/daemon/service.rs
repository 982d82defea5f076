//! What a service manager hears and says: readiness, watchdog, reload, stop.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::{TcpListener, UnixDatagram};

use crate::process::Daemon;

#[tokio::test]
async fn a_gateway_is_ready_when_it_serves_alive_while_its_loops_turn_and_says_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::bind(dir.path());
    let socket = manager.path.clone();
    let variables = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", "300000")];
    let mut daemon = Daemon::start_with(dir, &["gateway", "--listen", "127.0.0.1:0"], &variables);
    let ready = manager.hears("READY=1").await;
    assert!(ready.contains("STATUS=serves on 127.0.0.1:"), "{ready}");
    manager.hears("WATCHDOG=1").await;
    manager.hears("WATCHDOG=1").await;
    daemon.signal(Signal::HUP);
    daemon.record("reloaded; the log filter is as configured, everything else needs a restart").await;
    daemon.signal(Signal::TERM);
    let stopping = manager.hears("STOPPING=1").await;
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
    assert_eq!(daemon.exit_code().await, 0);
}

#[tokio::test]
async fn a_stopped_daemon_does_not_feed_its_watchdog() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::bind(dir.path());
    let socket = manager.path.clone();
    let variables = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", "300000")];
    let daemon = Daemon::start_with(dir, &["gateway", "--listen", "127.0.0.1:0"], &variables);
    manager.hears("WATCHDOG=1").await;
    daemon.signal(Signal::STOP);
    // What was sent before is read; then nothing comes for longer than the limit.
    let silence = async { while tokio::time::timeout(Duration::from_secs(1), manager.receive()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, silence).await.expect("a stopped process says nothing");
    daemon.signal(Signal::CONT);
    manager.hears("WATCHDOG=1").await;
}

#[tokio::test]
async fn a_runner_without_its_gateway_is_not_ready_and_asks_for_more_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::bind(dir.path());
    let socket = manager.path.clone();
    let arguments = ["run", "--endpoint", &endpoint, "--admin", "off"];
    let mut daemon = Daemon::start_with(dir, &arguments, &[("NOTIFY_SOCKET", &*socket)]);
    let waiting = manager.hears("STATUS=not connected (").await;
    assert!(waiting.contains("EXTEND_TIMEOUT_USEC=30000000") && !waiting.contains("READY=1"), "{waiting}");
    daemon.signal(Signal::TERM);
    manager.hears("STOPPING=1").await;
    assert_eq!(daemon.exit_code().await, 0);
}

#[tokio::test]
async fn a_hangup_reads_the_actors_file_again_and_keeps_the_old_one_over_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::bind(dir.path());
    let socket = manager.path.clone();
    let actors = dir.path().join("actors.toml");
    let define = |names: &[&str]| {
        let text: String =
            names.iter().map(|name| format!("[actors.{name}]\ncommand = [\"sleep\", \"60\"]\n")).collect();
        std::fs::write(&actors, text).unwrap();
    };
    define(&["one", "two"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let file = actors.to_str().unwrap().to_owned();
    let arguments = ["run", "--endpoint", &endpoint, "--admin", "off", "--actors", &file, "--allow-root"];
    let mut daemon = Daemon::start_with(dir, &arguments, &[("NOTIFY_SOCKET", &*socket)]);
    manager.hears("STATUS=").await;

    define(&["two", "three"]);
    daemon.signal(Signal::HUP);
    let record = daemon.record("reloaded; actors that run go on as they are").await;
    assert_eq!(record["added"], "three");
    assert_eq!(record["changed"], "");
    assert_eq!(record["removed"], "one");
    let told = manager.hears("RELOADING=1").await;
    assert!(told.contains("MONOTONIC_USEC="), "{told}");

    std::fs::write(&actors, "[actors.two]\ncomand = [\"true\"]\n").unwrap();
    daemon.signal(Signal::HUP);
    let record = daemon.record("not reloaded; everything stays as it was").await;
    assert_eq!(record["level"], "ERROR");
    assert!(record["error"].as_str().unwrap().contains("actors.two: expected a command"), "{record}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code().await, 0);
}

/// Plays the service manager.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn bind(dir: &Path) -> Self {
        let path = dir.join("notify").to_str().unwrap().to_owned();
        Manager { socket: UnixDatagram::bind(&path).unwrap(), path }
    }

    async fn receive(&self) -> String {
        let mut datagram = [0; 4096];
        let length = self.socket.recv(&mut datagram).await.unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    /// The next message that has this in it.
    async fn hears(&self, part: &str) -> String {
        let find = async {
            loop {
                let message = self.receive().await;
                if message.contains(part) {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("nothing says {part:?}"))
    }
}

/// Far more than any of this takes; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);
