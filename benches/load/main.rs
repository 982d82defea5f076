//! A load generator that plays the gateway and drives any runner, side by side: ours and the TypeScript one.
//!
//! `cargo bench --bench load` builds `examples/bench_app.rs`, starts it and `ts_bench_app.mjs` on the TypeScript runner,
//! and measures both in turn, in the same minutes, with the same messages. What it prints are rates as the generator
//! saw them, processor time as the kernel counted it for the runner's process alone, and their ratios. The generator
//! shares the machine with what it measures: the rate of a runner that waits for nothing is bounded by both, the
//! processor time is its own.

mod app;
mod load;
mod report;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::app::App;
use crate::load::Load;
use crate::report::Report;

/// Measures runners from the gateway's end.
#[derive(Parser)]
struct Settings {
    /// How often everything is measured; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only loads whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Ten times as many sockets and actors as well.
    #[arg(long)]
    growth: bool,
    /// Our runner alone.
    #[arg(long)]
    ours: bool,
    /// Another program in place of a freshly built examples/bench_app.rs.
    #[arg(long)]
    program: Option<PathBuf>,
    /// A second program to compare with, in place of the TypeScript runner.
    #[arg(long, conflicts_with = "ours")]
    against: Option<PathBuf>,
    /// Where the packages of the TypeScript runner are installed.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/node_modules"))]
    modules: PathBuf,
    /// Writes every sample to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), String> {
    let ours = match &settings.program {
        Some(program) => program.clone(),
        None => app::build()?,
    };
    let mut apps = vec![App::start_ours("greenroom", &ours)?];
    if let Some(program) = &settings.against {
        apps.push(App::start_ours("against", program)?);
    } else if !settings.ours {
        apps.push(App::start_typescript(&settings.modules)?);
    }
    let mut report = Report::new(apps.iter().map(|app| app.name.clone()).collect());
    for round in 0..settings.rounds {
        let growth = if settings.growth { load::GROWTH } else { &[] };
        for load in load::ALL.iter().chain(growth).filter(|load| wanted(load, settings)) {
            // The one that went first in this round goes last in the next: whatever the machine does then hits both.
            for turn in 0..apps.len() {
                let place = (turn + round) % apps.len();
                let sample = load.run(&mut apps[place], settings.seconds);
                eprintln!("round {} {:<28} {:<12} {sample}", round + 1, load.name(), apps[place].name);
                report.add(&load.name(), place, sample);
            }
        }
    }
    println!("{report}");
    if let Some(path) = &settings.json {
        std::fs::write(path, report.to_json()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn wanted(load: &Load, settings: &Settings) -> bool {
    settings.only.as_ref().is_none_or(|only| load.name().contains(only.as_str()))
}
