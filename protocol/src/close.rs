//! Why a gateway closed a connection: `group.code#ray`, cut to 123 bytes.

use std::fmt;

/// The other end gives the key to another connection, or has drained us. Do not come back.
pub const EVICTION: &str = "ws.eviction";
/// The gateway shuts down. Come back at once.
pub const GOING_AWAY: &str = "ws.going_away";
/// What a runner says when it leaves on purpose.
pub const RUNNER_SHUTDOWN: &str = "pegboard.runner_shutdown";

/// The longest close reason a WebSocket carries, in bytes.
pub const REASON_MAX: usize = 123;

/// A parsed close reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReason {
    /// Which part of the gateway speaks, for example `ws`.
    pub group: String,
    /// What happened, for example `eviction`.
    pub code: String,
    /// The gateway's id of this incident, to quote in a report.
    pub ray: Option<String>,
}

impl CloseReason {
    /// Reads a reason; anything is accepted, a text without a dot is all group.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (name, ray) = match text.split_once('#') {
            Some((name, "")) => (name, None),
            Some((name, ray)) => (name, Some(ray.to_owned())),
            None => (text, None),
        };
        let (group, code) = name.split_once('.').unwrap_or((name, ""));
        CloseReason { group: group.to_owned(), code: code.to_owned(), ray }
    }

    /// Whether this is the named reason, such as [`EVICTION`].
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        name.split_once('.').is_some_and(|(group, code)| self.group == group && self.code == code)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.group)?;
        if !self.code.is_empty() {
            write!(f, ".{}", self.code)?;
        }
        Ok(())
    }
}

/// Cuts a reason to what a close frame carries, at a character boundary.
#[must_use]
pub fn clip(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// A close code that every client takes: the given one, or 1000 when some would answer it with a protocol error.
/// That is any code that may not stand in a close frame, and 1014, which is registered but not known to all.
#[must_use]
pub fn sendable_code(code: Option<u16>) -> u16 {
    match code {
        Some(code @ (1000..=1003 | 1007..=1013 | 3000..=4999)) => code,
        Some(_) | None => 1000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reason_splits_into_group_code_and_ray() {
        let reason = CloseReason::parse("ws.eviction#abc123");
        assert!(reason.is(EVICTION));
        assert_eq!(reason.ray.as_deref(), Some("abc123"));
        assert_eq!(reason.to_string(), "ws.eviction");
        assert_eq!(CloseReason::parse(""), CloseReason::default());
        assert_eq!(CloseReason::parse("bye").group, "bye");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "é".repeat(100);
        assert_eq!(clip(&reason).len(), 122);
        assert_eq!(clip("short"), "short");
    }

    #[test]
    fn codes_that_break_a_client_become_1000() {
        assert_eq!(sendable_code(None), 1000);
        for code in 0..=u16::MAX {
            let sent = sendable_code(Some(code));
            let breaks =
                code < 1000 || [1004, 1005, 1006].contains(&code) || (1014..3000).contains(&code) || code >= 5000;
            assert_eq!(sent, if breaks { 1000 } else { code });
        }
    }

    #[test]
    fn a_reason_may_look_like_anything() {
        for (text, group, code, ray) in [
            ("ws.eviction#", "ws", "eviction", None),
            ("#ray", "", "", Some("ray")),
            (".", "", "", None),
            ("a.b.c#d#e", "a", "b.c", Some("d#e")),
            ("a#b.c", "a", "", Some("b.c")),
        ] {
            let reason = CloseReason::parse(text);
            assert_eq!((&*reason.group, &*reason.code, reason.ray.as_deref()), (group, code, ray), "{text}");
        }
    }

    #[test]
    fn only_the_whole_name_is_the_reason() {
        for other in ["ws", "ws.evictions", "ws.", ".eviction", "guard.eviction", "ws.eviction.x", ""] {
            assert!(!CloseReason::parse(other).is(EVICTION), "{other}");
        }
        assert!(!CloseReason::parse("ws").is("ws"), "a name has a group and a code");
    }

    proptest! {
        #[test]
        fn a_cut_reason_is_the_longest_beginning_that_fits(reason in "\\PC{0,140}") {
            let cut = clip(&reason);
            prop_assert!(reason.starts_with(cut) && cut.len() <= REASON_MAX);
            let next = reason[cut.len()..].chars().next();
            prop_assert!(next.is_none_or(|next| cut.len() + next.len_utf8() > REASON_MAX));
        }

        #[test]
        fn a_parsed_reason_reads_the_same_without_its_ray(
            group in "[a-z]{1,9}",
            code in "[a-z_.]{1,9}",
            ray in "[a-z0-9]{1,30}",
        ) {
            let name = format!("{group}.{code}");
            let reason = CloseReason::parse(&format!("{name}#{ray}"));
            prop_assert!(reason.is(&name));
            prop_assert_eq!(reason.to_string(), name);
            prop_assert_eq!(reason.ray, Some(ray));
        }
    }
}
