//! The table of settings.

use std::fmt;
use std::time::Duration;

use greenroom_protocol::limits;

use crate::config::units::duration_text;

/// One setting: a row of the table that parsing, help, README and `config show` are made from.
#[derive(Debug)]
pub struct Setting {
    /// Which row.
    pub id: Id,
    /// The flag without its dashes; a secret has none, because command lines are visible to everyone.
    pub flag: Option<&'static str>,
    /// The environment variable; only the repeatable short forms have none.
    pub variable: Option<&'static str>,
    /// What a value looks like.
    pub kind: Kind,
    /// What holds when nothing is said.
    pub default: Fallback,
    /// The commands it is a setting of.
    pub commands: &'static [Command],
    /// What it takes for a new value to hold.
    pub reload: Reload,
    /// This version has it; otherwise giving it a value is refused.
    pub built: bool,
    /// What it is, in a line, for help and README.
    pub help: &'static str,
}

/// The name of a setting in code; the table is in this order.
#[expect(missing_docs, reason = "the table says what each of them is")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    Endpoint,
    Namespace,
    Token,
    TokenFile,
    RunnerName,
    RunnerKey,
    RunnerVersion,
    Slots,
    ProtocolVersion,
    Actors,
    Actor,
    DataDir,
    RuntimeDir,
    AllowRoot,
    Admin,
    AdminWriteTokenFile,
    Api,
    DrainTimeout,
    StopTimeout,
    ReportUrl,
    ReportTokenFile,
    Listen,
    AdminTokenFile,
    Insecure,
    RunnerLostAfter,
    RateLimit,
    InFlightLimit,
    AllowedHosts,
    Log,
    LogFormat,
    OtlpEndpoint,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The address of a gateway.
    Endpoint,
    /// The address of another server.
    Url,
    /// A name without control characters.
    Name,
    /// A whole number in this range.
    Count {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A duration in this range.
    Duration {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// A file that exists.
    File,
    /// A directory; created when it does not exist.
    Directory,
    /// An IP address and a port.
    Address,
    /// An IP address and a port, or `off`.
    AddressOrOff,
    /// A number of requests in a time, or `off`.
    RateOrOff,
    /// Names of hosts with commas between them, or `*`.
    Hosts,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A log filter.
    Filter,
    /// A token.
    Secret,
    /// On when the flag is there; the variable says `true` or `false`.
    Switch,
    /// `NAME=COMMAND`, repeatable.
    Actor,
}

/// What holds when nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This text, as if it had been written.
    Text(&'static str),
    /// Nothing, or something that has to be found out; in words.
    Words(&'static str),
}

/// The commands that take settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Gateway and runner in one process.
    Dev,
    /// The runner daemon.
    Run,
    /// The embedded gateway alone.
    Gateway,
}

/// What it takes for a new value to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The process must be started again.
    Restart,
    /// A reload is meant to be enough; see the table for whether it is built.
    Hangup,
}

impl Setting {
    /// Whether it is a setting of this command.
    #[must_use]
    pub fn applies_to(&self, command: Command) -> bool {
        self.commands.contains(&command)
    }

    /// It holds a secret or is one: its value is never shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }

    /// The name under which messages speak of it: the flag, or the variable when there is no flag.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.flag, self.variable) {
            (Some(flag), _) => format!("--{flag}"),
            (None, Some(variable)) => variable.to_owned(),
            (None, None) => format!("{:?}", self.id),
        }
    }
}

impl Id {
    /// Its row in the table.
    #[must_use]
    pub fn setting(self) -> &'static Setting {
        &SETTINGS[self as usize]
    }
}

impl Kind {
    /// The word that stands for a value in the help.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Endpoint | Kind::Url => "URL",
            Kind::Name => "NAME",
            Kind::Count { .. } => "N",
            Kind::Duration { .. } => "DURATION",
            Kind::File => "FILE",
            Kind::Directory => "DIR",
            Kind::Address => "ADDRESS",
            Kind::AddressOrOff => "ADDRESS|off",
            Kind::RateOrOff => "RATE|off",
            Kind::Hosts => "HOSTS",
            Kind::Choice(_) => "CHOICE",
            Kind::Filter => "FILTER",
            Kind::Secret => "TOKEN",
            Kind::Switch => "",
            Kind::Actor => "NAME=COMMAND",
        }
    }

    /// What a value is expected to be, as a phrase after "expected".
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Kind::Endpoint | Kind::Url => "a URL".to_owned(),
            Kind::Name => "a name".to_owned(),
            Kind::Count { min, max } => format!("a count from {min} to {max}"),
            Kind::Duration { min, max } => {
                format!("a duration from {} to {}, like 250ms, 30s or 5m", duration_text(min), duration_text(max))
            }
            Kind::File => "a file".to_owned(),
            Kind::Directory => "a directory".to_owned(),
            Kind::Address => "an IP address and a port, like 127.0.0.1:6420".to_owned(),
            Kind::AddressOrOff => "an IP address and a port, like 127.0.0.1:6490, or off".to_owned(),
            Kind::RateOrOff => "a number of requests in a time, like 10000/1m or 50/1s, or off".to_owned(),
            Kind::Hosts => "host names with commas between them, like example.com,gateway.internal, or *".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Filter => "a log filter like info or info,greenroom::session=debug".to_owned(),
            Kind::Secret => "a token".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Actor => "NAME=COMMAND".to_owned(),
        }
    }
}

impl Fallback {
    /// The default in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Fallback::Text(text) | Fallback::Words(text) => text,
        }
    }
}

impl Command {
    /// All of them, in the order of the help.
    pub const ALL: [Command; 3] = [Command::Dev, Command::Run, Command::Gateway];

    /// The word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Dev => "dev",
            Command::Run => "run",
            Command::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const RUN: &[Command] = &[Command::Run];
const GATEWAY: &[Command] = &[Command::Dev, Command::Gateway];
const RUNNER: &[Command] = &[Command::Dev, Command::Run];
const ALL: &[Command] = &Command::ALL;

const NONE: Fallback = Fallback::Words("–");

/// Long enough for anyone; keeps sums of durations far from their limits.
const AN_HOUR: Duration = Duration::from_secs(3600);

/// The table, in the order of [`Id`].
pub static SETTINGS: &[Setting] = &[
    Setting {
        id: Id::Endpoint,
        flag: Some("endpoint"),
        variable: Some("GREENROOM_ENDPOINT"),
        kind: Kind::Endpoint,
        default: Fallback::Text("http://127.0.0.1:6420"),
        commands: RUN,
        reload: Reload::Restart,
        built: true,
        help: "The gateway: http, https, ws or wss",
    },
    Setting {
        id: Id::Namespace,
        flag: Some("namespace"),
        variable: Some("GREENROOM_NAMESPACE"),
        kind: Kind::Name,
        default: Fallback::Text("default"),
        commands: RUN,
        reload: Reload::Restart,
        built: true,
        help: "The namespace at the gateway",
    },
    Setting {
        id: Id::Token,
        flag: None,
        variable: Some("GREENROOM_TOKEN"),
        kind: Kind::Secret,
        default: Fallback::Words("`$CREDENTIALS_DIRECTORY/token` when it exists"),
        commands: RUN,
        reload: Reload::Restart,
        built: true,
        help: "The runner's token; as a variable only, because command lines are visible to everyone",
    },
    Setting {
        id: Id::TokenFile,
        flag: Some("token-file"),
        variable: Some("GREENROOM_TOKEN_FILE"),
        kind: Kind::File,
        default: NONE,
        commands: RUN,
        reload: Reload::Restart,
        built: true,
        help: "A file with the runner's token, readable by its owner only",
    },
    Setting {
        id: Id::RunnerName,
        flag: Some("runner-name"),
        variable: Some("GREENROOM_RUNNER_NAME"),
        kind: Kind::Name,
        default: Fallback::Text("default"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "The pool that actors are matched to",
    },
    Setting {
        id: Id::RunnerKey,
        flag: Some("runner-key"),
        variable: Some("GREENROOM_RUNNER_KEY"),
        kind: Kind::Name,
        default: Fallback::Words("a random id kept in the data directory"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "The identity of this runner in its pool",
    },
    Setting {
        id: Id::RunnerVersion,
        flag: Some("runner-version"),
        variable: Some("GREENROOM_RUNNER_VERSION"),
        kind: Kind::Count { min: 0, max: u32::MAX },
        default: Fallback::Text("1"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "The version of this runner's actors; new actors go to the highest in the pool",
    },
    Setting {
        id: Id::Slots,
        flag: Some("slots"),
        variable: Some("GREENROOM_SLOTS"),
        kind: Kind::Count { min: 1, max: limits::SLOTS_MAX },
        default: Fallback::Text("1000"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "Actors at once, 1 to 4,000,000",
    },
    Setting {
        id: Id::ProtocolVersion,
        flag: Some("protocol-version"),
        variable: Some("GREENROOM_PROTOCOL_VERSION"),
        kind: Kind::Count { min: 4, max: 7 },
        default: Fallback::Text("7"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "The version of the runner protocol, 4 to 7",
    },
    Setting {
        id: Id::Actors,
        flag: Some("actors"),
        variable: Some("GREENROOM_ACTORS"),
        kind: Kind::File,
        default: NONE,
        commands: RUNNER,
        reload: Reload::Hangup,
        built: true,
        help: "The actors file (TOML)",
    },
    Setting {
        id: Id::Actor,
        flag: Some("actor"),
        variable: None,
        kind: Kind::Actor,
        default: NONE,
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "An actor as a child process, by a shell command; repeatable. Write `exec` before the last of several \
               commands so that it gets the signals",
    },
    Setting {
        id: Id::DataDir,
        flag: Some("data-dir"),
        variable: Some("GREENROOM_DATA_DIR"),
        kind: Kind::Directory,
        default: Fallback::Words("`$STATE_DIRECTORY` or `./.greenroom`"),
        commands: ALL,
        reload: Reload::Restart,
        built: true,
        help: "Where state is kept",
    },
    Setting {
        id: Id::RuntimeDir,
        flag: Some("runtime-dir"),
        variable: Some("GREENROOM_RUNTIME_DIR"),
        kind: Kind::Directory,
        default: Fallback::Words("`$RUNTIME_DIRECTORY` or `run` in the data directory"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "Where sockets are made",
    },
    Setting {
        id: Id::AllowRoot,
        flag: Some("allow-root"),
        variable: Some("GREENROOM_ALLOW_ROOT"),
        kind: Kind::Switch,
        default: Fallback::Text("false"),
        commands: RUN,
        reload: Reload::Restart,
        built: true,
        help: "Let actors run as root: without it a runner that is root refuses to start their processes",
    },
    Setting {
        id: Id::Admin,
        flag: Some("admin"),
        variable: Some("GREENROOM_ADMIN"),
        kind: Kind::AddressOrOff,
        default: Fallback::Text("127.0.0.1:6490"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "The admin address; off for none. The socket `admin.sock` in the runtime directory serves the same",
    },
    Setting {
        id: Id::AdminWriteTokenFile,
        flag: Some("admin-write-token-file"),
        variable: Some("GREENROOM_ADMIN_WRITE_TOKEN_FILE"),
        kind: Kind::File,
        default: NONE,
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "A file with the bearer token that lets callers change something over the admin address; without one it \
               can only be read",
    },
    Setting {
        id: Id::Api,
        flag: Some("api"),
        variable: Some("GREENROOM_API"),
        kind: Kind::Address,
        default: Fallback::Text("127.0.0.1:0"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "Where actors reach their API; a loopback address, port 0 for any",
    },
    Setting {
        id: Id::DrainTimeout,
        flag: Some("drain-timeout"),
        variable: Some("GREENROOM_DRAIN_TIMEOUT"),
        kind: Kind::Duration { min: Duration::ZERO, max: AN_HOUR },
        default: Fallback::Text("12s"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "How long stopping may take; on a real engine the hard limit is about 15 s",
    },
    Setting {
        id: Id::StopTimeout,
        flag: Some("stop-timeout"),
        variable: Some("GREENROOM_STOP_TIMEOUT"),
        kind: Kind::Duration { min: Duration::ZERO, max: AN_HOUR },
        default: Fallback::Words("not checked"),
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "When the service manager kills what has not stopped; only compared with `--drain-timeout`",
    },
    Setting {
        id: Id::ReportUrl,
        flag: Some("report-url"),
        variable: Some("GREENROOM_REPORT_URL"),
        kind: Kind::Url,
        default: NONE,
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "The control plane's base; state goes to `PUT {url}/worker`",
    },
    Setting {
        id: Id::ReportTokenFile,
        flag: Some("report-token-file"),
        variable: Some("GREENROOM_REPORT_TOKEN_FILE"),
        kind: Kind::File,
        default: NONE,
        commands: RUNNER,
        reload: Reload::Restart,
        built: true,
        help: "A file with the bearer token for the control plane, read again for every report",
    },
    Setting {
        id: Id::Listen,
        flag: Some("listen"),
        variable: Some("GREENROOM_LISTEN"),
        kind: Kind::Address,
        default: Fallback::Text("127.0.0.1:6420"),
        commands: GATEWAY,
        reload: Reload::Restart,
        built: true,
        help: "The gateway's address",
    },
    Setting {
        id: Id::AdminTokenFile,
        flag: Some("admin-token-file"),
        variable: Some("GREENROOM_ADMIN_TOKEN_FILE"),
        kind: Kind::File,
        default: NONE,
        commands: GATEWAY,
        reload: Reload::Restart,
        built: true,
        help: "A file with the token that the gateway's API (as bearer) and its runners must show",
    },
    Setting {
        id: Id::Insecure,
        flag: Some("insecure"),
        variable: Some("GREENROOM_INSECURE"),
        kind: Kind::Switch,
        default: Fallback::Text("false"),
        commands: GATEWAY,
        reload: Reload::Restart,
        built: true,
        help: "Let the gateway listen beyond loopback without an admin token",
    },
    Setting {
        id: Id::RunnerLostAfter,
        flag: Some("runner-lost-after"),
        variable: Some("GREENROOM_RUNNER_LOST_AFTER"),
        kind: Kind::Duration { min: Duration::from_millis(100), max: AN_HOUR },
        default: Fallback::Text("15s"),
        commands: GATEWAY,
        reload: Reload::Restart,
        built: true,
        help: "How long a runner may be away before its actors are given up",
    },
    Setting {
        id: Id::RateLimit,
        flag: Some("rate-limit"),
        variable: Some("GREENROOM_RATE_LIMIT"),
        kind: Kind::RateOrOff,
        default: Fallback::Text("10000/1m"),
        commands: GATEWAY,
        reload: Reload::Restart,
        built: true,
        help: "How many requests a client may send in a time, by IP address; clients on loopback are counted only when \
               this is given",
    },
    Setting {
        id: Id::InFlightLimit,
        flag: Some("in-flight-limit"),
        variable: Some("GREENROOM_IN_FLIGHT_LIMIT"),
        kind: Kind::Count { min: 1, max: 1_000_000 },
        default: Fallback::Text("2000"),
        commands: GATEWAY,
        reload: Reload::Restart,
        built: true,
        help: "How many requests a client that is counted may have in flight, 1 to 1,000,000",
    },
    Setting {
        id: Id::AllowedHosts,
        flag: Some("allowed-hosts"),
        variable: Some("GREENROOM_ALLOWED_HOSTS"),
        kind: Kind::Hosts,
        default: Fallback::Words("names of this machine"),
        commands: GATEWAY,
        reload: Reload::Restart,
        built: true,
        help: "What a gateway on loopback without a token may be called by, in `Host` and by pages in `Origin`, for its \
               API and runners; `*` for anything",
    },
    Setting {
        id: Id::Log,
        flag: Some("log"),
        variable: Some("GREENROOM_LOG"),
        kind: Kind::Filter,
        default: Fallback::Text("info"),
        commands: ALL,
        reload: Reload::Hangup,
        built: true,
        help: "The log filter: a level, or levels by target",
    },
    Setting {
        id: Id::LogFormat,
        flag: Some("log-format"),
        variable: Some("GREENROOM_LOG_FORMAT"),
        kind: Kind::Choice(&["text", "json", "auto"]),
        default: Fallback::Text("auto"),
        commands: ALL,
        reload: Reload::Restart,
        built: true,
        help: "text, json or auto: text on a terminal, the fields of the journal when stderr is the journal, else json",
    },
    Setting {
        id: Id::OtlpEndpoint,
        flag: Some("otlp-endpoint"),
        variable: Some("OTEL_EXPORTER_OTLP_ENDPOINT"),
        kind: Kind::Url,
        default: NONE,
        commands: ALL,
        reload: Reload::Restart,
        built: true,
        help: "Where traces go, by OTLP over HTTP; needs a build with the feature `otlp`",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_its_ids() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert_eq!(setting.id as usize, index, "{:?}", setting.id);
            assert!(std::ptr::eq(setting.id.setting(), setting));
        }
    }

    #[test]
    fn every_setting_can_be_said_and_no_name_is_used_twice() {
        let flags: Vec<_> = SETTINGS.iter().filter_map(|setting| setting.flag).collect();
        let variables: Vec<_> = SETTINGS.iter().filter_map(|setting| setting.variable).collect();
        for names in [flags, variables] {
            let unique: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len());
        }
        assert!(SETTINGS.iter().all(|setting| setting.flag.is_some() || setting.variable.is_some()));
    }

    #[test]
    fn a_secret_has_no_flag() {
        assert!(SETTINGS.iter().filter(|setting| setting.is_secret()).all(|setting| setting.flag.is_none()));
    }

    #[test]
    fn a_variable_is_the_flag_in_capitals() {
        for setting in SETTINGS.iter().filter(|setting| setting.id != Id::OtlpEndpoint) {
            let (Some(flag), Some(variable)) = (setting.flag, setting.variable) else { continue };
            assert_eq!(variable, format!("GREENROOM_{}", flag.to_uppercase().replace('-', "_")));
        }
    }
}
