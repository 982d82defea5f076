//! What Greenroom costs, beside what its peers cost in the same minutes on the same machine.
//!
//! `cargo bench --bench load` measures all of it, prints it, and writes docs/PERFORMANCE.md with a picture; `--quick` only
//! prints, after a minute or two. It plays the gateway for our runner and for the TypeScript one, sends clients to our
//! gateway, to the Rivet engine and to a plain reverse proxy, and runs both codecs on the same frames. Everything is
//! measured in turn, round by round, so that whatever else the machine does hits all sides; the medians and the ratios
//! of rounds are what counts.

mod allocator;
mod app;
mod codec;
mod counted;
mod document;
mod door;
mod figures;
mod floors;
mod growth;
mod load;
mod machine;
mod picture;
mod process;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::app::App;
use crate::figures::{Figures, Part, Side};

/// Measures Greenroom beside its peers.
#[derive(Parser)]
struct Settings {
    /// How often everything is measured; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 0.6)]
    seconds: f64,
    /// One short round of everything, for a look: nothing is written.
    #[arg(long)]
    quick: bool,
    /// What to measure: any of `tunnel`, `door`, `codec`, `growth`.
    #[arg(long, value_delimiter = ',', default_value = "tunnel,door,codec,growth")]
    part: Vec<String>,
    /// Only loads whose name contains this; nothing is written.
    #[arg(long, default_value = "")]
    only: String,
    /// Greenroom alone; nothing is written.
    #[arg(long)]
    ours: bool,
    /// Another program in place of a freshly built examples/bench_app.rs.
    #[arg(long)]
    program: Option<PathBuf>,
    /// A second build of it to compare with, in place of all others; nothing is written.
    #[arg(long, conflicts_with = "ours")]
    against: Option<PathBuf>,
    /// Another program in place of a freshly built greenroom, as the gateway at the front door.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_greenroom"))]
    gateway: PathBuf,
    /// A second build of it to compare with, in place of all others; nothing is written.
    #[arg(long, conflicts_with = "ours")]
    against_gateway: Option<PathBuf>,
    /// Where the packages of the peers are installed.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/node_modules"))]
    modules: PathBuf,
    /// Writes every value to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// For its own use.
    #[arg(long, hide = true)]
    become_origin: bool,
    /// For its own use.
    #[arg(long, hide = true)]
    become_proxy: Option<SocketAddr>,
    /// For its own use.
    #[arg(long, hide = true)]
    become_runner: bool,
}

fn main() -> ExitCode {
    let mut settings = Settings::parse();
    if settings.quick {
        (settings.rounds, settings.seconds) = (1, 0.2);
    }
    allow_open_files();
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), String> {
    if settings.become_origin {
        return runtime()?.block_on(door::origin());
    }
    if let Some(to) = settings.become_proxy {
        return runtime()?.block_on(door::proxy(to));
    }
    if settings.become_runner {
        return runtime()?.block_on(counted::serve());
    }
    let compares = settings.against.is_some() || settings.against_gateway.is_some();
    let modules = (!settings.ours && !compares).then_some(&*settings.modules);
    if let Some(modules) = modules {
        app::check(modules)?;
    }
    let ours = match &settings.program {
        Some(program) => program.clone(),
        None => app::build()?,
    };
    let apps = Apps { ours, against: settings.against.as_deref(), modules };
    let begin = Instant::now();
    let mut figures = Figures::default();
    for part in &settings.part {
        eprintln!("-- {part}, after {:.0} s", begin.elapsed().as_secs_f64());
        match part.as_str() {
            "tunnel" => tunnel(settings, &apps, &mut figures)?,
            "door" => front_door(settings, &apps, &mut figures)?,
            "codec" => {
                for _ in 0..settings.rounds {
                    codec::measure(settings.seconds, modules, &mut figures)?;
                    counted::measure(if settings.quick { 2_000 } else { 20_000 }, &mut figures)?;
                }
            }
            "growth" => {
                let mut programs = apps.start()?;
                for round in 0..settings.rounds {
                    for axis in growth::AXES {
                        for place in in_turn(round, programs.len()) {
                            let app = &mut programs[place];
                            let side = app.side;
                            if let Err(why) = caught(|| axis.measure(app, settings.seconds, &mut figures)) {
                                figures.failed(axis.name, side, &why);
                                programs[place] = apps.start_one(side)?;
                            }
                        }
                    }
                }
            }
            other => return Err(format!("{other}: expected tunnel, door, codec or growth")),
        }
    }
    let how = format!(
        "{} rounds of {} s, {:.0} s in all. Each cell is the median of its rounds, each ratio the median of the ratios of \
         rounds, with the least and the most of them.",
        settings.rounds,
        settings.seconds,
        begin.elapsed().as_secs_f64()
    );
    println!("{}", document::text(&figures, &how));
    if let Some(path) = &settings.json {
        std::fs::write(path, figures.to_json()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let whole = !settings.quick && settings.only.is_empty() && modules.is_some() && settings.part.len() == PARTS;
    if whole {
        document::write(&figures, &how)?;
    }
    match figures.failures.len() {
        0 => Ok(()),
        failed => Err(format!("{failed} loads failed:\n{}", figures.failures.join("\n"))),
    }
}

/// The generator gives up a load by a panic: a runner that says something unexpected, or nothing any more.
fn caught<T>(load: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(load)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The programs that the generator drives.
struct Apps<'a> {
    ours: PathBuf,
    against: Option<&'a Path>,
    modules: Option<&'a Path>,
}

impl Apps<'_> {
    fn sides(&self) -> Vec<Side> {
        let others = [self.against.map(|_| Side::Against), self.modules.map(|_| Side::TypeScript)];
        [Some(Side::Ours)].into_iter().chain(others).flatten().collect()
    }

    fn start(&self) -> Result<Vec<App>, String> {
        self.sides().into_iter().map(|side| self.start_one(side)).collect()
    }

    fn start_one(&self, side: Side) -> Result<App, String> {
        match (side, self.against, self.modules) {
            (Side::TypeScript, _, Some(modules)) => App::start(side, app::node_app(modules)?),
            (Side::Against, Some(program), _) => App::start(side, std::process::Command::new(program)),
            _ => App::start(side, std::process::Command::new(&self.ours)),
        }
    }
}

fn tunnel(settings: &Settings, programs: &Apps<'_>, figures: &mut Figures) -> Result<(), String> {
    let mut apps = programs.start()?;
    for round in 0..settings.rounds {
        for load in load::ALL.iter().filter(|load| load.name().contains(&settings.only)) {
            for place in in_turn(round, apps.len()) {
                let side = apps[place].side;
                let measured = if load.needs_fresh() {
                    let mut fresh = programs.start_one(side)?;
                    caught(|| load.run(&mut fresh, settings.seconds))
                } else {
                    caught(|| load.run(&mut apps[place], settings.seconds))
                };
                let values = match measured {
                    Ok(values) => values,
                    Err(why) => {
                        figures.failed(&load.name(), side, &why);
                        apps[place] = programs.start_one(side)?;
                        continue;
                    }
                };
                let text: Vec<_> = values.iter().map(|(quantity, _, value)| quantity.text(*value)).collect();
                eprintln!("round {} {:<40} {:<18} {}", round + 1, load.name(), side.name(), text.join(", "));
                for (quantity, of, value) in values {
                    figures.add(Part::Tunnel, &load.name(), quantity, of.unwrap_or(side), value);
                }
            }
        }
    }
    Ok(())
}

fn front_door(settings: &Settings, apps: &Apps<'_>, figures: &mut Figures) -> Result<(), String> {
    let plan = door::Plan {
        ours: [&settings.gateway, &apps.ours],
        against: (settings.against.is_some() || settings.against_gateway.is_some()).then(|| {
            let gateway = settings.against_gateway.as_ref().unwrap_or(&settings.gateway);
            [&**gateway, apps.against.unwrap_or(&apps.ours)]
        }),
        modules: apps.modules,
        rounds: settings.rounds,
        seconds: settings.seconds,
        only: &settings.only,
        sockets: if settings.quick { [1_000, 100] } else { [4_000, 400] },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    tokio::task::LocalSet::new().block_on(&runtime, door::measure(&plan, figures))
}

/// The one that went first in this round goes last in the next: whatever the machine does then hits all.
fn in_turn(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))
}

/// Allows this process and its children as many open files as the system lets them have.
fn allow_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        eprintln!("load: the limit of open files stays as it is: {error}");
    }
}

const PARTS: usize = 4;
