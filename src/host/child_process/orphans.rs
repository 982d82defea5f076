//! Processes that left the group of their actor, where no cgroup holds them.
//!
//! This process becomes the one that inherits them: a process that loses its parent becomes our child instead of that
//! of init. Whose it was is in its environment, which every life marks with a random word in its paths. At the end of
//! a life, our inherited children with its mark are killed, and their children, which we inherit in turn. One that has
//! wiped its environment hides whose it was, and lives until this process ends; only a cgroup is stricter.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

/// While this exists, this process inherits and reaps what its children leave behind. At the end it kills what is
/// left of that.
#[derive(Debug)]
pub struct Orphans {
    reaper: JoinHandle<()>,
}

impl Orphans {
    /// Makes this process inherit orphans. Children that it has from now on must be started by hosts of this module:
    /// others would be taken for orphans. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the system does not let us, or does not tell us who our children are.
    pub fn adopt() -> io::Result<Self> {
        let mut ends = signal(SignalKind::child())?;
        fs::read_to_string(format!("/proc/self/task/{}/children", getpid()))?;
        set_child_subreaper(Some(getpid()))?;
        // Who became this program may have had children, which are somebody's business.
        let there_already = inherited();
        own().extend(there_already.into_iter().map(|child| child.as_raw_nonzero().get()));
        ADOPTING.store(true, Ordering::Release);
        let reaper = async move {
            while ends.recv().await.is_some() {
                // It may have to wait for a process that just starts.
                let _ = spawn_blocking(reap).await;
                // Many end at the same time, and nobody waits for it.
                sleep(REAP_PAUSE).await;
            }
        };
        Ok(Orphans { reaper: tokio::spawn(reaper) })
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        self.reaper.abort();
        ADOPTING.store(false, Ordering::Release);
        // The children of each come to us when it is gone.
        for _ in 0..FAREWELLS {
            let left = inherited();
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(2));
            reap();
        }
        warn!("processes that actors have left behind survive being killed");
    }
}

/// Starts a child that is nobody's orphan until [`forget`].
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Until it is known it would be taken for an orphan. Starts do not wait for each other.
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    own().extend(child.id().map(u32::cast_signed));
    Ok(child)
}

/// A child was reaped by who started it.
pub(super) fn forget(child: Pid) {
    own().remove(&child.as_raw_nonzero().get());
}

/// Kills what a life has left behind, and resolves when it is gone.
pub(super) async fn end(mark: &str, patience: Duration) {
    if !ADOPTING.load(Ordering::Acquire) {
        return;
    }
    let (mut pause, give_up) = (Duration::from_millis(1), Instant::now() + patience);
    loop {
        let mark = mark.to_owned();
        let ending = spawn_blocking(move || end_those_with(&mark));
        match ending.await {
            Ok(0) | Err(_) => return,
            Ok(_) if Instant::now() > give_up => {
                return warn!("processes that an actor has left behind survive being killed");
            }
            Ok(count) => debug!(count, "ending processes that left the group of their actor"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Kills the orphans with this mark, and reaps those that have ended. Answers how many there were.
fn end_those_with(mark: &str) -> usize {
    reap();
    let left: Vec<Pid> = inherited().into_iter().filter(|orphan| has_mark(*orphan, &[mark])).collect();
    left.iter().copied().for_each(kill);
    left.len()
}

/// Kills what lives of an earlier runner have left behind, wherever it is now.
pub(super) fn end_strays(marks: &[String]) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    for stray in ids.filter(|id| has_mark(*id, marks)) {
        info!(pid = stray.as_raw_nonzero().get(), "ending a process that an earlier runner left behind");
        kill(stray);
    }
}

/// Our children that we did not start.
fn inherited() -> Vec<Pid> {
    let _none_is_starting = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let own = own();
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    children.flat_map(|line| numbers(&line)).filter(|child| !own.contains(child)).filter_map(Pid::from_raw).collect()
}

/// Reaps the orphans that have ended; nobody else does.
fn reap() {
    for orphan in inherited() {
        // One that still runs is for a later time.
        let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
    }
}

fn numbers(line: &str) -> Vec<i32> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn has_mark(process: Pid, marks: &[impl AsRef<str>]) -> bool {
    let environment = Path::new("/proc").join(process.as_raw_nonzero().to_string()).join("environ");
    let Ok(environment) = fs::read(environment) else { return false };
    let has = |mark: &str| environment.windows(mark.len()).any(|part| part == mark.as_bytes());
    marks.iter().map(AsRef::as_ref).any(|mark| is_mark(mark) && has(mark))
}

/// Whether it is the random word of a life; anything else could stand in the environment of a stranger.
fn is_mark(word: &str) -> bool {
    word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn kill(process: Pid) {
    // It may be gone already.
    let _ = kill_process(process, Signal::KILL);
}

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether somebody wants orphans.
static ADOPTING: AtomicBool = AtomicBool::new(false);

/// The children that we started and that nobody has reaped.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Held for reading while a child is started, for writing by who wants to see none half started.
static STARTING: RwLock<()> = RwLock::new(());

/// The least time between two looks for orphans that have ended.
const REAP_PAUSE: Duration = Duration::from_millis(100);

/// How often the last orphans are killed at the end, two milliseconds apart: a tree of them comes to us level by level.
const FAREWELLS: usize = 250;
