//! The launcher's side: reads its arguments, restricts itself, and becomes the actor's program.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::domain::{self, Domain};
use super::user::Identity;

/// Does what the arguments after [`WORD`](super::Isolation::WORD) say and becomes the actor's program. Returns only
/// when that fails, and says on stderr why; the code is then the one that shells give: 127 when there is no such
/// program, else 126.
pub fn launch(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (program, error) = match Launch::read(arguments) {
        Some(launch) => (launch.command[0].clone(), launch.run()),
        None => (OsString::new(), io::Error::from(io::ErrorKind::InvalidInput)),
    };
    let program = program.to_string_lossy();
    // Nobody is left to tell when this fails.
    let _ = writeln!(io::stderr(), "the command `{program}` could not be started: {error}");
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// What a launcher is told.
#[derive(Debug, Default)]
struct Launch {
    /// The file that lets it into its cgroup.
    cgroup: Option<PathBuf>,
    domain: Option<Domain>,
    user: Option<Identity>,
    /// Not empty.
    command: Vec<OsString>,
}

impl Launch {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut launch = Launch::default();
        loop {
            let flag = arguments.next()?;
            if flag == COMMAND {
                launch.command = arguments.collect();
                return (!launch.command.is_empty()).then_some(launch);
            }
            let path = PathBuf::from(arguments.next()?);
            if flag == CGROUP {
                launch.cgroup = Some(path);
                continue;
            }
            if flag == USER {
                launch.user = Some(Identity::parse(path.to_str()?)?);
                continue;
            }
            let domain = launch.domain.get_or_insert_default();
            let paths = match flag.to_str()? {
                LIFE => &mut domain.life,
                OWN => &mut domain.own,
                HIDE => &mut domain.hidden,
                READ => &mut domain.read,
                WRITE => &mut domain.write,
                _ => return None,
            };
            paths.push(path);
        }
    }

    /// Answers only when it fails.
    fn run(self) -> io::Error {
        // First, because everything after it is meant to keep this process from such files.
        if let Some(door) = &self.cgroup
            && let Err(error) = fs::write(door, "0")
        {
            return io::Error::other(format!("it could not enter its cgroup at {}: {error}", door.display()));
        }
        if let Err(error) = rustix::thread::set_no_new_privs(true) {
            return error.into();
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return io::ErrorKind::InvalidInput.into();
        };
        if let Some(mut domain) = self.domain {
            let named = domain::named_by(&self.command);
            domain.read.extend(domain::packages_above(named.iter().cloned().chain(std::env::current_dir())));
            domain.read.extend(named);
            let path = std::env::var_os("PATH").unwrap_or_default();
            domain.read.extend(domain::installed(&path, std::env::var_os("HOME").as_deref().map(OsStr::as_ref)));
            if let Err(error) = domain.enter() {
                return error;
            }
            give_up_powers();
        }
        if let Some(user) = &self.user
            && let Err(error) = user.assume()
        {
            return io::Error::new(error.kind(), format!("it could not become another user: {error}"));
        }
        Command::new(program).args(arguments).exec()
    }
}

/// Gives up what lets root step out of a sandbox: the program has only the rights of root over files and users. Another
/// user has none of these and may not give them up either, so what the system says to it does not matter.
fn give_up_powers() {
    for power in CapabilitySet::all().difference(KEPT).iter() {
        // A power that this kernel does not know is not there.
        let _ = remove_capability_from_bounding_set(power);
    }
}

/// What root keeps in a sandbox: what containers leave to it, too, but for raw sockets and devices.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Before the actor's command.
pub(super) const COMMAND: &str = "--";
/// Before the file of the cgroup to enter.
pub(super) const CGROUP: &str = "--cgroup";
/// Before the user to become.
pub(super) const USER: &str = "--user";
/// Before the directory of the life: its socket is made there, its token is read there.
pub(super) const LIFE: &str = "--life";
/// Before a directory that is the process's own.
pub(super) const OWN: &str = "--own";
/// Before what is hidden.
pub(super) const HIDE: &str = "--hide";
/// Before what may be read.
pub(super) const READ: &str = "--read";
/// Before what may be written.
pub(super) const WRITE: &str = "--write";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_reads_what_it_was_told_and_nothing_else() {
        let read = |words: &[&str]| Launch::read(words.iter().map(OsString::from));
        let launch =
            read(&["--life", "/l", "--own", "/a", "--own", "/b", "--hide", "/h", "--", "sh", "--own"]).unwrap();
        let domain = launch.domain.unwrap();
        assert_eq!((domain.life, domain.hidden), (vec![PathBuf::from("/l")], vec![PathBuf::from("/h")]));
        assert_eq!(domain.own, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(launch.command, ["sh", "--own"]);
        assert!(read(&["--", "true"]).unwrap().domain.is_none());
        let launch = read(&["--cgroup", "/c/cgroup.procs", "--", "true"]).unwrap();
        assert_eq!((launch.cgroup.as_deref(), launch.domain.is_none()), (Some("/c/cgroup.procs".as_ref()), true));
        assert!(read(&["--user", "7:8:9", "--", "true"]).unwrap().user.is_some());
        assert!(read(&["--user", "0:0:0", "--", "true"]).is_none());
        for wrong in [&["--"][..], &[], &["--life", "/l"], &["--other", "/l", "--", "sh"], &["--life", "--", "sh"]] {
            assert!(read(wrong).is_none(), "{wrong:?}");
        }
    }
}
