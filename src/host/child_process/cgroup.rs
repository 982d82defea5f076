//! A cgroup per process, where this daemon has a cgroup of its own that it may divide (version 2, delegated).
//!
//! The daemon moves itself into `supervisor`, because the kernel wants processes only in the leaves of a tree with
//! controllers, and makes a leaf beside it for every process of an actor. Whatever a process starts stays in its leaf,
//! also what leaves its process group: the end of the leaf is the end of them all. Limits of memory and of processes
//! are the leaf's, and the kernel tells there when it ended a process for its memory.

mod leaf;
mod place;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

pub(super) use leaf::{Leaf, Spent};

/// What the process of an actor may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most memory of the process and all that it starts, in bytes; above it, they are all killed.
    pub memory_max: Option<u64>,
    /// The most processes and threads at once; above it, no more can be started.
    pub pids_max: Option<u32>,
}

/// The cgroup that this daemon divides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    base: PathBuf,
    /// Why memory cannot be limited.
    memory: Result<(), String>,
    /// Why processes cannot be counted.
    pids: Result<(), String>,
}

impl Cgroups {
    /// Takes the cgroup of this process into use: moves this process out of the way, ends what an earlier daemon left
    /// in it, and turns the controllers on.
    ///
    /// # Errors
    /// Why there is no cgroup to divide, for a person.
    pub fn claim() -> Result<Self, String> {
        Self::claim_at(place::own(Path::new(place::PROCESS))?)
    }

    /// What [`Cgroups::claim`] would find; changes nothing.
    ///
    /// # Errors
    /// Why there is no cgroup to divide, for a person.
    pub fn survey() -> Result<Self, String> {
        Self::survey_at(place::own(Path::new(place::PROCESS))?)
    }

    fn claim_at(base: PathBuf) -> Result<Self, String> {
        place::may_be_divided(&base)?;
        let supervisor = base.join(SUPERVISOR);
        let moved = match fs::create_dir(&supervisor) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => fs::write(supervisor.join(PROCS), "0"),
        };
        moved.map_err(|error| format!("this process cannot move to {}: {error}", supervisor.display()))?;
        leaf::sweep(&base);
        let turn_on = |controller: &str| {
            place::offers(&base, controller)?;
            fs::write(base.join("cgroup.subtree_control"), format!("+{controller}")).map_err(|error| {
                format!("the {controller} controller cannot be turned on in the cgroup {}: {error}", base.display())
            })
        };
        let (memory, pids) = (turn_on("memory"), turn_on("pids"));
        Ok(Cgroups { base, memory, pids })
    }

    fn survey_at(base: PathBuf) -> Result<Self, String> {
        place::may_be_divided(&base)?;
        let (memory, pids) = (place::offers(&base, "memory"), place::offers(&base, "pids"));
        Ok(Cgroups { base, memory, pids })
    }

    /// The key among these limits that cannot be kept, and why.
    #[must_use]
    pub fn missing<'a>(&'a self, limits: &Limits) -> Option<(&'static str, &'a str)> {
        let asked = [
            ("memory_max", limits.memory_max.is_some(), &self.memory),
            ("pids_max", limits.pids_max.is_some(), &self.pids),
        ];
        let missing = |(key, asked, offered): (_, bool, &'a Result<(), String>)| {
            offered.as_ref().err().filter(|_| asked).map(|why| (key, why.as_str()))
        };
        asked.into_iter().find_map(missing)
    }

    /// Makes the leaf of one process, with these limits; `life` is a word of ours.
    pub(super) fn leaf(&self, life: &str, limits: &Limits) -> Result<Leaf, String> {
        if let Some((key, why)) = self.missing(limits) {
            return Err(format!("{key} cannot be kept: {why}"));
        }
        let (leaf, counts) = (format!("{}{life}", leaf::PREFIX), self.memory.is_ok());
        Leaf::make(self.base.join(leaf), limits, counts)
            .map_err(|error| format!("a cgroup could not be made in {}: {error}", self.base.display()))
    }
}

impl Limits {
    /// The first key that asks for something.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        self.memory_max.map(|_| "memory_max").or_else(|| self.pids_max.map(|_| "pids_max"))
    }
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base.display())?;
        for (controller, offered) in [("memory", &self.memory), ("pids", &self.pids)] {
            match offered {
                Ok(()) => write!(f, ", {controller}")?,
                Err(_) => write!(f, ", no {controller}")?,
            }
        }
        Ok(())
    }
}

/// Ends all that is in a cgroup and in those below it.
fn kill(path: &Path) {
    let all_at_once =
        OpenOptions::new().write(true).open(path.join("cgroup.kill")).and_then(|mut file| file.write_all(b"1"));
    if all_at_once.is_ok() {
        return;
    }
    // Kernels before 5.14 have no such file: one by one, and the caller looks again.
    children(path).iter().for_each(|below| kill(below));
    for process in processes(path) {
        // It may be gone already.
        let _ = kill_process(process, Signal::KILL);
    }
}

/// The processes of a cgroup, without those below it.
fn processes(path: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(path.join(PROCS)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes a cgroup with those below it; they must be empty.
fn remove(path: &Path) -> io::Result<()> {
    for below in children(path) {
        remove(&below)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where the daemon itself is.
const SUPERVISOR: &str = "supervisor";

/// The file that lists the processes of a cgroup, and takes those that are to come in.
const PROCS: &str = "cgroup.procs";
