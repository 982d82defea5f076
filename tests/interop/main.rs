//! Ring 4: real programs against each other. Each test puts one gateway and one runner together, the real ones or ours,
//! and plays the same list of scenarios on the pair. The control, both real, proves that the list is fair.
//!
//! Needs node and `npm ci` in this folder; then `cargo test --features interop --test interop`.

mod client;
mod cut;
mod engine;
mod greenroom;
mod process;
mod scenarios;
mod shapes;
mod stage;
mod ts_runner;

use std::path::{Path, PathBuf};

use stage::{GatewaySide, RunnerSide};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_runner_works_on_the_real_engine_as_a_control() {
    stage::play(GatewaySide::RealEngine, RunnerSide::TypeScript).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_runner_works_on_the_real_engine() {
    stage::play(GatewaySide::RealEngine, RunnerSide::Ours).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_runner_works_on_our_gateway() {
    stage::play(GatewaySide::Ours, RunnerSide::TypeScript).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_runner_works_on_our_gateway() {
    stage::play(GatewaySide::Ours, RunnerSide::Ours).await;
}

/// How many actors each runner takes; seen again in `/runners`.
const SLOTS: u32 = 100;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop"))
}

/// A file of an installed npm package; a missing one says what to do.
fn node_module(path: &str) -> PathBuf {
    let file = folder().join("node_modules").join(path);
    assert!(file.exists(), "{} is missing: run `npm ci` in tests/interop first", file.display());
    file
}
