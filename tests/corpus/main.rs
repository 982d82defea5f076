//! Replays what fuzzing kept: for each target a sample of the inputs that reached something new, and every input that
//! ever broke something.
#![cfg(feature = "gateway")]

#[path = "targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn frames_to_runners() {
    replay("to_client", targets::to_client);
}

#[test]
fn frames_to_gateways() {
    replay("to_server", targets::to_server);
}

#[test]
fn sessions() {
    replay("session", targets::session);
}

#[test]
fn gateways() {
    replay("gateway", targets::gateway);
}

#[test]
fn heads_of_requests_and_responses() {
    replay("heads", targets::heads);
}

#[test]
fn actors_files() {
    replay("actors_file", targets::actors_file);
}

#[test]
fn routes_of_the_public_listener() {
    replay("routes", targets::routes);
}

/// Feeds every kept input to a target; the name of the one that fails is the last line before the panic.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/inputs").join(name);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in inputs {
        println!("{}", input.display());
        target(&fs::read(&input).unwrap());
    }
}
