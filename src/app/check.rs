//! `greenroom config check`: everything that can be known without starting, and with `--online` what the gateway says.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};

use crate::app::{Exit, actors, complain, misconfigured, run, say};
use crate::config::{self, ActorDefinition, Mistake, Mistakes, RunSettings, Values};
use crate::host::child_process::Cgroups;
use crate::runner::{self, Status};

/// Checks settings and tells every mistake, or that there is none.
pub(super) fn check(values: &Values, online: bool) -> Exit {
    let settings = match config::check(values) {
        Ok((settings, _)) => settings,
        Err(mistakes) => return misconfigured(&mistakes),
    };
    let mut mistakes = missing(&settings.actors, env::var_os("PATH").as_deref());
    actors::unkept(&settings.actors, &Cgroups::survey()).iter().for_each(|mistake| mistakes.push(mistake.clone()));
    if !mistakes.is_empty() {
        return misconfigured(&mistakes);
    }
    say(format_args!("all settings are right; actors: {}", settings.actors.len()));
    if online { greet(&settings) } else { Exit::Clean }
}

/// The programs that are not there or cannot be run.
fn missing(actors: &[ActorDefinition], path: Option<&OsStr>) -> Mistakes {
    let mut mistakes = Mistakes::default();
    for actor in actors {
        let Some(program) = actor.command.first() else { continue };
        let found = if program.contains('/') {
            is_program(&actor.cwd.join(program))
        } else {
            let own = actor.env.get("PATH").map(OsStr::new);
            env::split_paths(own.or(path).unwrap_or_default()).any(|directory| is_program(&directory.join(program)))
        };
        if !found {
            let place = if program.contains('/') { "there" } else { "on PATH" };
            let says = format!("{program:?} is no program that can be run {place}");
            mistakes.push(Mistake::new(format!("actors.{}.command", actor.name), says));
        }
    }
    mistakes
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// Connects as a runner that takes no actors, and leaves again. It has a key and a pool of its own, so that it neither
/// evicts the runner that these settings are for nor gets its actors.
fn greet(settings: &RunSettings) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("no thread could be started: {error}"));
            return Exit::Internal;
        }
    };
    runtime.block_on(async {
        let runner = match run::builder(settings).name(POOL).slots(1).start() {
            Ok(runner) => runner,
            Err(error) => {
                complain(error);
                return Exit::Misconfigured;
            }
        };
        let connected = tokio::time::timeout(PATIENCE, runner.connected()).await;
        let status = runner.status();
        let exit = match connected {
            Ok(true) => welcome(settings, &status),
            Ok(false) => match runner.wait().await {
                runner::Exit::Refused(reason) => {
                    complain(format_args!("the gateway at {} refuses: {reason}", settings.endpoint));
                    Exit::Refused
                }
                runner::Exit::Drained | runner::Exit::DrainTimeout { .. } => Exit::Internal,
            },
            Err(_) => {
                let reason = status.reason.unwrap_or_else(|| format!("no answer within {} s", PATIENCE.as_secs()));
                complain(format_args!("the gateway at {} cannot be used: {reason}", settings.endpoint));
                Exit::Refused
            }
        };
        runner.drain(Duration::from_secs(1)).await;
        // How it ends is of no interest any more.
        let _ = tokio::time::timeout(PATIENCE, runner.wait()).await;
        exit
    })
}

/// What the gateway's numbers mean for the settings.
fn welcome(settings: &RunSettings, status: &Status) -> Exit {
    say(format_args!("the gateway at {} takes this runner", settings.endpoint));
    match status.lost_after {
        Some(lost_after) if lost_after <= settings.drain_timeout => {
            complain(format_args!(
                "--drain-timeout is {:?}, and this gateway gives up a runner that is away or drains after {lost_after:?}: \
                 drain for a shorter time",
                settings.drain_timeout
            ));
            Exit::Misconfigured
        }
        Some(_) | None => Exit::Clean,
    }
}

/// The pool of the runner that only says hello.
const POOL: &str = "greenroom-config-check";

/// How long the gateway may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Command, Environment, Id};

    #[test]
    fn a_program_that_cannot_be_run_is_a_mistake_and_told_with_its_actor() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            std::fs::write(dir.path().join(name), "").unwrap();
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("here", 0o755);
        file("plain", 0o644);
        let path = dir.path().as_os_str();
        assert_eq!(told(&dir.path().join("actors.toml"), "here", path), "");
        assert_eq!(told(&dir.path().join("actors.toml"), "./here", path), "");
        assert_eq!(
            told(&dir.path().join("actors.toml"), "plain", path),
            "actors.a.command: \"plain\" is no program that can be run on PATH"
        );
        assert_eq!(
            told(&dir.path().join("actors.toml"), "./gone", path),
            "actors.a.command: \"./gone\" is no program that can be run there"
        );
    }

    fn told(file: &Path, program: &str, path: &OsStr) -> String {
        std::fs::write(file, format!("[actors.a]\ncommand = [{program:?}]\n")).unwrap();
        let environment = Environment { variables: BTreeMap::new(), current_dir: "/".into() };
        let flags = BTreeMap::from([(Id::Actors, vec![file.to_str().unwrap().to_owned()])]);
        let settings = RunSettings::new(&Values::collect(&[Command::Run], flags, environment)).unwrap();
        missing(&settings.actors, Some(path)).to_string().trim().to_owned()
    }
}
