//! The private places of one actor life on disk.
//!
//! Their names are made by us: a random one for what lives as long as the process, and the actor's id, checked or in
//! hex, for what outlives it. Names and keys that came from outside never become part of a path.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rand::RngExt;
use rustix::process::Pid;
use secrecy::{ExposeSecret, SecretString};

use super::leftovers;
use crate::actor::ActorKey;
use crate::config::SystemUser;
use crate::host::StartError;

/// Where a host keeps what its actors need on disk. Both are absolute.
#[derive(Clone, Debug)]
pub struct Roots {
    /// For sockets and tokens; short, because a socket's path must fit in 107 bytes.
    pub runtime: PathBuf,
    /// For what outlives a process.
    pub data: PathBuf,
}

/// The directories of one life. Dropped, it removes what belongs to the life and keeps the actor's state.
#[derive(Debug)]
pub(super) struct Directories {
    life: PathBuf,
    state: PathBuf,
    scratch: PathBuf,
    socket: PathBuf,
}

impl Directories {
    /// Makes them, with the token inside, private to this user; or to another one, who then reaches them and nothing
    /// beside them.
    pub(super) fn make(
        roots: &Roots,
        key: &ActorKey,
        token: &SecretString,
        user: Option<&SystemUser>,
    ) -> Result<Self, StartError> {
        let actor = roots.data.join(ACTORS).join(directory_name(&key.id)?);
        let life = format!("{:016x}", rand::rng().random::<u64>());
        let (scratch, life) = (actor.join(format!("tmp-{life}")), roots.runtime.join(LIVES).join(life));
        // What is noted beside the socket is the daemon's, so another user makes its socket further down.
        let sockets = if user.is_some() { life.join("s") } else { life.clone() };
        let directories = Directories { state: actor.join("state"), scratch, life, socket: sockets.join("app.sock") };
        let socket = directories.socket();
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            return Err(StartError(format!(
                "the socket path {} has {length} bytes and the system allows {SOCKET_PATH_MAX}; choose a shorter \
                 --runtime-dir",
                socket.display()
            )));
        }
        directories.fill(token)?;
        if let Some(user) = user {
            directories.give(roots, &sockets, user)?;
        }
        Ok(directories)
    }

    fn fill(&self, token: &SecretString) -> Result<(), StartError> {
        for directory in [&self.life, &self.state, &self.scratch] {
            make_private(directory).map_err(|error| failed("create", directory, &error))?;
        }
        let file = self.token_file();
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&file)?;
            file.write_all(token.expose_secret().as_bytes())
        };
        write().map_err(|error| failed("write", &file, &error))
    }

    /// Gives a user what is its own, and lets it through the directories around that, without a look into them.
    fn give(&self, roots: &Roots, sockets: &Path, user: &SystemUser) -> Result<(), StartError> {
        let owner = fs::metadata(&self.state).map_err(|error| failed("look at", &self.state, &error))?.uid();
        if owner != user.uid {
            // What others left there is not for this one to read, and of no use to it.
            remove(&self.state);
            make_private(&self.state).map_err(|error| failed("create", &self.state, &error))?;
        }
        make_private(sockets).map_err(|error| failed("create", sockets, &error))?;
        for path in [sockets, &self.state, &self.scratch, &self.token_file()] {
            chown(path, Some(user.uid), Some(user.gid)).map_err(|error| failed("give away", path, &error))?;
        }
        let actor = self.state.parent().unwrap_or(&self.state);
        let around =
            [&roots.runtime, &roots.runtime.join(LIVES), &self.life, &roots.data, &roots.data.join(ACTORS), actor];
        for path in around {
            let mode = fs::metadata(path).map(|found| found.mode());
            let open = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777 | 0o001));
            mode.and_then(open).map_err(|error| failed("open", path, &error))?;
        }
        match roots.runtime.ancestors().chain(roots.data.ancestors()).find(|path| is_closed(path, user)) {
            Some(path) => Err(StartError(format!(
                "the user {} cannot enter {}, in which its directories are; choose another --runtime-dir or --data-dir",
                user.name,
                path.display()
            ))),
            None => Ok(()),
        }
    }

    /// Notes which process the life has, for a runner that comes after a crash of this one.
    pub(super) fn note(&self, group: Pid) {
        if let Err(error) = leftovers::note(&self.life, &self.scratch, group) {
            tracing::warn!(directory = %self.life.display(), %error, "a process could not be noted");
        }
    }

    /// A word that is in the paths of this life and of no other.
    pub(super) fn mark(&self) -> String {
        self.life.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What the app listens on.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    pub(super) fn token_file(&self) -> PathBuf {
        self.life.join("token")
    }

    /// Where the socket and the token are.
    pub(super) fn life(&self) -> &Path {
        &self.life
    }

    /// What the actor keeps over its lives on this machine.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// What goes with the life.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Removes the actor's state too: it was destroyed.
    pub(super) fn forget_state(&self) {
        remove(&self.state);
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        remove(&self.life);
        remove(&self.scratch);
        // Only goes when nothing else is in it.
        if let Some(actor) = self.state.parent() {
            let _ = fs::remove_dir(&self.state);
            let _ = fs::remove_dir(actor);
        }
    }
}

/// Makes a directory that only this user may enter, with its parents; one that is there is made private.
fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

pub(super) fn remove(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(directory = %directory.display(), %error, "a directory could not be removed"),
    }
}

/// The directory of an actor: its id when that is a harmless word, otherwise the id in hex.
fn directory_name(id: &str) -> Result<String, StartError> {
    let harmless = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match id.len() {
        1..=64 if id.bytes().all(harmless) => Ok(id.to_owned()),
        0..=ID_MAX => Ok(format!("x-{}", HEXLOWER.encode(id.as_bytes()))),
        length => Err(StartError(format!("the actor's id has {length} bytes, and at most {ID_MAX} are supported"))),
    }
}

/// Whether a user may not go through a directory.
fn is_closed(path: &Path, user: &SystemUser) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let may = match found.uid() == user.uid {
        true => 0o100,
        false if found.gid() == user.gid || user.groups.contains(&found.gid()) => 0o010,
        false => 0o001,
    };
    found.mode() & may == 0
}

fn failed(what: &str, path: &Path, error: &io::Error) -> StartError {
    StartError(format!("could not {what} {}: {error}", path.display()))
}

/// The directory of lives in the runtime directory; short, for the sake of socket paths.
pub(super) const LIVES: &str = "a";

/// The directory of actors in the data directory.
const ACTORS: &str = "actors";

/// The longest path a Unix socket can have: 108 bytes with the zero at its end.
const SOCKET_PATH_MAX: usize = 107;

/// The longest actor id, in bytes: in hex it still fits in a file name. Rivet's ids have 30.
const ID_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_names_that_cannot_lead_elsewhere_and_do_not_collide() {
        let name = |id: &str| directory_name(id).unwrap();
        assert_eq!(name("1oe70n6l4jcqg4a8w8zsyhhwkqcl00"), "1oe70n6l4jcqg4a8w8zsyhhwkqcl00");
        for id in ["", "..", "../../x", "a/b", "A", "a\0b", "x-61", "tmp-1"] {
            let name = name(id);
            assert!(name.starts_with("x-") && !name.contains(['/', '.', '\0']), "{id:?}: {name}");
        }
        assert!(directory_name(&"é".repeat(100)).is_err());
    }

    #[test]
    fn everything_of_a_life_is_private_and_goes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let roots = Roots { runtime: root.path().join("run"), data: root.path().join("data") };
        let directories = Directories::make(&roots, &ActorKey::new("a1", 1), &"secret".into(), None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (token, scratch) = (directories.token_file(), directories.scratch().to_owned());
        assert_eq!(mode(&token), 0o400);
        assert_eq!(fs::read_to_string(&token).unwrap(), "secret");
        assert_eq!(mode(token.parent().unwrap()), 0o700);
        assert_eq!(mode(directories.state()), 0o700);
        assert_eq!(mode(&scratch), 0o700);

        let kept = directories.state().join("kept");
        fs::write(&kept, "1").unwrap();
        drop(directories);
        assert!(!token.exists() && !scratch.exists() && kept.exists());

        let directories = Directories::make(&roots, &ActorKey::new("a1", 2), &"secret".into(), None).unwrap();
        directories.forget_state();
        drop(directories);
        assert!(!kept.parent().unwrap().parent().unwrap().exists());
    }

    #[test]
    fn a_runtime_directory_that_is_too_long_says_so() {
        let root = tempfile::tempdir().unwrap();
        let roots = Roots { runtime: root.path().join("r".repeat(90)), data: root.path().join("data") };
        let error = Directories::make(&roots, &ActorKey::new("a1", 1), &"secret".into(), None).unwrap_err();
        assert!(error.0.contains("--runtime-dir"), "{error}");
    }
}
