//! How a process ended, for counting and for people.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::cgroup::Spent;
use crate::telemetry::metrics::ChildExit;

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Nothing when nobody could learn it.
    pub status: Option<ExitStatus>,
    /// By us.
    pub killed: bool,
    /// What its cgroup says, if it had one.
    pub spent: Option<Spent>,
}

impl End {
    /// The kind of end, for counting.
    pub fn kind(&self) -> ChildExit {
        let Some(status) = self.status else { return ChildExit::Unknown };
        match (status.code(), status.signal()) {
            (Some(0), _) => ChildExit::Ok,
            (Some(_), _) => ChildExit::Code,
            (None, Some(_)) if self.killed => ChildExit::Killed,
            (None, Some(signal)) if signal == Signal::KILL.as_raw() => ChildExit::Oom,
            (None, Some(_)) => ChildExit::Signal,
            (None, None) => ChildExit::Unknown,
        }
    }

    /// Whether it ended with code 0.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(status) = self.status else { return f.write_str("ended, nobody knows how") };
        match (status.code(), status.signal()) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => {
                write!(f, "was killed by signal {signal}")?;
                if let Some(name) = signal_name(signal) {
                    write!(f, " ({name})")?;
                }
                if signal != Signal::KILL.as_raw() || self.killed {
                    return Ok(());
                }
                match self.spent.and_then(|spent| Some((spent.out_of_memory?, spent.memory_max))) {
                    Some((true, Some(most))) => {
                        write!(f, ": out of memory, of which it may use {} (memory_max)", Bytes(most))
                    }
                    Some((true, None)) => {
                        f.write_str(": out of memory, by a limit that holds for more than this actor")
                    }
                    Some((false, _)) => f.write_str(", not by this runner and not for its memory"),
                    None => f.write_str(", not by this runner; running out of memory looks like this"),
                }
            }
            (None, None) => write!(f, "ended with {status}"),
        }
    }
}

/// A number of bytes in the largest unit of which it is a whole number.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.into_iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: [(Signal, &str); 12] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
    ];
    NAMES.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_its_code_or_signal() {
        let spent = |raw, killed, spent| End { status: Some(ExitStatus::from_raw(raw)), killed, spent }.to_string();
        let end = |raw, killed| spent(raw, killed, None);
        assert_eq!(end(3 << 8, false), "exited with code 3");
        assert_eq!(end(11, false), "was killed by signal 11 (SIGSEGV)");
        assert_eq!(end(9, true), "was killed by signal 9 (SIGKILL)");
        assert!(end(9, false).contains("memory"));
        assert_eq!(end(35, false), "was killed by signal 35");
        let memory = |out, most| Some(Spent { out_of_memory: Some(out), memory_max: most, pids_max: None });
        let told = spent(9, false, memory(true, Some(256 << 20)));
        assert!(told.ends_with("(SIGKILL): out of memory, of which it may use 256 MiB (memory_max)"), "{told}");
        assert!(spent(9, false, memory(true, None)).contains("out of memory"));
        assert!(spent(9, false, memory(false, Some(1))).ends_with("not for its memory"));
        assert_eq!(spent(9, true, memory(true, Some(1))), "was killed by signal 9 (SIGKILL)");
    }
}
