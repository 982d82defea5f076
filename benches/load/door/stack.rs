//! A gateway with a runner behind it, or what stands in for both.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use crate::app::node_app;
use crate::figures::Side;
use crate::process::Program;

/// Processes that answer clients at one address.
pub struct Stack {
    pub side: Side,
    pub address: SocketAddr,
    /// End before their data is removed: fields drop in order.
    programs: Vec<Program>,
    data: TempDir,
}

impl Stack {
    /// Our gateway and our bench app, as they are shipped.
    pub async fn ours(side: Side, [gateway, bench_app]: [&Path; 2]) -> Result<Self, String> {
        let mut stack = Stack::empty(side)?;
        let mut gateway = Command::new(gateway);
        gateway.args(["gateway", "--log", "warn", "--listen", &stack.address.to_string(), "--data-dir"]);
        gateway.arg(stack.data.path().join("gateway"));
        stack.start("gateway", gateway)?;
        stack.healthy().await?;
        stack.runner(Command::new(bench_app)).await?;
        Ok(stack)
    }

    /// The Rivet engine and the TypeScript runner.
    pub async fn theirs(modules: &Path) -> Result<Self, String> {
        let mut stack = Stack::empty(Side::TypeScript)?;
        let program = modules.join("@rivetkit/engine-cli-linux-x64-musl/rivet-engine");
        if !program.exists() {
            return Err(format!("{} is missing: run `npm ci` in tests/interop, or give --modules", program.display()));
        }
        let file = stack.data.path().join("engine.json");
        let config = engine_config(stack.address.port(), &stack.data.path().join("engine"));
        std::fs::write(&file, config.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut engine = Command::new(program);
        engine.arg("--config").arg(&file).arg("start").env("HOME", stack.data.path()).env("RUST_LOG", "warn");
        stack.start("engine", engine)?;
        stack.healthy().await?;
        stack.runner(node_app(modules)?).await?;
        Ok(stack)
    }

    /// A hyper server behind a hyper reverse proxy.
    pub async fn proxy() -> Result<Self, String> {
        let mut stack = Stack::empty(Side::Proxy)?;
        let program = std::env::current_exe().map_err(|error| format!("no path of this program: {error}"))?;
        let mut origin = Command::new(&program);
        origin.arg("--become-origin");
        stack.start("origin", origin)?;
        let to = stack.said_address().await?;
        let mut proxy = Command::new(&program);
        proxy.args(["--become-proxy", &to.to_string()]);
        stack.start("proxy", proxy)?;
        stack.address = stack.said_address().await?;
        Ok(stack)
    }

    /// Creates an actor and answers what its paths begin with; the yardstick has none.
    pub async fn actor(&self, client: &mut Client) -> Result<String, String> {
        if self.side == Side::Proxy {
            return Ok(String::new());
        }
        create(client).await
    }

    /// Processor time of all its processes.
    pub fn cpu(&self) -> Duration {
        self.programs.iter().map(Program::cpu).sum()
    }

    /// Memory of all its processes, in bytes.
    pub fn memory(&self) -> u64 {
        self.programs.iter().map(Program::memory).sum()
    }

    /// What went wrong, with the last lines of every process.
    pub fn complaint(&self, what: &str) -> String {
        let programs: Vec<_> = self.programs.iter().map(|program| program.complaint("said last")).collect();
        format!("{}: {what}\n{}", self.side.name(), programs.join("\n"))
    }

    fn empty(side: Side) -> Result<Self, String> {
        let data = tempfile::Builder::new().prefix("greenroom-load-").tempdir().map_err(|error| error.to_string())?;
        Ok(Stack { side, address: SocketAddr::from(([127, 0, 0, 1], free_port()?)), programs: Vec::new(), data })
    }

    fn start(&mut self, name: &str, command: Command) -> Result<(), String> {
        self.programs.push(Program::start(name, command, self.data.path())?);
        Ok(())
    }

    async fn runner(&mut self, mut command: Command) -> Result<(), String> {
        command
            .env("GREENROOM_ENDPOINT", format!("http://{}", self.address))
            .env("GREENROOM_RUNNER_NAME", "bench")
            .env("GREENROOM_SLOTS", "200000")
            .env("GREENROOM_LOG", "warn");
        self.start("runner", command)?;
        let mut client = Client::connect(self.address).await?;
        self.wait("serve actors", async |stack| {
            let Ok(actor) = stack.actor(&mut client).await else { return false };
            client.ask("GET", &format!("{actor}/ping"), "").await.is_ok()
        })
        .await
    }

    async fn healthy(&mut self) -> Result<(), String> {
        self.wait("become healthy", async |stack| {
            let Ok(mut client) = Client::connect(stack.address).await else { return false };
            client.ask("GET", "/health", "").await.is_ok()
        })
        .await
    }

    /// The address that the last program says.
    async fn said_address(&mut self) -> Result<SocketAddr, String> {
        let said = |stack: &Stack| stack.programs.last().and_then(|program| program.said().trim().parse().ok());
        self.wait("say its address", async |stack| said(stack).is_some()).await?;
        said(self).ok_or_else(|| self.complaint("no address"))
    }

    async fn wait(&mut self, what: &str, mut done: impl AsyncFnMut(&Stack) -> bool) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START {
            if done(self).await {
                return Ok(());
            }
            for program in &mut self.programs {
                program.check()?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(self.complaint(&format!("does not {what}")))
    }
}

/// Creates an actor and answers what its paths begin with.
pub async fn create(client: &mut Client) -> Result<String, String> {
    let body = r#"{"name":"bench","runner_name_selector":"bench","crash_policy":"sleep"}"#;
    let answer = client.ask("POST", "/actors?namespace=default", body).await?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    let id = answer["actor"]["actor_id"].as_str().ok_or("an actor without an id")?;
    Ok(format!("/gateway/{id}"))
}

/// Without the flat curve the engine refuses work on a small busy machine.
fn engine_config(port: u16, data: &Path) -> Value {
    let [peer, metrics] = [free_port(), free_port()].map(|port| port.unwrap_or(0));
    json!({
        "guard": { "host": "127.0.0.1", "port": port },
        "api_peer": { "host": "127.0.0.1", "port": peer },
        "metrics": { "host": "127.0.0.1", "port": metrics },
        "file_system": { "path": data },
        "topology": { "datacenter_label": 1, "datacenters": { "default": {
            "datacenter_label": 1,
            "is_leader": true,
            "public_url": format!("http://127.0.0.1:{port}"),
            "peer_url": format!("http://127.0.0.1:{peer}"),
        } } },
        "runtime": { "worker_cpu_max": 64000, "worker_load_shedding_curve": [[900, 1000], [1000, 999]] },
    })
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no port: {error}"))
}

/// How long anything may take to serve; the engine needs some seconds.
const START: Duration = Duration::from_secs(60);
