//! The Landlock domain of a process: everything that is not allowed here is denied, to it and to all that it starts.
//!
//! A domain also keeps a process from looking into, tracing and signalling processes outside it, and from abstract
//! Unix sockets of others. Rules hold for whole trees; a tree with something hidden in it is allowed entry by entry.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    Scope, make_bitflags, path_beneath_rules,
};

/// What a process may reach.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// Where it makes its socket and reads its token.
    pub life: Vec<PathBuf>,
    /// Its own directories; in them nothing is hidden.
    pub own: Vec<PathBuf>,
    /// What it does not reach although it lies below what it may read.
    pub hidden: Vec<PathBuf>,
    /// What it may read and execute, beyond the system's own.
    pub read: Vec<PathBuf>,
    /// What it may write.
    pub write: Vec<PathBuf>,
}

type Rules = Vec<(PathBuf, BitFlags<AccessFs>)>;

impl Domain {
    /// Puts this process into the domain, as far as the kernel can.
    pub fn enter(self) -> io::Result<()> {
        self.restrict().map_err(|error| io::Error::other(format!("the sandbox could not be set up: {error}")))
    }

    fn restrict(self) -> Result<(), RulesetError> {
        let mut ruleset =
            Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?.create()?;
        for (path, access) in self.rules() {
            ruleset = ruleset.add_rules(path_beneath_rules([path], access))?;
        }
        ruleset.restrict_self().map(drop)
    }

    fn rules(mut self) -> Rules {
        let read = AccessFs::from_read(KNOWN);
        let write = read | AccessFs::from_write(KNOWN) & !make_bitflags!(AccessFs::{MakeChar | MakeBlock | IoctlDev});
        let hidden = std::mem::take(&mut self.hidden);
        let hidden: Vec<PathBuf> = hidden.into_iter().filter_map(|path| path.canonicalize().ok()).collect();
        let mut rules = Rules::new();
        for path in SYSTEM.iter().map(PathBuf::from).chain(self.read).chain(std::env::current_dir()) {
            allow(&path, read, &hidden, &mut rules);
        }
        for path in self.write {
            allow(&path, write, &hidden, &mut rules);
        }
        let device = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | IoctlDev});
        rules.extend(DEVICES.iter().map(|path| (path.into(), device)));
        rules.extend(self.own.into_iter().map(|path| (path, write)));
        // It makes a socket there, and may take it away; it writes to nothing.
        let life = make_bitflags!(AccessFs::{ReadFile | ReadDir | MakeSock | RemoveFile});
        rules.extend(self.life.into_iter().map(|path| (path, life)));
        rules
    }
}

/// Allows a tree, but for what is hidden in it.
fn allow(path: &Path, access: BitFlags<AccessFs>, hidden: &[PathBuf], rules: &mut Rules) {
    let Ok(path) = path.canonicalize() else { return };
    if hidden.iter().any(|hidden| path.starts_with(hidden)) {
        return;
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(&path)) {
        return rules.push((path, access));
    }
    // A rule for the directory would hold for all that is below. Names can be seen, which imports of Python need.
    rules.push((path.clone(), AccessFs::ReadDir.into()));
    for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
        // Where a link leads has its own rules.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            allow(&entry.path(), access, hidden, rules);
        }
    }
}

/// The files that a command names, with the directories they are in: a script has others beside it.
pub(super) fn named_by(command: &[OsString]) -> Vec<PathBuf> {
    let files = command.iter().map(Path::new).filter(|word| word.components().nth(1).is_some() && word.is_file());
    let place = |file: &Path| {
        let directory = file.parent().filter(|directory| directory.parent().is_some());
        directory.unwrap_or(file).to_owned()
    };
    files.map(place).collect()
}

/// What programs of Node.js look for in the directories above their own: packages, and the kind of the package that
/// they belong to.
pub(super) fn packages_above(places: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in places.filter_map(|place| place.canonicalize().ok()) {
        for above in place.ancestors().skip(1) {
            found.extend(["node_modules", "package.json"].map(|name| above.join(name)));
        }
    }
    found.sort();
    found.dedup();
    found.retain(|path| path.exists());
    found
}

/// Where programs are installed, as far as `PATH` tells: its directories, and what is beside a `bin` or `shims`, like
/// the libraries of a Python or Node.js in a home directory. A home itself is not opened for a `bin` in it.
pub(super) fn installed(path: &OsStr, home: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for directory in std::env::split_paths(path).filter(|directory| directory.is_absolute()) {
        let named = directory.file_name().is_some_and(|name| name == "bin" || name == "shims");
        if let Some(parent) = directory.parent().filter(|_| named) {
            let private = parent.parent().is_none()
                || home.is_some_and(|home| home.starts_with(parent))
                || parent.file_name().is_some_and(|name| name == ".local" || name == ".cargo");
            places.push(if private { parent.join("lib") } else { parent.to_owned() });
        }
        places.push(directory);
    }
    // What the programs of ~/.cargo/bin run.
    places.extend(home.map(|home| home.join(".rustup")));
    places
}

/// The version of Landlock that this kernel has, up to the newest that we use.
pub(super) fn version() -> Option<i32> {
    let has = |abi: &ABI| {
        let wanted = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let wanted = wanted.handle_access(AccessFs::from_all(*abi));
        let scopes = Scope::from_all(*abi);
        let wanted = if scopes.is_empty() { wanted } else { wanted.and_then(|wanted| wanted.scope(scopes)) };
        wanted.and_then(Ruleset::create).is_ok()
    };
    [KNOWN, ABI::V5, ABI::V3, ABI::V2, ABI::V1].iter().find(|abi| has(abi)).map(|abi| *abi as i32)
}

/// The newest version of Landlock whose effects we know: files, devices, signals, abstract sockets. TCP has rules
/// too, and none here: actors may call whom they like. A kernel that has less does less.
const KNOWN: ABI = ABI::V6;

/// What programs of any kind read. Of `/proc`, other processes keep to themselves what a tracer could see.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/snap",
    "/proc",
    "/sys",
    "/run/current-system",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
    "/var/lib/ca-certificates",
];

/// The devices that hold nothing.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_left_out_of_every_tree_around_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["work/src", "work/data/actors", "other"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("work/app.py"), "").unwrap();
        fs::write(root.join("work/actors.toml"), "").unwrap();
        std::os::unix::fs::symlink(root.join("other"), root.join("work/link")).unwrap();
        let hidden = [root.join("work/data"), root.join("work/actors.toml")];
        let allowed = |path: &str| {
            let mut rules = Rules::new();
            allow(&root.join(path), AccessFs::from_read(KNOWN), &hidden, &mut rules);
            let readable = rules.into_iter().filter(|(_, access)| access.contains(AccessFs::ReadFile));
            let mut paths: Vec<_> = readable.map(|(path, _)| path).collect();
            paths.sort();
            paths
        };
        assert_eq!(allowed("work"), [root.join("work/app.py"), root.join("work/src")]);
        assert_eq!(allowed("other"), [root.join("other")]);
        assert!(allowed("work/data").is_empty() && allowed("work/data/actors").is_empty());
    }

    #[test]
    fn an_installation_is_more_than_its_bin_and_a_home_is_not_one() {
        let path = "/usr/bin:/users/u/.pyenv/shims:/users/u/bin:/users/u/.local/bin:/bin:relative/bin:/srv/tools";
        let places = installed(path.as_ref(), Some("/users/u".as_ref()));
        let places: Vec<&str> = places.iter().map(|place| place.to_str().unwrap()).collect();
        assert!(places.contains(&"/users/u/.pyenv") && places.contains(&"/srv/tools"), "{places:?}");
        assert!(places.contains(&"/users/u/bin") && places.contains(&"/users/u/.local/lib"), "{places:?}");
        for closed in ["/", "/users/u", "/users/u/.local", "/srv", "relative"] {
            assert!(!places.contains(&closed), "{closed}");
        }
    }

    #[test]
    fn packages_are_looked_for_in_the_directories_above() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["app/node_modules/x", "app/src/deep", "node_modules/y", "other/node_modules"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("app/package.json"), "{}").unwrap();
        let places = ["app/src/deep", "app/src", "missing"].map(|place| root.join(place));
        let mut found = packages_above(places.into_iter());
        found.retain(|path| path.starts_with(&root));
        let expected = ["app/node_modules", "app/package.json", "node_modules"].map(|path| root.join(path));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_script_opens_its_directory_and_a_bare_word_nothing() {
        let root = tempfile::tempdir().unwrap();
        let script = root.path().join("app.py");
        fs::write(&script, "").unwrap();
        let command = ["python3".into(), script.into_os_string(), "sh".into(), "/missing/x".into()];
        assert_eq!(named_by(&command), [root.path()]);
    }
}
