//! Becoming another user for good.

use std::io;

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::thread::{CapabilitySet, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set};

use crate::config::SystemUser;

/// The user that a process becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// Whether this process can start others as other users, and can still reach and signal them then.
#[must_use]
pub fn may_change_user() -> bool {
    capabilities(None).is_ok_and(|own| own.effective.contains(NEEDED))
}

/// A user as an argument.
pub(super) fn word(user: &SystemUser) -> String {
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    format!("{}:{}:{}", user.uid, user.gid, groups.join(","))
}

impl Identity {
    /// Reads what [`word`] wrote.
    pub fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split(':');
        let (uid, gid, groups) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let groups = groups.split(',').filter(|group| !group.is_empty()).map(str::parse);
        let groups = groups.collect::<Result<_, _>>().ok()?;
        (uid != 0 && parts.next().is_none()).then_some(Identity { uid, gid, groups })
    }

    /// Makes this process one of this user, with no way back: what it executes has no powers either.
    pub fn assume(&self) -> io::Result<()> {
        for power in CapabilitySet::all().iter() {
            // While there is still the right to; a power that this kernel does not know is not there.
            let _ = remove_capability_from_bounding_set(power);
        }
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(Gid::from_raw(self.gid))?;
        setuid(Uid::from_raw(self.uid))?;
        // A daemon that is not root has its powers in this set, too, where they outlive a change of user.
        clear_ambient_capability_set()?;
        Ok(())
    }
}

/// What it takes: to become others, to give them their directories, to reach their sockets, and to end them.
const NEEDED: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::KILL);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_survives_its_way_to_the_launcher_and_root_is_none() {
        let user = SystemUser { name: "u".to_owned(), uid: 7, gid: 8, groups: vec![8, 9], home: "/".into() };
        assert_eq!(Identity::parse(&word(&user)), Some(Identity { uid: 7, gid: 8, groups: vec![8, 9] }));
        assert_eq!(Identity::parse("7:8:"), Some(Identity { uid: 7, gid: 8, groups: vec![] }));
        for wrong in ["", "0:0:0", "7:8", "7:8:9:10", "7:8:x", "u:8:9", "-1:8:9"] {
            assert_eq!(Identity::parse(wrong), None, "{wrong}");
        }
    }
}
