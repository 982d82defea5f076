//! Which cgroup this daemon may divide: the one it is in, when nobody else is in it and it can be written to.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, access};

use super::{PROCS, SUPERVISOR, processes};

/// The cgroup of the process whose `/proc` directory this is, as a directory. A part that a service manager or this
/// daemon itself has made of it for its processes is left out.
pub(super) fn own(process: &Path) -> Result<PathBuf, String> {
    let text = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let path =
        text.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this system has no cgroups of version 2")?;
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    let mut mounts = mounts.lines().filter_map(mount).map(|(root, place)| (Path::new(path).strip_prefix(root), place));
    let place = mounts.find_map(|(path, place)| Some(place.join(path.ok()?)));
    let place = place.filter(|place| !place.components().any(|part| part == Component::ParentDir));
    let place = place.ok_or_else(|| format!("its cgroup {path} is mounted nowhere"))?;
    let inner = place.file_name().is_some_and(|name| name == SUPERVISOR || name == CONTROL);
    Ok(place.parent().filter(|_| inner).unwrap_or(&place).to_owned())
}

/// Says why a cgroup cannot be divided.
pub(super) fn may_be_divided(base: &Path) -> Result<(), String> {
    let shown = base.display();
    if !base.join("cgroup.type").exists() {
        return Err(format!("the cgroup {shown} of this process is the root of all, which is nobody's own"));
    }
    let own = rustix::process::getpid();
    let others = |path: &Path| processes(path).into_iter().any(|process| process != own);
    if others(base) || others(&base.join(SUPERVISOR)) {
        return Err(format!("the cgroup {shown} of this process has other processes in it, too"));
    }
    let closed = |path: &Path| access(path, Access::WRITE_OK).is_err();
    if closed(base) || closed(&base.join(PROCS)) {
        return Err(format!("the cgroup {shown} of this process is not delegated: it cannot be written to"));
    }
    Ok(())
}

/// Says why a controller cannot be had.
pub(super) fn offers(base: &Path, controller: &str) -> Result<(), String> {
    let file = base.join("cgroup.controllers");
    let offered = fs::read_to_string(&file).unwrap_or_default();
    match offered.split_whitespace().any(|word| word == controller) {
        true => Ok(()),
        false => Err(format!("the {controller} controller is not in {}", file.display())),
    }
}

/// Root and place of a mount of cgroups of version 2.
fn mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(3);
    (right.split(' ').next() == Some("cgroup2"))
        .then(|| Some((unescaped(fields.next()?), unescaped(fields.next()?))))?
}

/// Undoes what the kernel does to spaces in paths: `\040`.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let (byte, after) = match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (byte, &after[3..]),
            None => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    OsString::from_vec(bytes).into()
}

/// What the kernel tells a process about itself.
pub(super) const PROCESS: &str = "/proc/self";

/// Where systemd puts the short processes of a delegated unit.
const CONTROL: &str = ".control";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_wherever_it_is_mounted() {
        let process = tempfile::tempdir().unwrap();
        let own = |cgroup: &str, mountinfo: &str| {
            fs::write(process.path().join("cgroup"), cgroup).unwrap();
            fs::write(process.path().join("mountinfo"), mountinfo).unwrap();
            own(process.path())
        };
        let usual = "21 1 0:5 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let found = |path: &str| Ok(PathBuf::from(path));
        assert_eq!(own("0::/system.slice/g.service\n", usual), found("/sys/fs/cgroup/system.slice/g.service"));
        assert_eq!(
            own("0::/system.slice/g.service/supervisor\n", usual),
            found("/sys/fs/cgroup/system.slice/g.service")
        );
        assert_eq!(own("0::/g.service/.control\n", usual), found("/sys/fs/cgroup/g.service"));
        assert_eq!(own("0::/\n", usual), found("/sys/fs/cgroup"));
        let hybrid = "8:pids:/x\n1:name=systemd:/x\n0::/x\n";
        assert_eq!(own(hybrid, "3 2 0:1 / /my\\040cgroups rw shared:4 - cgroup2 none rw\n"), found("/my cgroups/x"));
        let part = "3 2 0:1 /outer /sys/fs/cgroup rw - cgroup2 none rw\n";
        assert_eq!(own("0::/outer/inner\n", part), found("/sys/fs/cgroup/inner"));
        assert!(own("0::/../other\n", usual).unwrap_err().contains("mounted nowhere"));
        assert!(own("0::/elsewhere\n", part).unwrap_err().contains("mounted nowhere"));
        assert!(own("1:memory:/x\n", usual).unwrap_err().contains("version 2"));
    }
}
