//! The gateway as it is shipped, in a process of its own, and a runner beside it.

use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::memory;

/// A gateway process and its data.
pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    pub data: TempDir,
    /// What it took to serve: milliseconds, as it says itself, and of the processor.
    pub startup: Startup,
}

/// How long a start took.
#[derive(Clone, Copy)]
pub struct Startup {
    took_ms: u64,
    processor_ms: u64,
}

impl Display for Startup {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms ({} ms of a processor)", self.took_ms, self.processor_ms)
    }
}

impl Gateway {
    pub fn start() -> Result<Self, String> {
        let data = tempfile::Builder::new().prefix("greenroom-scale-").tempdir().map_err(|error| error.to_string())?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, address, startup) = spawn(&data, any)?;
        Ok(Gateway { child, address, data, startup })
    }

    /// Kills it and starts it again on its data.
    pub fn kill_and_restart(&mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map_err(|error| format!("the gateway: {error}"))?;
        (self.child, self.address, self.startup) = spawn(&self.data, self.address)?;
        Ok(())
    }

    pub fn memory(&self) -> Result<u64, String> {
        memory::resident(self.child.id())
    }

    pub fn on_disk(&self) -> u64 {
        memory::on_disk(self.data.path())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(data: &TempDir, listen: SocketAddr) -> Result<(Child, SocketAddr, Startup), String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_greenroom"))
        .args(["gateway", "--log-format", "json", "--log", "warn,greenroom::gateway::running=info", "--data-dir"])
        .arg(data.path())
        .args(["--listen", &listen.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the gateway does not start: {error}"))?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no log")?).lines().map_while(Result::ok);
    for line in lines.by_ref() {
        let record: Value = serde_json::from_str(&line).unwrap_or_default();
        if record["message"] == "gateway serves" {
            let address = record["address"].as_str().and_then(|address| address.parse().ok()).ok_or("no address")?;
            let took_ms = record["startup_ms"].as_u64().unwrap_or(0);
            let startup = Startup { took_ms, processor_ms: memory::processor_ms(child.id()) };
            std::thread::spawn(move || lines.for_each(|line| eprintln!("gateway: {line}")));
            return Ok((child, address, startup));
        }
        eprintln!("gateway: {line}");
    }
    // It has ended, or will not say anything more.
    let _ = child.kill();
    let _ = child.wait();
    Err("the gateway did not serve".to_owned())
}

/// A runner process with the actors of [`crate::runner`].
pub struct RunnerProcess {
    child: Child,
    actors: Arc<AtomicUsize>,
}

impl RunnerProcess {
    pub fn start(gateway: SocketAddr) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["--runner", &gateway.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the runner does not start: {error}"))?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines().map_while(Result::ok);
        let actors = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&actors);
        // Each line is how many actors it has, first of all when it is connected.
        let (connected, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines {
                seen.store(line.trim().parse().unwrap_or(0), Ordering::Relaxed);
                let _ = connected.send(());
            }
        });
        waits.recv_timeout(PATIENCE).map_err(|_| "the runner does not connect".to_owned())?;
        Ok(RunnerProcess { child, actors })
    }

    pub fn memory(&self) -> Result<u64, String> {
        memory::resident(self.child.id())
    }

    /// Waits until it has so many actors.
    pub fn has(&self, actors: usize) -> Result<(), String> {
        let begin = Instant::now();
        while self.actors.load(Ordering::Relaxed) != actors {
            if begin.elapsed() > PATIENCE {
                return Err(format!("the runner has {} actors, not {actors}", self.actors.load(Ordering::Relaxed)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for RunnerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory settles: what was freed is given back, what was written is on disk.
pub fn settle() {
    std::thread::sleep(Duration::from_secs(2));
}

const PATIENCE: Duration = Duration::from_secs(300);
