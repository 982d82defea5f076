//! What actors and sockets cost a gateway, and how that grows.
//!
//! `cargo bench --bench scale` starts the gateway as it is shipped and a runner beside it, and fills them: with
//! sleeping actors, which should cost rows on disk and no memory, with running ones, and with idle sockets. What it
//! prints is memory as the kernel counts it for each process, size on disk, and times as a client sees them, as tables
//! for docs/SCALE.md. A million actors take some minutes; `--sleeping 10000,100000` is enough for a look.

mod awake;
mod client;
mod gateway;
mod memory;
mod runner;
mod sleeping;
mod sockets;

use std::process::ExitCode;

use clap::Parser;

/// Measures what a gateway needs per actor and per socket.
#[derive(Parser)]
struct Settings {
    /// Sleeping actors to measure at, rising.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    sleeping: Vec<usize>,
    /// Running actors to measure at, rising.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    running: Vec<usize>,
    /// Open sockets to measure at, rising; each takes an open file in three processes.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    sockets: Vec<usize>,
    /// What to measure: any of `sleeping`, `running`, `sockets`.
    #[arg(long, value_delimiter = ',', default_value = "sleeping,running,sockets")]
    only: Vec<String>,
    /// What `cargo bench` passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Become the runner of a gateway at this address; for its own use.
    #[arg(long, hide = true)]
    runner: Option<std::net::SocketAddr>,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    memory::allow_open_files();
    if let Some(gateway) = settings.runner {
        return runner::serve(gateway);
    }
    match measure(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(settings: &Settings) -> Result<(), String> {
    for what in &settings.only {
        let table = match what.as_str() {
            "sleeping" => sleeping::measure(&settings.sleeping)?,
            "running" => awake::measure(&settings.running)?,
            "sockets" => sockets::measure(&settings.sockets)?,
            other => return Err(format!("{other}: expected sleeping, running or sockets")),
        };
        println!("{table}");
    }
    Ok(())
}
