//! What a process is kept from.
//!
//! Restrictions are put on by the process itself, before it becomes the actor's program: the runner spawns a launcher,
//! which is the runner's own binary, and tells it what to do in its arguments. It gives up gaining privileges, enters its
//! cgroup and a Landlock domain of its own, becomes another user where one is named, and then executes the program in its place, so that process id, process group,
//! descriptors and environment stay what they were.

mod domain;
mod launch;
mod user;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use launch::launch;
pub use user::may_change_user;

use super::cgroup::{Cgroups, Leaf, Limits};
use super::directories::Directories;
use crate::config::SystemUser;
use crate::host::StartError;

/// How the processes of an actor are isolated. Needs a launcher: a program that calls [`launch`] with its arguments
/// when the first of them is [`WORD`](Isolation::WORD).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The launcher; absolute.
    pub launcher: PathBuf,
    /// A Landlock domain per process, as far as the kernel has it: it reads the system's programs and libraries, its
    /// working directory, what its command names and `read_paths`, and writes to its own directories and `write_paths`.
    pub sandbox: bool,
    /// What the domain keeps away although it lies in a directory that may be read: files and directories.
    pub hidden: Vec<PathBuf>,
    /// What may be read and executed beyond the usual.
    pub read_paths: Vec<PathBuf>,
    /// What may be written beyond the process's own directories.
    pub write_paths: Vec<PathBuf>,
    /// Who the process is to run as; nothing for the user of this one. Needs [`may_change_user`].
    pub user: Option<SystemUser>,
    /// Where each process gets a cgroup of its own; nothing where there are none to be had.
    pub cgroups: Option<Cgroups>,
    /// What a process may use, in its cgroup.
    pub limits: Limits,
}

impl Isolation {
    /// The first argument of a launcher.
    pub const WORD: &str = "exec-actor";

    /// The arguments of the launcher up to the actor's command, which follows them.
    pub(super) fn arguments(&self, directories: &Directories, leaf: Option<&Leaf>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![Self::WORD.into()];
        if let Some(leaf) = leaf {
            arguments.extend([launch::CGROUP.into(), leaf.door().into()]);
        }
        if let Some(user) = &self.user {
            arguments.extend([launch::USER.into(), user::word(user).into()]);
        }
        if self.sandbox {
            let mut add = |flag: &str, path: &Path| arguments.extend([flag.into(), path.into()]);
            add(launch::LIFE, directories.life());
            add(launch::OWN, directories.state());
            add(launch::OWN, directories.scratch());
            self.hidden.iter().for_each(|path| add(launch::HIDE, path));
            self.read_paths.iter().for_each(|path| add(launch::READ, path));
            self.write_paths.iter().for_each(|path| add(launch::WRITE, path));
        }
        arguments.push(launch::COMMAND.into());
        arguments
    }

    /// The cgroup of a new process, when there are any.
    pub(super) fn leaf(&self, directories: &Directories) -> Result<Option<Leaf>, StartError> {
        let missing = |key| StartError(format!("{key} cannot be kept: this runner has no cgroup of its own"));
        match (&self.cgroups, self.limits.key()) {
            (Some(cgroups), _) => cgroups.leaf(&directories.mark(), &self.limits).map(Some).map_err(StartError),
            (None, Some(key)) => Err(missing(key)),
            (None, None) => Ok(None),
        }
    }
}

/// What this kernel can keep processes from, for a log; nothing when it has no Landlock.
#[must_use]
pub fn landlock() -> Option<String> {
    domain::version().map(|version| format!("landlock, version {version}"))
}
