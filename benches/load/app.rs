//! A runner as a child process, and what the kernel says it uses.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::figures::Side;
use crate::process;
use crate::wire::Wire;

/// A runner under test, connected.
pub struct App {
    /// What it is in the tables.
    pub side: Side,
    /// Its connection.
    pub wire: Wire,
    child: Child,
}

impl App {
    /// Starts a runner and waits for it to connect.
    pub fn start(side: Side, mut command: Command) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no port: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("no port: {error}"))?;
        command
            .env("GREENROOM_ENDPOINT", format!("http://{address}"))
            .env("GREENROOM_RUNNER_NAME", "bench")
            .env("GREENROOM_SLOTS", "200000")
            .env("GREENROOM_LOG", "warn")
            .stdin(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("the runner does not start: {error}"))?;
        let connected = connection(&listener, &mut child).and_then(Wire::accept);
        match connected {
            Ok(wire) => Ok(App { side, wire, child }),
            Err(error) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("{}: {error}", side.name()))
            }
        }
    }

    /// Processor time used so far by all its threads.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.child.id())
    }

    /// Resident memory of its own, in bytes.
    pub fn memory(&self) -> u64 {
        process::memory(self.child.id())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same routes on the TypeScript runner.
pub fn node_app(modules: &Path) -> Result<Command, String> {
    check(modules)?;
    let mut command = Command::new("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/load/ts_bench_app.mjs"));
    command.env("MODULES", modules).env("NODE_ENV", "production");
    Ok(command)
}

/// Whether the peers are there, before anything is measured.
pub fn check(modules: &Path) -> Result<(), String> {
    for package in ["engine-runner", "engine-runner-protocol", "engine-cli-linux-x64-musl"] {
        if !modules.join("@rivetkit").join(package).exists() {
            return Err(format!(
                "{} has no @rivetkit/{package}: run `npm ci --prefix tests/interop`, give --modules, or measure --ours alone",
                modules.display()
            ));
        }
    }
    let node = Command::new("node").arg("--version").output();
    node.map(drop).map_err(|error| format!("node does not start: {error}; it runs the TypeScript runner"))
}

/// Waits for the runner to dial.
fn connection(listener: &TcpListener, child: &mut Child) -> Result<TcpStream, String> {
    let io = |error: std::io::Error| format!("no connection: {error}");
    listener.set_nonblocking(true).map_err(io)?;
    let begin = Instant::now();
    while begin.elapsed() < START {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).map_err(io)?;
                return Ok(socket);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(io(error)),
        }
        if let Some(status) = child.try_wait().map_err(io)? {
            return Err(format!("it ended with {status}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("it does not connect".to_owned())
}

/// Builds our bench app as it would be shipped and answers where it is.
pub fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--example", "bench_app"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if !status.success() {
        return Err("examples/bench_app.rs does not build".to_owned());
    }
    // This program is in `release/deps`.
    let here = std::env::current_exe().map_err(|error| format!("no path of this program: {error}"))?;
    let release = here.ancestors().nth(2).ok_or("this program is not in a target directory")?;
    Ok(release.join("examples/bench_app"))
}

/// How long a runner may take to connect.
const START: Duration = Duration::from_secs(20);
