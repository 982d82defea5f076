//! The cgroup of one process of an actor, and its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Limits, PROCS, children, kill, processes, remove};

/// A cgroup with at most one process that we put there, and all that this one starts. Dropped, everything in it is
/// killed, and it is removed if it is empty by then.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
    limits: Limits,
    /// The kernel tells here of memory.
    counts: bool,
}

/// What the kernel says of a process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// It was killed for its memory; nothing when nobody knows.
    pub out_of_memory: Option<bool>,
    /// The limit that held for its memory.
    pub memory_max: Option<u64>,
    /// The limit of processes that it ran into.
    pub pids_max: Option<u32>,
}

impl Leaf {
    pub(super) fn make(path: PathBuf, limits: &Limits, counts: bool) -> io::Result<Self> {
        fs::create_dir(&path)?;
        let leaf = Leaf { path, limits: *limits, counts };
        if let Some(bytes) = limits.memory_max {
            leaf.set("memory.max", bytes)?;
            // Half an actor is worse than none, and swapping it out only puts that off.
            leaf.set("memory.oom.group", 1)?;
            match leaf.set("memory.swap.max", 0) {
                // A kernel without swap has no such file, and does not let us make it.
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                    return Err(error);
                }
                Ok(()) | Err(_) => {}
            }
        }
        if let Some(count) = limits.pids_max {
            leaf.set("pids.max", count.into())?;
        }
        Ok(leaf)
    }

    /// The file that a process writes `0` to in order to come in.
    pub fn door(&self) -> PathBuf {
        self.path.join(PROCS)
    }

    /// Kills all that is in it.
    pub fn kill(&self) {
        kill(&self.path);
    }

    /// Whether anything in it still runs.
    pub fn lives(&self) -> bool {
        lives(&self.path)
    }

    /// What became of the process.
    pub fn spent(&self) -> Spent {
        let out_of_memory = self.counts.then(|| self.count("memory.events", "oom_kill") > 0);
        let ran_into = self.limits.pids_max.filter(|_| self.count("pids.events", "max") > 0);
        Spent { out_of_memory, memory_max: self.limits.memory_max, pids_max: ran_into }
    }

    fn set(&self, file: &str, value: u64) -> io::Result<()> {
        fs::write(self.path.join(file), value.to_string())
    }

    /// A number of a file of `name number` lines.
    fn count(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let value = text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name);
        value.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or_default()
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if self.lives() {
            kill(&self.path);
        }
        // What is still dying keeps it; the next start of a daemon finds it.
        if let Err(error) = remove(&self.path) {
            warn!(path = %self.path.display(), %error, "a cgroup could not be removed");
        }
    }
}

/// Ends what an earlier daemon left here. Its leaves are ours: nobody else is in the cgroup that they are in.
pub(super) fn sweep(base: &Path) {
    let left: Vec<PathBuf> = children(base).into_iter().filter(|path| is_leaf(path)).collect();
    let deadline = Instant::now() + SWEEP_PATIENCE;
    for path in left {
        let count = processes(&path).len();
        if count > 0 {
            info!(path = %path.display(), count, "ending processes that an earlier runner left behind");
        }
        while lives(&path) && Instant::now() < deadline {
            kill(&path);
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Err(error) = remove(&path) {
            warn!(path = %path.display(), %error, "a cgroup that an earlier runner left could not be removed");
        }
    }
}

fn is_leaf(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

fn lives(path: &Path) -> bool {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(events) => events.lines().any(|line| line == "populated 1"),
        Err(_) => false,
    }
}

/// What the names of leaves begin with.
pub(super) const PREFIX: &str = "actor-";

/// How long processes may take to disappear before a start goes on without it.
const SWEEP_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::host::child_process::cgroup::{Cgroups, SUPERVISOR};

    #[test]
    fn limits_are_written_where_the_kernel_reads_them() {
        let tree = Tree::new("cpu memory pids");
        let cgroups = Cgroups::claim_at(tree.path("")).unwrap();
        assert_eq!(tree.read("supervisor/cgroup.procs"), "0");
        // A file keeps what was written last; the kernel takes one word after the other.
        assert_eq!(tree.read("cgroup.subtree_control"), "+pids");
        let limits = Limits { memory_max: Some(256 << 20), pids_max: Some(50) };
        assert_eq!(cgroups.missing(&limits), None);
        let leaf = cgroups.leaf("00ff", &limits).unwrap();
        assert_eq!(leaf.door(), tree.path("actor-00ff/cgroup.procs"));
        for (file, value) in
            [("memory.max", "268435456"), ("memory.oom.group", "1"), ("memory.swap.max", "0"), ("pids.max", "50")]
        {
            assert_eq!(tree.read(&format!("actor-00ff/{file}")), value, "{file}");
        }
        let spent = |memory, pids| Spent { out_of_memory: Some(memory), memory_max: limits.memory_max, pids_max: pids };
        assert_eq!(leaf.spent(), spent(false, None));
        tree.write("actor-00ff/memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 1\n");
        tree.write("actor-00ff/pids.events", "max 3\n");
        assert_eq!(leaf.spent(), spent(true, Some(50)));
        // Without a limit nothing is written.
        let free = cgroups.leaf("0100", &Limits::default()).unwrap();
        assert_eq!(fs::read_dir(tree.path("actor-0100")).unwrap().count(), 0);
        drop(free);
        assert!(!tree.path("actor-0100").exists());
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_with_its_key() {
        let tree = Tree::new("cpu pids");
        for cgroups in [Cgroups::survey_at(tree.path("")), Cgroups::claim_at(tree.path(""))] {
            let cgroups = cgroups.unwrap();
            let (key, why) = cgroups.missing(&Limits { memory_max: Some(1), pids_max: Some(1) }).unwrap();
            assert!(key == "memory_max" && why.contains("the memory controller is not in"), "{why}");
            let error = cgroups.leaf("1", &Limits { memory_max: Some(1), pids_max: None }).unwrap_err();
            assert!(error.contains("memory_max"), "{error}");
            assert_eq!(cgroups.missing(&Limits { memory_max: None, pids_max: Some(1) }), None);
            assert!(cgroups.to_string().ends_with(", no memory, pids"), "{cgroups}");
        }
    }

    #[test]
    fn a_cgroup_with_others_in_it_and_the_root_of_all_are_left_alone() {
        let tree = Tree::new("memory pids");
        tree.write("cgroup.procs", "1\n");
        assert!(Cgroups::claim_at(tree.path("")).unwrap_err().contains("other processes"));
        assert!(!tree.path(SUPERVISOR).exists());
        tree.write("cgroup.procs", &format!("{}\n", std::process::id()));
        Cgroups::claim_at(tree.path("")).unwrap();
        fs::remove_file(tree.path("cgroup.type")).unwrap();
        assert!(Cgroups::claim_at(tree.path("")).unwrap_err().contains("the root of all"));
        assert!(Cgroups::survey_at(tree.path("missing")).is_err());
    }

    #[test]
    fn what_an_earlier_daemon_left_is_ended_and_removed() {
        let Some(tree) = Tree::real() else { return };
        let mut left = Command::new("sh");
        let script = "mkdir $1/actor-1 $1/actor-1/below && echo 0 > $1/actor-1/below/cgroup.procs && exec sleep 600";
        let mut left = left.args(["-c", script, "sh"]).arg(tree.path("")).stdin(Stdio::null()).spawn().unwrap();
        while !lives(&tree.path("actor-1")) {
            assert!(left.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
        // Reaped from beside, as an init would.
        let reaper = std::thread::spawn(move || left.wait().unwrap());
        sweep(&tree.path(""));
        assert!(!reaper.join().unwrap().success());
        assert!(!tree.path("actor-1").exists());
    }

    /// A cgroup for a test, made of plain files or of the kernel's.
    struct Tree {
        path: PathBuf,
        _files: Option<tempfile::TempDir>,
    }

    impl Tree {
        fn new(controllers: &str) -> Self {
            let files = tempfile::tempdir().unwrap();
            let tree = Tree { path: files.path().to_owned(), _files: Some(files) };
            tree.write("cgroup.controllers", controllers);
            tree.write("cgroup.type", "domain\n");
            tree.write("cgroup.procs", "");
            tree
        }

        /// Nothing where no cgroup can be made.
        fn real() -> Option<Self> {
            let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
            let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
            let path = Path::new(mount).join(format!("greenroom-sweep-{}", std::process::id()));
            fs::create_dir(&path).ok()?;
            Some(Tree { path, _files: None })
        }

        fn path(&self, name: &str) -> PathBuf {
            self.path.join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap()
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            if self._files.is_none() {
                remove(&self.path).unwrap();
            }
        }
    }
}
