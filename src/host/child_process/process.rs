//! A spawned process, its process group, and the end of both.
//!
//! One task per process reaps it, ends what it left behind in its group, and keeps how it ended. Dropping the
//! [`Process`] kills the group.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Settings;
use super::cgroup::{Leaf, Spent};
use super::directories::Directories;
use super::end::End;
use super::listen::LISTEN_FD;
use super::logs::{Tail, follow};
use super::orphans;
use crate::host::{StartActor, StartError};
use crate::telemetry::metrics;

/// A running process with everything it started that stayed in its group.
#[derive(Debug)]
pub(super) struct Process {
    group: Pid,
    shared: Arc<Shared>,
    end: watch::Receiver<Option<End>>,
    tail: Tail,
}

#[derive(Debug, Default)]
struct Shared {
    /// Somebody asked it to end: what is left in its group may take its time.
    asked: AtomicBool,
    /// We have killed it.
    killed: AtomicBool,
    /// The process itself is no more, or about to be: its sockets are not to be trusted.
    gone: CancellationToken,
}

impl Process {
    /// Spawns the process in a group of its own. Blocks for as long as that takes; needs a tokio runtime around it.
    pub(super) fn spawn(
        settings: &Settings,
        variables: BTreeMap<OsString, OsString>,
        listener: Option<OwnedFd>,
        directories: &Directories,
        start: &Arc<StartActor>,
    ) -> Result<Self, StartError> {
        let Some((program, arguments)) = settings.command.split_first() else {
            return Err(StartError("no command is given".into()));
        };
        let isolation = settings.isolation.as_ref();
        let leaf = isolation.map(|isolation| isolation.leaf(directories)).transpose()?.flatten();
        let mut command = match isolation {
            None => Command::new(program),
            Some(isolation) => {
                // What the launcher cannot find is told better from here.
                if !is_found(program, &settings.cwd, variables.get(OsStr::new("PATH"))) {
                    return Err(not_spawned(settings, &io::ErrorKind::NotFound.into()));
                }
                let mut launcher = Command::new(&isolation.launcher);
                launcher.args(isolation.arguments(directories, leaf.as_ref())).arg(program);
                launcher
            }
        };
        command.args(arguments).current_dir(&settings.cwd).env_clear().envs(variables);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(parent_fd) = listener {
            command
                .fd_mappings(vec![FdMapping { parent_fd, child_fd: LISTEN_FD }])
                .map_err(|error| StartError(format!("could not hand over the listening socket: {error}")))?;
        }
        let mut child = orphans::spawn(&mut command).map_err(|error| not_spawned(settings, &error))?;
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = id.expect("a child that was just spawned has an id, and it is not 0");

        let tail = Tail::default();
        let stdout = child.stdout.take().map(|output| tokio::spawn(follow(output, "stdout", start.clone(), None)));
        let stderr =
            child.stderr.take().map(|output| tokio::spawn(follow(output, "stderr", start.clone(), Some(tail.clone()))));
        let shared = Arc::new(Shared::default());
        let (ended, end) = watch::channel(None);
        let watch = Watch {
            child,
            group,
            mark: directories.mark(),
            leaf,
            shared: shared.clone(),
            logs: [stdout, stderr],
            name: start.name.clone(),
        };
        tokio::spawn(async move { ended.send_replace(Some(watch.end().await)) });
        Ok(Process { group, shared, end, tail })
    }

    /// The process group, which has the id of its first process.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Cancelled when the process is no more, or about to be.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.shared.gone
    }

    /// The next end is no surprise: it was asked for.
    pub(super) fn expect_end(&self) {
        self.shared.asked.store(true, Ordering::Release);
    }

    /// Whether the end was asked for.
    pub(super) fn end_is_expected(&self) -> bool {
        self.shared.asked.load(Ordering::Acquire)
    }

    /// Asks the whole group to end.
    pub(super) fn terminate(&self) {
        self.shared.gone.cancel();
        self.signal(Signal::TERM);
    }

    /// Ends the whole group.
    pub(super) fn kill(&self) {
        self.shared.killed.store(true, Ordering::Release);
        self.shared.gone.cancel();
        self.signal(Signal::KILL);
    }

    /// Resolves when nothing of it is left.
    pub(super) async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let unknown = End { status: None, killed: false, spent: None };
        end.wait_for(Option::is_some).await.ok().and_then(|end| *end).unwrap_or(unknown)
    }

    /// The last lines of its standard error, as the end of a sentence; empty when there are none.
    pub(super) fn last_words(&self) -> String {
        match self.tail.text() {
            text if text.is_empty() => String::new(),
            text => format!("; its last lines on stderr:\n{text}"),
        }
    }

    fn signal(&self, signal: Signal) {
        // Once the end is seen the number of the group may belong to somebody else.
        if self.end.borrow().is_none() {
            send(self.group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end.borrow().is_none() {
            self.kill();
        }
    }
}

/// The owner of a child until its end.
struct Watch {
    child: Child,
    group: Pid,
    /// What all that it starts has in its environment.
    mark: String,
    leaf: Option<Leaf>,
    shared: Arc<Shared>,
    logs: [Option<JoinHandle<()>>; 2],
    name: Arc<str>,
}

impl Watch {
    async fn end(mut self) -> End {
        let status = self.child.wait().await;
        orphans::forget(self.group);
        self.shared.gone.cancel();
        self.end_the_group().await;
        let spent = match self.leaf.take() {
            Some(leaf) => Some(self.end_the_leaf(leaf).await),
            None => {
                orphans::end(&self.mark, KILL_PATIENCE).await;
                None
            }
        };
        let grace = Instant::now() + LOGS_GRACE;
        for log in self.logs.iter_mut().flatten() {
            // A process that left the group can hold the pipe open for ever.
            if tokio::time::timeout_at(grace, &mut *log).await.is_err() {
                log.abort();
            }
        }
        if let Err(error) = &status {
            warn!(%error, "could not learn how a process ended");
        }
        let end = End { status: status.ok(), killed: self.shared.killed.load(Ordering::Acquire), spent };
        metrics::runner().actor(&self.name).child_exit(end.kind());
        end
    }

    /// Waits for what the process left in its group. Unasked, it is killed at once; asked, it has until the kill.
    async fn end_the_group(&self) {
        if !self.shared.asked.load(Ordering::Acquire) {
            send(self.group, Signal::KILL);
        }
        let mut pause = Duration::from_millis(1);
        let mut last_look = None;
        while group_lives(self.group).await {
            let hopeless = !self.shared.asked.load(Ordering::Acquire) || self.shared.killed.load(Ordering::Acquire);
            if hopeless {
                // Again, for those who were just being forked; a cgroup is faster than any fork.
                send(self.group, Signal::KILL);
                if let Some(leaf) = &self.leaf {
                    leaf.kill();
                }
                if *last_look.get_or_insert_with(|| Instant::now() + KILL_PATIENCE) <= Instant::now() {
                    warn!("processes of an ended actor survive being killed");
                    return;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Ends what left the group and could not leave the cgroup. Answers with what the kernel says of it.
    async fn end_the_leaf(&self, leaf: Leaf) -> Spent {
        let (mut pause, give_up) = (Duration::from_millis(1), Instant::now() + KILL_PATIENCE);
        while leaf.lives() && Instant::now() < give_up {
            leaf.kill();
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        let spent = leaf.spent();
        if let Some(most) = spent.pids_max {
            warn!(name = %self.name, most, "an actor wanted more processes than it may have (pids_max)");
        }
        spent
    }
}

fn send(group: Pid, signal: Signal) {
    match kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => debug!(%error, ?signal, "could not signal a process group"),
    }
}

/// Whether a process of the group still runs. Dead ones that nobody reaps do not count: in a container without an
/// init they stay for ever.
async fn group_lives(group: Pid) -> bool {
    if test_kill_process_group(group) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    tokio::task::spawn_blocking(move || any_member_runs(group)).await.unwrap_or(false)
}

fn any_member_runs(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let group = group.as_raw_nonzero().to_string();
    processes.flatten().any(|process| {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { return false };
        // The name of the program, in parentheses, may contain anything; state, parent and group follow it.
        let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
        let mut fields = rest.split(' ');
        let state = fields.next();
        fields.nth(1) == Some(&group) && !matches!(state, Some("Z" | "X"))
    })
}

/// Whether there is such a program, for a process with this `PATH`.
fn is_found(program: &str, cwd: &Path, path: Option<&OsString>) -> bool {
    match path {
        _ if program.contains('/') => cwd.join(program).exists(),
        Some(path) => std::env::split_paths(path).any(|directory| cwd.join(directory).join(program).exists()),
        // The system has a default.
        None => true,
    }
}

fn not_spawned(settings: &Settings, error: &io::Error) -> StartError {
    let program = &settings.command[0];
    let cwd = settings.cwd.display();
    StartError(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !settings.cwd.is_dir() => {
            format!("the working directory {cwd} (cwd) does not exist")
        }
        io::ErrorKind::NotFound if program.contains('/') => {
            format!("the command `{program}` does not exist, seen from {cwd}, or the interpreter it names does not")
        }
        io::ErrorKind::NotFound => format!("the command `{program}` was not found in PATH"),
        io::ErrorKind::PermissionDenied => format!("the command `{program}` may not be executed: {error}"),
        _ => format!("the command `{program}` could not be started: {error}"),
    })
}

/// A command as a person would type it.
pub(super) fn shown(command: &[String]) -> String {
    let mut text = String::new();
    for word in command {
        let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"'\"\\`".contains(&byte));
        // Writing to a string does not fail.
        let _ = if plain { write!(text, "{word} ") } else { write!(text, "{word:?} ") };
        if text.len() > SHOWN_MAX {
            text.truncate(text.floor_char_boundary(SHOWN_MAX));
            text.push('…');
            return text;
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// How much of a command is shown in messages, in bytes.
const SHOWN_MAX: usize = 200;

/// How long the log of an ended process may still be read.
const LOGS_GRACE: Duration = Duration::from_millis(250);

/// How long a killed process may take to disappear before we go on without it.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let command = ["sh", "-c", "exit 3", ""].map(str::to_owned);
        assert_eq!(shown(&command), r#"sh -c "exit 3" """#);
        assert!(shown(&["é".repeat(300)]).len() < 210);
    }
}
