//! The real binary as a gateway that can be killed and started again on its data.

use std::path::Path;
use std::process::{Command as Blocking, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A gateway process.
pub struct Gateway {
    child: Child,
    /// Where it listens; the same after every start.
    pub authority: String,
    /// What it said about its start.
    pub ready: Value,
    records: mpsc::UnboundedReceiver<Value>,
    errors: Arc<Mutex<Vec<Value>>>,
}

impl Gateway {
    /// Starts it, and waits until it serves.
    pub async fn start(data: &Path, listen: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.arg("gateway");
        Self::start_with(command, data, listen).await
    }

    /// Starts it with a limit on the size of each of its files; a write beyond fails with `EFBIG`.
    pub async fn start_limited(data: &Path, listen: &str, kib: u32) -> Self {
        let mut command = Command::new("bash");
        // An ignored signal stays ignored in the program, so that the write fails instead of the process.
        let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_greenroom")).arg("gateway");
        Self::start_with(command, data, listen).await
    }

    /// Starts it with other patience for runners that are away.
    pub async fn start_losing_runners_after(data: &Path, listen: &str, runner_lost_after: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.args(["gateway", "--runner-lost-after", runner_lost_after]);
        Self::start_with(command, data, listen).await
    }

    async fn start_with(mut command: Command, data: &Path, listen: &str) -> Self {
        command
            .args(["--log-format", "json", "--log", "info", "--listen", listen, "--data-dir"])
            .arg(data)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("a path"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the gateway starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let (sender, mut records) = mpsc::unbounded_channel();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&errors);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(record) = serde_json::from_str::<Value>(&line) else { continue };
                if record["level"] == "ERROR" {
                    seen.lock().expect("no panic").push(record.clone());
                }
                // The test may be over.
                let _ = sender.send(record);
            }
        });
        let ready = find(&mut records, "gateway serves").await;
        let authority = ready["address"].as_str().expect("an address").to_owned();
        Gateway { child, authority, ready, records, errors }
    }

    /// Kills it as the kernel would, and starts it again at the same address.
    pub async fn kill_and_restart(mut self, data: &Path) -> Self {
        self.kill();
        self.ended().await;
        Self::start(data, &self.authority).await
    }

    pub fn kill(&self) {
        kill_process(self.pid(), Signal::KILL).expect("it is killed");
    }

    pub fn pid(&self) -> Pid {
        self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs")
    }

    /// Stops it politely and answers its exit code.
    pub async fn stop(mut self) -> Option<i32> {
        kill_process(self.pid(), Signal::TERM).expect("it is told");
        self.ended().await
    }

    /// Its exit code, when it ended by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status").code()
    }

    /// The next record with this message.
    pub async fn record(&mut self, message: &str) -> Value {
        find(&mut self.records, message).await
    }

    /// What it called an error so far.
    pub fn errors(&self) -> Vec<Value> {
        self.errors.lock().expect("no panic").clone()
    }
}

async fn find(records: &mut mpsc::UnboundedReceiver<Value>, message: &str) -> Value {
    let mut others = Vec::new();
    let find = async {
        while let Some(record) = records.recv().await {
            if record["message"] == message {
                return record;
            }
            others.push(record.to_string());
        }
        panic!("the log ended without {message:?}: {others:#?}");
    };
    tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no record says {message:?}"))
}

/// Whether a program is there to be used by a test.
pub fn has(program: &str) -> bool {
    Blocking::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Far more than any of this takes; a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
