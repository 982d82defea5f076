//! Processes that outlived a runner which was killed: found by what was noted beside their sockets, and ended.
//!
//! A note names the process by its id, the time it started and the boot it belongs to, so that a stranger who got the
//! same id later is left alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use rustix::process::{Pid, Signal, kill_process_group};
use tracing::{info, warn};

use super::directories::{LIVES, Roots, remove};
use super::orphans;

/// Ends what an earlier runner left under these roots, with its files. Nobody else may be using them: the caller holds
/// the runtime directory, for example by serving the actor API in it.
pub fn end_leftovers(roots: &Roots) {
    let lives = roots.runtime.join(LIVES);
    let entries = match fs::read_dir(&lives) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return warn!(directory = %lives.display(), %error, "leftover processes cannot be looked for"),
    };
    let lives: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    let mut marks = Vec::new();
    for life in lives {
        if let Some(note) = fs::read_to_string(life.join(NOTE)).ok().as_deref().and_then(Note::parse) {
            note.end();
            let scratch = Path::new(note.scratch);
            let straight = !scratch.components().any(|part| part == Component::ParentDir);
            if straight && scratch.starts_with(&roots.data) {
                remove(scratch);
            }
        }
        remove(&life);
        marks.extend(life.file_name().and_then(|mark| mark.to_str()).map(str::to_owned));
    }
    if !marks.is_empty() {
        orphans::end_strays(&marks);
    }
}

/// Notes a process in the directory of its life.
pub(super) fn note(life: &Path, scratch: &Path, group: Pid) -> io::Result<()> {
    let id = group.as_raw_nonzero();
    let started = started(id.get()).unwrap_or_default();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(life.join(NOTE))?;
    file.write_all(format!("{id}\n{started}\n{}\n{}\n", boot(), scratch.display()).as_bytes())
}

/// One process as it was noted.
struct Note<'a> {
    group: Pid,
    started: &'a str,
    boot: &'a str,
    scratch: &'a str,
}

impl<'a> Note<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.lines();
        let group = Pid::from_raw(lines.next()?.parse().ok()?)?;
        Some(Note { group, started: lines.next()?, boot: lines.next()?, scratch: lines.next()? })
    }

    fn end(&self) {
        let id = self.group.as_raw_nonzero().get();
        if self.boot != boot() || started(id).as_deref() != Some(self.started) {
            return;
        }
        info!(pid = id, "ending a process that an earlier runner left behind");
        if let Err(error) = kill_process_group(self.group, Signal::KILL) {
            warn!(pid = id, %error, "a leftover process could not be ended");
        }
    }
}

/// When a process started, in clock ticks since the boot: field 22 of its `stat`, counted behind the program's name,
/// which may contain anything.
fn started(id: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The file in a life's directory that names its process.
const NOTE: &str = "process";

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_the_noted_process_is_ended_and_all_files_go() {
        let root = tempfile::tempdir().unwrap();
        let roots = Roots { runtime: root.path().join("run"), data: root.path().join("data") };
        let mut left = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let group = |child: &std::process::Child| Pid::from_raw(child.id().cast_signed()).unwrap();
        let (first, second) = (roots.runtime.join(LIVES).join("1"), roots.runtime.join(LIVES).join("2"));
        let scratch = roots.data.join("actors/x/tmp-1");
        for directory in [&first, &second, &scratch] {
            fs::create_dir_all(directory).unwrap();
        }
        note(&first, &scratch, group(&left)).unwrap();
        note(&second, Path::new("/"), group(&stranger)).unwrap();
        // The stranger has the id that was noted, but started at another time.
        let text = fs::read_to_string(second.join(NOTE)).unwrap();
        let started = started(group(&stranger).as_raw_nonzero().get()).unwrap();
        fs::write(second.join(NOTE), text.replacen(&started, "1", 1)).unwrap();

        end_leftovers(&roots);
        assert!(!left.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none());
        assert!(!first.exists() && !second.exists() && !scratch.exists());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
