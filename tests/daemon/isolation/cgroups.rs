//! What a daemon does with a cgroup of its own, on systems where a test can make one; and without.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::stage::{Plan, Stage};
use crate::process::Daemon;

#[tokio::test]
async fn a_process_that_leaves_its_group_ends_with_its_actor() {
    let Some(cgroup) = Cgroup::make("escape") else { return };
    let stage = in_cgroup(&cgroup, "").await;
    let daemon: u32 = stage.eval("a", "os.getppid()").await.parse().unwrap();
    assert_eq!(members(&cgroup.path.join("supervisor")), [daemon]);
    let pid: u32 = stage.eval("a", "os.getpid()").await.parse().unwrap();
    let own = leaves(&cgroup.path).into_iter().find(|leaf| members(leaf) == [pid]).expect("one process, one leaf");
    // A new session, no environment, no parent: nothing but the cgroup tells whose it is.
    let escape = "subprocess.check_output(['sh', '-c', 'env -i setsid sleep 600 >/dev/null & echo $!'])";
    stage.eval("a", escape).await;
    let escaped = wait_for(|| members(&own).into_iter().find(|pid| command(*pid).starts_with("sleep")));
    let escaped = escaped.await;
    stage.eval("a", "threading.Timer(0.1, os._exit, [3]).start()").await;
    wait_for(|| (!Path::new(&format!("/proc/{escaped}/root")).exists() && !own.exists()).then_some(())).await;
    // The next life has a cgroup of its own again.
    let mut another = (0, String::new());
    while another.0 != 200 {
        another = crate::dev::request("POST", &stage.urls[0], "os.getpid()").await;
    }
    assert_ne!(another.1, pid.to_string());
    assert_eq!(stage.eval("a", "open('/sys/fs/cgroup/unified/cgroup.procs', 'w')").await, super::DENIED);
    stage.daemon.stop().await;
    assert_eq!(leaves(&cgroup.path), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn without_a_cgroup_what_leaves_its_group_is_inherited_and_ended_with_its_actor() {
    let stage = Stage::start("", "").await;
    let daemon: u32 = stage.eval("a", "os.getppid()").await.parse().unwrap();
    let escape = |seconds: u32, how: &str| {
        format!(
            "subprocess.run(['sh', '-c', '{how} setsid sh -c \"sleep {seconds} & sleep {seconds}\" >/dev/null 2>&1 &'])"
        )
    };
    let own = |seconds: u32| {
        let seconds = seconds.to_string();
        processes()
            .into_iter()
            .filter(|(_, words)| words.last() == Some(&seconds))
            .map(|(pid, _)| pid)
            .collect::<Vec<_>>()
    };
    let (of_a, of_b, hidden) = (unique(0), unique(1), unique(2));
    stage.eval("a", &escape(of_a, "")).await;
    stage.eval("b", &escape(of_b, "")).await;
    stage.eval("b", &escape(hidden, "env -i")).await;
    for seconds in [of_a, of_b, hidden] {
        wait_for(|| (own(seconds).len() == 2).then_some(())).await;
    }
    stage.eval("a", "threading.Timer(0.1, os._exit, [3]).start()").await;
    wait_for(|| own(of_a).is_empty().then_some(())).await;
    assert_eq!((own(of_b).len(), own(hidden).len()), (2, 2), "what belongs to others is left alone");
    // Nothing that has ended waits for anybody to look at it.
    wait_for(|| zombies(daemon).is_empty().then_some(())).await;
    stage.daemon.stop().await;
    wait_for(|| (own(of_b).is_empty() && own(hidden).is_empty()).then_some(())).await;
}

#[tokio::test]
async fn who_was_there_before_the_daemon_is_none_of_its_orphans() {
    let seconds = unique(4).to_string();
    let dir = tempfile::tempdir().unwrap();
    let starter = ["sh", "-c", &format!("setsid sleep {seconds} >/dev/null 2>&1 & exec \"$0\" \"$@\"")];
    let arguments = ["run", "--endpoint", "http://127.0.0.1:1", "--admin", "off", "--allow-root", "--actor", "a=true"];
    let mut daemon = Daemon::start_by(&starter, dir, &arguments, &[]);
    daemon.record("not connected to the gateway").await;
    let there = || processes().into_iter().find(|(_, words)| words.last() == Some(&seconds));
    let (before, _) = wait_for(there).await;
    daemon.stop().await;
    assert_eq!(there().map(|(pid, _)| pid), Some(before));
    let before = rustix::process::Pid::from_raw(before.cast_signed()).unwrap();
    rustix::process::kill_process(before, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn what_a_killed_daemon_left_outside_of_cgroups_is_ended_by_the_next() {
    let stage = Stage::start("", "").await;
    let seconds = unique(3);
    let escape = format!("subprocess.run(['sh', '-c', 'setsid sleep {seconds} >/dev/null 2>&1 &'])");
    stage.eval("a", &escape).await;
    let left = || processes().into_iter().any(|(_, words)| words.last() == Some(&seconds.to_string()));
    wait_for(|| left().then_some(())).await;
    stage.daemon.signal(rustix::process::Signal::KILL);
    let (_, data) = stage.daemon.killed().await;
    assert!(left());
    let arguments = ["run", "--endpoint", "http://127.0.0.1:1", "--admin", "off", "--allow-root", "--actor", "a=true"];
    let mut next = Daemon::start(data, &arguments);
    next.record("ending a process that an earlier runner left behind").await;
    wait_for(|| (!left()).then_some(())).await;
    next.stop().await;
}

#[tokio::test]
async fn what_a_killed_daemon_left_in_cgroups_is_ended_by_the_next() {
    let Some(cgroup) = Cgroup::make("crash") else { return };
    let stage = in_cgroup(&cgroup, "").await;
    let pid = stage.eval("a", "os.getpid()").await;
    let left = leaves(&cgroup.path);
    assert_eq!(left.len(), 2);
    stage.daemon.signal(rustix::process::Signal::KILL);
    let (_, data) = stage.daemon.killed().await;
    assert!(command(pid.parse().unwrap()).starts_with("python"));
    // Another runtime directory: the cgroup itself says what was left.
    drop(data);
    let stage = in_cgroup(&cgroup, "").await;
    wait_for(|| (!Path::new(&format!("/proc/{pid}/root")).exists()).then_some(())).await;
    assert!(left.iter().all(|leaf| !leaf.exists()), "{left:?}");
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_fork_bomb_is_held_and_memory_above_the_limit_is_the_reason_of_the_end() {
    let Some(cgroup) = Cgroup::make("limits") else { return };
    let offered = fs::read_to_string(cgroup.path.join("cgroup.controllers")).unwrap();
    if !offered.contains("memory") || !offered.contains("pids") {
        // Nothing here can be limited; what is written to the kernel has its own tests.
        return;
    }
    let mut stage = in_cgroup(&cgroup, "memory_max = \"128MiB\"\npids_max = 20").await;
    let bomb = "subprocess.run(['sh', '-c', 'for i in $(seq 100); do sleep 60 & done']).returncode";
    assert_ne!(stage.eval("a", bomb).await, "0");
    assert_eq!(stage.eval("b", "subprocess.run(['true']).returncode").await, "0");
    stage.eval("a", "threading.Timer(0.1, lambda: bytearray(1 << 30)).start()").await;
    let record = stage.daemon.find("crashed").await.to_string();
    assert!(record.contains("out of memory, of which it may use 128 MiB (memory_max)"), "{record}");
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_limit_that_cannot_be_kept_is_refused_with_its_key_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("actors.toml");
    fs::write(&file, "[actors.a]\ncommand = [\"true\"]\n[actors.b]\ncommand = [\"true\"]\nmemory_max = \"64MiB\"\n")
        .unwrap();
    let file = file.to_str().unwrap();
    if fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|words| words.contains("memory")) {
        // It may be possible here.
        return;
    }
    let arguments = ["run", "--endpoint", "http://127.0.0.1:1", "--admin", "off", "--allow-root", "--actors", file];
    let mut refused = Daemon::start(dir, &arguments);
    const NONE: &str = "processes of actors have no cgroups of their own: no memory_max, no pids_max";
    let [_, record] = refused.records([NONE, "what an actor asks for cannot be kept"]).await;
    let error = record["error"].as_str().unwrap();
    assert!(error.starts_with("actors.b.memory_max: ") && error.contains("Delegate="), "{error}");
    assert_eq!(refused.exit_code().await, 78);

    let mut check = tokio::process::Command::new(env!("CARGO_BIN_EXE_greenroom"));
    let output = check.args(["config", "check", "--allow-root", "--actors", file]).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("actors.b.memory_max: ") && !told.contains("actors.a"), "{told}");
    assert_eq!(output.status.code(), Some(78));
}

async fn in_cgroup(cgroup: &Cgroup, a: &str) -> Stage {
    Stage::of(Plan { a, cgroup: Some(&cgroup.path), ..Plan::default() }).await
}

/// A cgroup that a test has made, as a service manager would.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Nothing where none can be made.
    fn make(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let path = Path::new(mount).join(format!("greenroom-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Cgroup { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Also after a test that failed half way.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        for _ in 0..500 {
            for below in below(&self.path) {
                let _ = fs::remove_dir(below);
            }
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn below(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// The cgroups of processes of actors.
fn leaves(path: &Path) -> Vec<PathBuf> {
    below(path).into_iter().filter(|path| !path.ends_with("supervisor")).collect()
}

fn members(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// A length of sleep that no other process of this machine sleeps.
fn unique(number: u32) -> u32 {
    100_000 + 10 * (std::process::id() % 100_000) + number
}

/// Every process that runs, with its words.
fn processes() -> Vec<(u32, Vec<String>)> {
    let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let words = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
        words.first().is_some_and(|word| word == "sleep").then_some((pid, words))
    };
    ids.filter_map(words).collect()
}

/// The children of a process that it has not reaped.
fn zombies(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).unwrap().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|line| line.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect();
    let ended = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    children.into_iter().filter(ended).collect()
}

fn command(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

async fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(found) = found() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come about")
}
