//! What the commands work with: settings whose types are already right.

mod traces;

pub use traces::TraceSettings;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom_protocol::Version;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::config::actors_file::{ActorsFile, EgressDefinition};
use crate::config::reader::Reader;
use crate::config::secret::{self, Privacy, SecretFile};
use crate::config::suggest::closest;
use crate::config::{ActorDefinition, Endpoint, Id, Mistake, Mistakes, Origin, Rate, Values, actors_file, units};

/// The settings of `greenroom run`.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// The gateway.
    pub endpoint: Endpoint,
    /// The namespace at the gateway.
    pub namespace: String,
    /// What the gateway wants to see.
    pub token: Option<SecretString>,
    /// The pool.
    pub runner_name: String,
    /// The identity in the pool; without one, [`runner_key::load_or_create`](crate::config::runner_key) has it.
    pub runner_key: Option<String>,
    /// The version of the actors.
    pub runner_version: u32,
    /// Actors at once; at least 1.
    pub slots: u32,
    /// The protocol version to speak.
    pub protocol_version: Version,
    /// The actors of the actors file and of `--actor`, in the order of their names.
    pub actors: Vec<ActorDefinition>,
    /// The servers that actors may call.
    pub egress: Vec<EgressDefinition>,
    /// Who is told how the runner is doing.
    pub report: Option<ReportSettings>,
    /// Actors may run as root.
    pub allow_root: bool,
    /// The files that are the runner's own: the actors file, tokens. Absolute.
    pub own_files: Vec<PathBuf>,
    /// Where state is kept; absolute, need not exist.
    pub data_dir: PathBuf,
    /// Where sockets are made; absolute, need not exist.
    pub runtime_dir: PathBuf,
    /// The admin address.
    pub admin: AdminSettings,
    /// Where actors reach their API; a loopback address.
    pub api: SocketAddr,
    /// How long stopping may take; longer than any actor's stop grace.
    pub drain_timeout: Duration,
    /// Logs.
    pub log: LogSettings,
}

/// A control plane that is told how the runner is doing.
#[derive(Clone, Debug)]
pub struct ReportSettings {
    /// Its base; the state goes to `/worker` below it.
    pub url: Endpoint,
    /// The bearer token for it.
    pub token: Option<SecretFile>,
}

/// The settings of `greenroom gateway`.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The gateway's address; beyond loopback only with a token, or when the user insists.
    pub listen: SocketAddr,
    /// What the API's callers and the runners must show.
    pub admin_token: Option<SecretString>,
    /// How long a runner may be away before its actors are given up.
    pub runner_lost_after: Duration,
    /// How many requests a client may send in a time; nothing when it is off.
    pub rate_limit: Option<Rate>,
    /// Clients on this machine are counted as well: whoever says a limit means it.
    pub rate_limit_on_loopback: bool,
    /// How many requests a client may have in flight.
    pub in_flight_limit: u32,
    /// Names beside those of this machine that the API may be called by without a token, `*` for any.
    pub allowed_hosts: Vec<String>,
    /// Where state is kept; absolute, need not exist.
    pub data_dir: PathBuf,
    /// Logs.
    pub log: LogSettings,
}

/// The settings of `greenroom dev`.
#[derive(Clone, Debug)]
pub struct DevSettings {
    /// The gateway's half.
    pub gateway: GatewaySettings,
    /// The runner's half. Its endpoint is the gateway's address, but for a port 0 that only the listener knows; its
    /// token is the gateway's.
    pub run: RunSettings,
}

/// Where and how a runner is asked how it does.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// The address; nothing when it is off.
    pub address: Option<SocketAddr>,
    /// The user named the address, so that nothing but that address will do.
    pub insisted: bool,
    /// What callers over the address must present to change something; without it nobody can.
    pub write_token: Option<SecretString>,
}

/// How to find a running daemon.
#[derive(Clone, Debug)]
pub struct AskSettings {
    /// The address on the command line: nothing else is tried.
    pub named: Option<String>,
    /// The Unix socket of a daemon with these settings.
    pub socket: PathBuf,
    /// The address of a daemon with these settings; nothing when it is off.
    pub address: Option<SocketAddr>,
    /// The token for changes over an address.
    pub write_token: Option<SecretString>,
}

/// How to log, and where traces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What to log.
    pub filter: LogFilter,
    /// In which form.
    pub format: LogFormat,
    /// Who is told of traces.
    pub traces: Option<TraceSettings>,
}

/// A log filter that is known to parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// The form of log records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object per line, for machines.
    Json,
    /// Text on a terminal, records of the journal when stderr is the journal, else JSON.
    #[default]
    Auto,
}

impl RunSettings {
    /// Reads all of them.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn new(values: &Values) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(values);
        let token = runner_token(&mut reader);
        let settings = Self::read(&mut reader, token);
        reader.mistakes.unless_any(settings)
    }

    fn read(reader: &mut Reader<'_>, token: Option<SecretString>) -> Self {
        let data_dir = data_dir(reader);
        let drain_timeout = drain_timeout(reader);
        let runtime_dir = runtime_dir(reader, &data_dir);
        let length = runtime_dir.as_os_str().len();
        if length > RUNTIME_DIR_MAX {
            let says = format!(
                "{} has {length} bytes, and sockets in it allow at most {RUNTIME_DIR_MAX}: give a shorter one",
                runtime_dir.display()
            );
            reader.mistake_at(Id::RuntimeDir, &says);
        }
        let ActorsFile { actors, egress } = actors(reader, drain_timeout);
        RunSettings {
            endpoint: reader.endpoint(Id::Endpoint),
            namespace: reader.name(Id::Namespace),
            token,
            runner_name: reader.name(Id::RunnerName),
            runner_key: reader.optional_name(Id::RunnerKey),
            runner_version: reader.count(Id::RunnerVersion),
            slots: reader.count(Id::Slots),
            protocol_version: protocol_version(reader),
            actors,
            egress,
            report: report(reader),
            allow_root: reader.switch(Id::AllowRoot),
            own_files: own_files(reader),
            runtime_dir,
            data_dir,
            admin: AdminSettings::read(reader),
            api: api(reader),
            drain_timeout,
            log: LogSettings::read(reader),
        }
    }
}

impl GatewaySettings {
    /// Reads all of them.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn new(values: &Values) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(values);
        let settings = Self::read(&mut reader);
        reader.mistakes.unless_any(settings)
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let listen = reader.address(Id::Listen);
        let insecure = reader.switch(Id::Insecure);
        let guarded = insecure || !reader.values.given(Id::AdminTokenFile).is_empty();
        if !listen.ip().is_loopback() && !guarded {
            reader.mistake_at(
                Id::Listen,
                "beyond loopback anyone could use the gateway: give it an --admin-token-file, or say --insecure if the \
                 network is trusted",
            );
        }
        let admin_token = token_file(reader, Id::AdminTokenFile);
        GatewaySettings {
            listen,
            admin_token,
            runner_lost_after: reader.duration(Id::RunnerLostAfter),
            rate_limit: reader.rate_or_off(Id::RateLimit),
            rate_limit_on_loopback: !reader.values.given(Id::RateLimit).is_empty(),
            in_flight_limit: reader.count(Id::InFlightLimit),
            allowed_hosts: reader.hosts(Id::AllowedHosts),
            data_dir: data_dir(reader),
            log: LogSettings::read(reader),
        }
    }
}

impl DevSettings {
    /// Reads all of them.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn new(values: &Values) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(values);
        let gateway = GatewaySettings::read(&mut reader);
        let mut run = RunSettings::read(&mut reader, gateway.admin_token.clone());
        run.endpoint = Endpoint::of_listener(gateway.listen);
        // To try things out nobody needs another user.
        run.allow_root = true;
        reader.mistakes.unless_any(DevSettings { gateway, run })
    }
}

impl AdminSettings {
    /// The name of the Unix socket in the runtime directory.
    pub const SOCKET: &str = "admin.sock";

    fn read(reader: &mut Reader<'_>) -> Self {
        AdminSettings {
            address: reader.address_or_off(Id::Admin),
            insisted: !reader.values.given(Id::Admin).is_empty(),
            write_token: token_file(reader, Id::AdminWriteTokenFile),
        }
    }
}

impl AskSettings {
    /// Reads them from what was said for a daemon.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn new(values: &Values) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(values);
        let given = values.given(Id::Admin).first();
        let named = given.filter(|value| value.origin == Origin::Flag).map(|value| value.text.clone());
        let address = if named.is_none() { reader.address_or_off(Id::Admin) } else { None };
        let data_dir = data_dir(&mut reader);
        let socket = runtime_dir(&mut reader, &data_dir).join(AdminSettings::SOCKET);
        let write_token = token_file(&mut reader, Id::AdminWriteTokenFile);
        reader.mistakes.unless_any(AskSettings { named, socket, address, write_token })
    }
}

/// Reads the settings of `run` and of `gateway` at once, from values that were collected for both.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn check(values: &Values) -> Result<(RunSettings, GatewaySettings), Mistakes> {
    let mut reader = Reader::new(values);
    let token = runner_token(&mut reader);
    let settings = (RunSettings::read(&mut reader, token), GatewaySettings::read(&mut reader));
    reader.mistakes.unless_any(settings)
}

impl LogSettings {
    fn read(reader: &mut Reader<'_>) -> Self {
        let format = match reader.choice(Id::LogFormat) {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        };
        let traces = TraceSettings::read(reader);
        LogSettings { filter: reader.required(Id::Log, Self::filter_of), format, traces }
    }

    /// Parses a log filter.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn filter_of(text: &str) -> Result<LogFilter, String> {
        let expected = format!("expected {}", Id::Log.setting().kind.expected());
        if text.trim().is_empty() {
            return Err(expected);
        }
        // A misspelt level parses as a target of that name, and then nothing is logged.
        for word in text.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', ':'])) {
            let known = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
            if let Some(level) = closest(&word.to_lowercase(), LEVELS).filter(|_| !known) {
                return Err(format!("{word:?} is no level (did you mean {level}?)"));
            }
        }
        // So does any other word: alone it silences everything that there is to be told.
        let says_nothing = |word: &str| {
            let known = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
            !known && !word.contains(['=', '[', ':']) && word != "greenroom"
        };
        if text.split(',').map(str::trim).all(says_nothing) {
            return Err(format!("{text:?} is no level; for the records of one part write {}=debug", text.trim()));
        }
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(LogFilter(text.to_owned())),
            Err(error) => Err(format!("{expected}: {error}")),
        }
    }
}

impl LogFilter {
    /// The filter, ready for use.
    #[must_use]
    pub fn build(&self) -> EnvFilter {
        let filter = EnvFilter::new(&self.0);
        if self.0.contains(TOLD_TWICE) {
            return filter;
        }
        filter.add_directive(format!("{TOLD_TWICE}=off").parse().expect("a target and a level"))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// It calls every server that is not trusted an error. Whoever wanted to reach that server tells it, too, and says
/// which server it is.
const TOLD_TWICE: &str = "rustls_platform_verifier";

/// The runner's token: a file named by a flag, else the variable or a file named by one, else the service manager's.
fn runner_token(reader: &mut Reader<'_>) -> Option<SecretString> {
    let values = reader.values;
    let (file, token) = (values.given(Id::TokenFile).first(), values.given(Id::Token).first());
    let by_flag = file.is_some_and(|file| file.origin == Origin::Flag);
    if file.is_some() && token.is_some() && !by_flag {
        reader.mistakes.push(Mistake::new("GREENROOM_TOKEN", "expected only one of this and GREENROOM_TOKEN_FILE"));
    }
    if file.is_some() {
        return token_file(reader, Id::TokenFile);
    }
    if token.is_some() {
        return reader.optional(Id::Token, secret::parse);
    }
    let path = values.environment().directory(CREDENTIALS)?.join("token");
    // A unit that may or may not have a token gives an empty one.
    if std::fs::read(&path).map_or(true, |content| content.trim_ascii().is_empty()) {
        return None;
    }
    let token = secret::read(&path, Privacy::System);
    token.inspect_err(|error| reader.mistakes.push(Mistake::new(path.display().to_string(), error))).ok()
}

fn token_file(reader: &mut Reader<'_>, id: Id) -> Option<SecretString> {
    let values = reader.values;
    reader.optional(id, |text| {
        let path = values.absolute(text);
        secret::read(&path, privacy(values, &path))
    })
}

fn report(reader: &mut Reader<'_>) -> Option<ReportSettings> {
    let values = reader.values;
    let url = reader.optional(Id::ReportUrl, Endpoint::of_http);
    let token = reader.optional(Id::ReportTokenFile, |text| {
        let path = values.absolute(text);
        SecretFile::new(path.clone(), privacy(values, &path))
    });
    if values.given(Id::ReportUrl).is_empty() {
        if !values.given(Id::ReportTokenFile).is_empty() {
            reader.mistake_at(Id::ReportTokenFile, "a token without --report-url is for nobody");
        }
        return None;
    }
    Some(ReportSettings { url: url?, token })
}

/// Who may read a token file: the directory of credentials is the service manager's business.
fn privacy(values: &Values, path: &Path) -> Privacy {
    let credentials = values.environment().directory(CREDENTIALS);
    let protected = credentials.is_some_and(|directory| path.starts_with(directory));
    if protected { Privacy::System } else { Privacy::Owner }
}

/// What was named and is of no concern to actors.
fn own_files(reader: &Reader<'_>) -> Vec<PathBuf> {
    let ids = [Id::Actors, Id::TokenFile, Id::AdminWriteTokenFile, Id::ReportTokenFile, Id::AdminTokenFile];
    let given = ids.into_iter().flat_map(|id| reader.values.given(id));
    given.map(|value| reader.values.absolute(&value.text)).collect()
}

fn data_dir(reader: &mut Reader<'_>) -> PathBuf {
    let path = reader.path(Id::DataDir);
    if path.as_ref().is_some_and(|path| path.exists() && !path.is_dir()) {
        reader.mistake_at(Id::DataDir, "expected a directory, found a file");
    }
    path.or_else(|| reader.values.environment().directory("STATE_DIRECTORY"))
        .unwrap_or_else(|| reader.values.absolute(".greenroom"))
}

fn runtime_dir(reader: &mut Reader<'_>, data_dir: &Path) -> PathBuf {
    let given = reader.path(Id::RuntimeDir);
    given.or_else(|| reader.values.environment().directory("RUNTIME_DIRECTORY")).unwrap_or_else(|| data_dir.join("run"))
}

/// The drain timeout, which the service manager must let pass with some time to spare.
fn drain_timeout(reader: &mut Reader<'_>) -> Duration {
    let drain_timeout = reader.duration(Id::DrainTimeout);
    let stop_timeout = reader.optional(Id::StopTimeout, units::duration);
    if let Some(stop_timeout) = stop_timeout.filter(|stop| *stop <= drain_timeout + SPARE) {
        let says = format!(
            "the service manager kills the daemon after {}, and draining may take {} (--drain-timeout): leave it at least \
             {} more (TimeoutStopSec= of the unit), or drain for a shorter time",
            units::duration_text(stop_timeout),
            units::duration_text(drain_timeout),
            units::duration_text(SPARE),
        );
        reader.mistake_at(Id::StopTimeout, &says);
    }
    drain_timeout
}

fn protocol_version(reader: &mut Reader<'_>) -> Version {
    let number = reader.count(Id::ProtocolVersion);
    let version = u16::try_from(number).ok().and_then(|number| Version::try_from(number).ok());
    version.expect("the table's range is that of the versions, as a test shows")
}

fn api(reader: &mut Reader<'_>) -> SocketAddr {
    let address = reader.address(Id::Api);
    if !address.ip().is_loopback() {
        reader.mistake_at(Id::Api, "expected a loopback address: only actors on this machine use it");
    }
    address
}

fn actors(reader: &mut Reader<'_>, drain_timeout: Duration) -> ActorsFile {
    let values = reader.values;
    let mut defined = ActorsFile::default();
    if let Some(path) = reader.path(Id::Actors) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                // Messages name the file as the user did.
                let name = &values.given(Id::Actors)[0].text;
                let directory = path.parent().unwrap_or(&path);
                defined = actors_file::parse(&text, name, directory, drain_timeout, &mut reader.mistakes);
            }
            Err(error) => reader.mistake_at(Id::Actors, &format!("cannot be read: {error}")),
        }
    }
    let actors = &mut defined.actors;
    for value in values.given(Id::Actor) {
        match actors_file::short_form(&value.text, values.absolute("."), drain_timeout) {
            Ok(actor) if actors.iter().any(|other| other.name == actor.name) => {
                reader.mistake(Id::Actor.setting(), value, "there is another actor of this name");
            }
            Ok(actor) => actors.push(actor),
            Err(expected) => reader.mistake(Id::Actor.setting(), value, &expected),
        }
    }
    actors.sort_by(|one, other| one.name.cmp(&other.name));
    defined
}

/// What stopping takes above draining: the rest of the log, ending processes that do not yield.
const SPARE: Duration = Duration::from_secs(3);

/// The longest runtime directory, in bytes: the path of a socket has at most 107, and below the directory it needs 28.
const RUNTIME_DIR_MAX: usize = 79;

/// Where the service manager keeps credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[cfg(test)]
mod tests;
