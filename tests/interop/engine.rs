//! The real Rivet engine, on free ports with a data folder of its own.

use std::{path::PathBuf, process::Command, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    client::Client,
    process::{Process, free_port, poll},
};

/// A running engine; ends when dropped.
pub struct Engine {
    // Ends before its folder is removed: fields drop in order.
    pub process: Process,
    pub port: u16,
    _folder: TempDir,
}

impl Engine {
    /// Starts it and waits until it has made its namespace, which it answers `/health` before.
    pub async fn start() -> Self {
        let program = crate::node_module("@rivetkit/engine-cli-linux-x64-musl/rivet-engine");
        let folder = TempDir::with_prefix("interop-engine-").expect("a temporary folder");
        let [port, peer, metrics] = std::array::from_fn(|_| free_port());
        let config = config(port, peer, metrics, folder.path().join("data"));
        let file = folder.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("the configuration is written");

        let mut command = Command::new(program);
        command.arg("--config").arg(&file).arg("start").env("HOME", folder.path());
        // Each error of the engine would collect a backtrace, which slows it down about fifteen times.
        command.env_remove("RUST_BACKTRACE");
        let process = Process::start("engine", command);
        let engine = Self { process, port, _folder: folder };

        let client = Client::new(port);
        let healthy = poll(Duration::from_secs(60), || async {
            client.get("/runner-configs?namespace=default").await.ok().filter(|r| r.status == 200)
        })
        .await;
        assert!(healthy.is_some(), "the engine never became healthy\n{}", engine.process.tail(30));
        engine
    }
}

/// Without the flat load shedding curve the engine refuses work on a busy small machine.
fn config(port: u16, peer: u16, metrics: u16, data: PathBuf) -> serde_json::Value {
    json!({
        "guard": { "host": "127.0.0.1", "port": port },
        "api_peer": { "host": "127.0.0.1", "port": peer },
        "metrics": { "host": "127.0.0.1", "port": metrics },
        "file_system": { "path": data },
        "topology": {
            "datacenter_label": 1,
            "datacenters": {
                "default": {
                    "datacenter_label": 1,
                    "is_leader": true,
                    "public_url": format!("http://127.0.0.1:{port}"),
                    "peer_url": format!("http://127.0.0.1:{peer}"),
                }
            }
        },
        "runtime": { "worker_cpu_max": 64000, "worker_load_shedding_curve": [[900, 1000], [1000, 999]] },
    })
}
