//! Where gateway and runners are processes of their own: a folder with their data, the actors file, and what the actors
//! put down there.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::gateway::{Gateway, PATIENCE};
use crate::http;

pub struct Place {
    folder: TempDir,
    /// The pool of the runners; it names the folder, too.
    pool: &'static str,
    /// How long the gateway keeps actors of a runner that is away.
    lost_after: &'static str,
    /// Runners so far.
    runners: usize,
}

/// A process that was started here; it does not outlive this.
pub struct Started(Child);

impl Place {
    pub fn new(pool: &'static str, lost_after: &'static str) -> Self {
        let folder = TempDir::with_prefix(format!("{pool}-")).expect("a directory");
        Place { folder, pool, lost_after, runners: 0 }
    }

    /// The file that actors put lines of JSON into.
    pub fn ledger_file(&self) -> PathBuf {
        self.folder.path().join("ledger.jsonl")
    }

    pub fn write_actors_file(&self, text: &str) {
        std::fs::write(self.folder.path().join("actors.toml"), text).expect("it is written");
    }

    /// Starts the gateway, with what the last one has left.
    pub async fn gateway(&self, listen: &str) -> Gateway {
        Gateway::start_losing_runners_after(&self.folder.path().join("gateway"), listen, self.lost_after).await
    }

    /// Starts a runner that has its data in a folder of this name, towards a gateway on this port.
    pub fn runner(&mut self, data: &str, port: u16) -> Started {
        let log = File::create(self.folder.path().join(format!("runner-{}.log", self.runners))).expect("it is created");
        self.runners += 1;
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(["run", "--allow-root", "--admin", "off", "--log", "debug", "--log-format", "text"]);
        command.args(["--runner-name", self.pool, "--endpoint", &format!("http://127.0.0.1:{port}")]);
        command.arg("--actors").arg(self.folder.path().join("actors.toml"));
        command.arg("--data-dir").arg(self.folder.path().join(data));
        command.env_clear().env("PATH", std::env::var_os("PATH").expect("a path")).stderr(log);
        Started::start(command)
    }

    /// Creates an actor, or finds it. Every other one sleeps when it crashes, the rest start again at once.
    pub async fn create(&self, authority: &str, name: &str, number: usize) -> String {
        let (key, policy) = (format!("{name}/{number}"), ["sleep", "restart"][number % 2]);
        let body = json!({ "name": name, "key": key, "runner_name_selector": self.pool, "crash_policy": policy });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = http::send(authority, "PUT", "/actors?namespace=default", body.to_string()).await;
            let answer = answer.expect("an answer");
            if answer.status == 200 {
                return answer.json()["actor"]["actor_id"].as_str().expect("an id").to_owned();
            }
            assert!(Instant::now() < deadline, "{}", answer.text());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the actors have put down so far, oldest first.
    pub fn ledger(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.ledger_file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The processes of these actors, of those that run: each puts its start down.
    pub fn processes_of(&self, actors: &[String]) -> Vec<Pid> {
        let ledger = self.ledger();
        let newest = actors.iter().filter_map(|actor| {
            let start = ledger.iter().rev().find(|line| line["what"] == "start" && line["actor"] == **actor)?;
            let pid = i32::try_from(start["pid"].as_i64()?).ok()?;
            // It may have ended; then its number may have become somebody else's.
            let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environment.contains(&format!("ACTOR_ID={actor}\0")) { Pid::from_raw(pid) } else { None }
        });
        newest.collect()
    }

    /// Keeps what was written, for somebody to look at.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

impl Started {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        Started(command.spawn().expect("it starts"))
    }

    pub fn pid(&self) -> Pid {
        self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is told");
    }

    /// Its exit code, when it ended by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.0.wait()).await.expect("it ends").expect("a status").code()
    }
}

/// Tells a process that may have ended by now.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}
