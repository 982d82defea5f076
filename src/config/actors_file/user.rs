//! Which user of the system a process runs as.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{self, User};

use super::keys::Section;

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemUser {
    /// Its name.
    pub name: String,
    /// Its id; never root's.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// All its groups.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: PathBuf,
}

/// The user that a section names with `user`.
pub(super) fn read(section: &Section<'_>) -> Option<SystemUser> {
    let name = section.text("user")?;
    find(&name).inspect_err(|says| section.mistake("user", says)).ok()
}

fn find(name: &str) -> Result<SystemUser, String> {
    let unknown = |error: &dyn std::fmt::Display| format!("the users of this system cannot be read: {error}");
    let user = match CString::new(name) {
        Ok(_) => User::from_name(name).map_err(|error| unknown(&error))?,
        Err(_) => None,
    };
    let user = user.ok_or("expected the name of a user of this system; there is none with this one")?;
    if user.uid.is_root() {
        return Err("expected a user without the rights of root".to_owned());
    }
    let login = CString::new(user.name.as_str()).map_err(|error| unknown(&error))?;
    let groups = unistd::getgrouplist(&login, user.gid).map_err(|error| unknown(&error))?;
    Ok(SystemUser {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(unistd::Gid::as_raw).collect(),
        home: user.dir,
    })
}
