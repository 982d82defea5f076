//! The command: from arguments to an exit code.
//!
//! Settings come first, and nothing is opened, bound or written before all of them are right. Then a runtime, signals,
//! and one of the daemons.

mod actors;
mod ask;
mod check;
mod cli;
mod exit;
mod manual;
mod operator;
mod signals;
mod systemd;
mod traces;
mod version;

#[cfg(feature = "gateway")]
mod demo;
#[cfg(feature = "gateway")]
mod dev;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "gateway")]
mod open_files;
mod reload;
mod report;
mod run;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

pub use exit::Exit;
pub use run::builder as runner_builder;

use crate::config::{self, LogSettings, Mistakes, NOT_BUILT, RunSettings};
use crate::host::child_process;
use crate::telemetry;
use cli::Invocation;
use signals::Signals;
use traces::Traces;

/// Does what the command line of this process says.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Not in the help: only the runner calls it, for every process it starts, so nothing else comes first.
    if arguments.next().is_some_and(|word| word == child_process::Isolation::WORD) {
        return child_process::launch(arguments);
    }
    main_with(std::env::args_os(), config::Environment::of_process()).into()
}

fn main_with(arguments: impl IntoIterator<Item = OsString>, environment: config::Environment) -> Exit {
    match cli::parse(arguments, environment) {
        Invocation::Dev(values) => dev_command(values),
        Invocation::Run(values) => {
            let settings = RunSettings::new(&values);
            start(settings, |settings| &settings.log, |settings, signals| run::run(settings, values, signals))
        }
        Invocation::Gateway(values) => gateway_command(&values),
        Invocation::ConfigCheck { values, online } => check::check(&values, online),
        Invocation::ConfigShow(values) => match config::check(&values) {
            Ok((run, _)) => {
                say(format_args!("{}{}", config::effective(&values, &run), actors::list(&run.actors)));
                Exit::Clean
            }
            Err(mistakes) => misconfigured(&mistakes),
        },
        Invocation::Version { json } => {
            say(if json { version::json() } else { version::text() });
            Exit::Clean
        }
        Invocation::Ask { values, question, json } => operator::run(&values, &question, json),
        Invocation::Completions(shell) => write(&manual::completions(cli::cli(), shell)),
        Invocation::Man => match manual::man(cli::cli()) {
            Ok(page) => write(&page),
            Err(error) => {
                complain(error);
                Exit::Internal
            }
        },
        Invocation::NotBuilt(command) => {
            complain(format_args!("`greenroom {command}` is {NOT_BUILT}"));
            Exit::Usage
        }
        Invocation::Told(exit) => exit,
    }
}

#[cfg(feature = "gateway")]
fn dev_command(values: config::Values) -> Exit {
    let settings = config::DevSettings::new(&values);
    start(settings, |settings| &settings.run.log, |settings, signals| dev::run(settings, values, signals))
}

#[cfg(feature = "gateway")]
fn gateway_command(values: &config::Values) -> Exit {
    start(config::GatewaySettings::new(values), |settings| &settings.log, gateway::run)
}

#[cfg(not(feature = "gateway"))]
fn dev_command(_: config::Values) -> Exit {
    complain("this build has no gateway, and `greenroom dev` needs one");
    Exit::Usage
}

#[cfg(not(feature = "gateway"))]
fn gateway_command(_: &config::Values) -> Exit {
    complain("this build has no gateway");
    Exit::Usage
}

/// Runs a daemon with settings that are right, and its signals.
fn start<S, F>(
    settings: Result<S, Mistakes>,
    log: impl Fn(&S) -> &LogSettings,
    daemon: impl FnOnce(S, Signals) -> F,
) -> Exit
where
    F: Future<Output = Exit>,
{
    let settings = match settings {
        Ok(settings) => settings,
        Err(mistakes) => return misconfigured(&mistakes),
    };
    if let Err(error) = telemetry::init(log(&settings)) {
        complain(error);
        return Exit::Internal;
    }
    keep_memory_private();
    let traces = log(&settings).traces.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("no threads could be started: {error}"));
            return Exit::Internal;
        }
    };
    telemetry::metrics::watch_runtime(runtime.handle().clone());
    runtime.block_on(async {
        let traces = match Traces::start(traces) {
            Ok(traces) => traces,
            Err(exit) => return exit,
        };
        let exit = match Signals::listen() {
            Ok(signals) => daemon(settings, signals).await,
            Err(error) => {
                complain(format_args!("signals cannot be received: {error}"));
                Exit::Internal
            }
        };
        traces.stop().await;
        exit
    })
}

/// Tokens are in the memory of a daemon: no other process of its user may look into it, and no dump of it is written
/// to a disk. What it starts may not write dumps either.
fn keep_memory_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let private = set_dumpable_behavior(DumpableBehavior::NotDumpable).and_then(|()| setrlimit(Resource::Core, none));
    if let Err(error) = private {
        tracing::warn!(%error, "a crash could write the memory of this process to a disk");
    }
}

fn misconfigured(mistakes: &Mistakes) -> Exit {
    let count = mistakes.len();
    let plural = if count == 1 { "" } else { "s" };
    let lines: String = mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect();
    complain(format_args!("{count} mistake{plural} in the configuration{lines}"));
    Exit::Misconfigured
}

/// Writes to stdout as it is; a reader that has gone away is no error.
fn write(bytes: &[u8]) -> Exit {
    let _ = io::stdout().write_all(bytes);
    Exit::Clean
}

/// Tells the user on stdout; a reader that has gone away is no error.
fn say(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Tells the user on stderr.
fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "greenroom: {text}");
}

/// Threads for async work. Two keep an idle daemon small, and the work itself is in the actors' own processes.
const WORKERS: usize = 2;
