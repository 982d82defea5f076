//! The real TypeScript runner, started by node.

use std::{path::Path, process::Command};

use crate::process::Process;

/// Starts `ts_runner.mjs` toward a port; its hooks go to the given file.
pub fn start(endpoint_port: u16, pool: &str, hooks: &Path) -> Process {
    crate::node_module("@rivetkit/engine-runner/package.json");
    let mut command = Command::new("node");
    command
        .arg(crate::folder().join("ts_runner.mjs"))
        .env("ENDPOINT", format!("http://127.0.0.1:{endpoint_port}"))
        .env("RUNNER_NAME", pool)
        .env("SLOTS", crate::SLOTS.to_string())
        .env("HOOKS_FILE", hooks);
    Process::start("typescript runner", command)
}
