//! Our own binary, in either place.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    client::Client,
    process::{Process, free_port, poll},
};

/// Our gateway; ends when dropped.
pub struct Gateway {
    pub process: Process,
    pub port: u16,
    _folder: TempDir,
}

impl Gateway {
    /// Starts it and waits until it answers `/health`.
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("interop-gateway-").expect("a temporary folder");
        let port = free_port();
        let mut command = Command::new(BINARY);
        command.arg("gateway").args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(folder.path());
        command.args(["--log", "debug", "--log-format", "text"]);
        let mut gateway = Self { process: Process::start("our gateway", command), port, _folder: folder };
        let client = Client::new(port);
        let healthy = poll(Duration::from_secs(20), || {
            let running = gateway.process.is_running();
            async move { if running { client.get("/health").await.ok().map(|a| a.status == 200) } else { Some(false) } }
        })
        .await;
        assert!(healthy == Some(true), "our gateway is not healthy\n{}", gateway.process.tail(30));
        gateway
    }
}

/// How to start our runner; it can be started many times with the same data folder, and so with the same runner key.
pub struct RunnerPlace {
    endpoint_port: u16,
    pool: String,
    actors: PathBuf,
    folder: TempDir,
}

impl RunnerPlace {
    /// Writes the actors file: the test actor as a child process that reports its hooks to the given file.
    pub fn new(endpoint_port: u16, pool: &str, hooks: &Path) -> Self {
        let folder = TempDir::with_prefix("interop-runner-").expect("a temporary folder");
        let actors = folder.path().join("actors.toml");
        let text = format!(
            r#"[actors.counter]
command = ["node", "counter.mjs"]
# Its packages are in the folder above, and it reports to a file of the test.
sandbox = "off"
cwd = {cwd:?}
env = {{ HOOKS_FILE = {hooks:?} }}
websocket = "proxy"
start_timeout = "20s"
stop_grace = "3s"

[actors.room]
command = ["node", "room.mjs"]
sandbox = "off"
cwd = {cwd:?}
env = {{ HOOKS_FILE = {hooks:?} }}
start_timeout = "20s"
stop_grace = "3s"
"#,
            cwd = crate::folder().join("actors"),
        );
        std::fs::write(&actors, text).expect("the actors file is written");
        Self { endpoint_port, pool: pool.to_owned(), actors, folder }
    }

    pub fn start(&self) -> Process {
        self.start_with("data", &[])
    }

    /// With another data folder and more flags, for example another namespace.
    pub fn start_with(&self, data: &str, flags: &[&str]) -> Process {
        let mut command = Command::new(BINARY);
        command.args(["run", "--endpoint", &format!("http://127.0.0.1:{}", self.endpoint_port)]);
        command.args(["--runner-name", &self.pool, "--slots", &crate::SLOTS.to_string(), "--admin", "off"]);
        command
            .arg("--allow-root")
            .arg("--actors")
            .arg(&self.actors)
            .arg("--data-dir")
            .arg(self.folder.path().join(data));
        command.args(["--log", "debug", "--log-format", "text"]).args(flags);
        Process::start("our runner", command)
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_greenroom");
