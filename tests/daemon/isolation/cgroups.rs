//! What a daemon does with a cgroup of its own, on systems where a test can make one; and without.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::stage::Stage;
use crate::process::Daemon;

#[tokio::test]
async fn a_process_that_leaves_its_group_ends_with_its_actor() {
    let Some(cgroup) = Cgroup::make("escape") else { return };
    let stage = Stage::start_in(&cgroup.path, "", "").await;
    let daemon: u32 = stage.eval("a", "os.getppid()").await.parse().unwrap();
    assert_eq!(members(&cgroup.path.join("supervisor")), [daemon]);
    let pid: u32 = stage.eval("a", "os.getpid()").await.parse().unwrap();
    let own = leaves(&cgroup.path).into_iter().find(|leaf| members(leaf) == [pid]).expect("one process, one leaf");
    // A new session, no environment, no parent: nothing but the cgroup tells whose it is.
    let escape = "subprocess.check_output(['sh', '-c', 'env -i setsid sleep 600 >/dev/null & echo $!'])";
    stage.eval("a", escape).await;
    let escaped = wait_for(|| members(&own).into_iter().find(|pid| command(*pid).starts_with("sleep")));
    let escaped = escaped.await;
    stage.eval("a", "__import__('threading').Timer(0.1, os._exit, [3]).start()").await;
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
async fn what_a_killed_daemon_left_in_cgroups_is_ended_by_the_next() {
    let Some(cgroup) = Cgroup::make("crash") else { return };
    let stage = Stage::start_in(&cgroup.path, "", "").await;
    let pid = stage.eval("a", "os.getpid()").await;
    let left = leaves(&cgroup.path);
    assert_eq!(left.len(), 2);
    stage.daemon.signal(rustix::process::Signal::KILL);
    let (_, data) = stage.daemon.killed().await;
    assert!(command(pid.parse().unwrap()).starts_with("python"));
    // Another runtime directory: the cgroup itself says what was left.
    drop(data);
    let stage = Stage::start_in(&cgroup.path, "", "").await;
    wait_for(|| (!Path::new(&format!("/proc/{pid}/root")).exists()).then_some(())).await;
    assert!(left.iter().all(|leaf| !leaf.exists()), "{left:?}");
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
    refused.find("processes of actors have no cgroups").await;
    let record = refused.record("a limit of an actor cannot be kept").await;
    let error = record["error"].as_str().unwrap();
    assert!(error.starts_with("actors.b.memory_max: ") && error.contains("Delegate="), "{error}");
    assert_eq!(refused.exit_code().await, 78);

    let mut check = tokio::process::Command::new(env!("CARGO_BIN_EXE_greenroom"));
    let output = check.args(["config", "check", "--allow-root", "--actors", file]).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("actors.b.memory_max: ") && !told.contains("actors.a"), "{told}");
    assert_eq!(output.status.code(), Some(78));
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
