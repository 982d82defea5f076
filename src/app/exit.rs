//! How the command ends.

use std::process::ExitCode;

/// The exit codes, from `sysexits.h` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// 0: it did what it was asked, or was stopped.
    Clean,
    /// 1: no running daemon answers, or it refuses what was asked of it.
    Unanswered,
    /// 64: the command line is wrong.
    Usage,
    /// 69: the gateway refused us for good; the message says which of eviction, unknown namespace or bad token.
    Refused,
    /// 70: something broke that is not the user's doing.
    Internal,
    /// 78: settings are wrong.
    Misconfigured,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Unanswered => 1,
            Exit::Usage => 64,
            Exit::Refused => 69,
            Exit::Internal => 70,
            Exit::Misconfigured => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
