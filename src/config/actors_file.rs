//! The actors file: which actors there are, and how each is run.
//!
//! A TOML file with a table per actor name. Every mistake in it is found in one reading and told with its line; a key
//! that exists nowhere is one, with a suggestion, and so is a key for something that is not built yet.

mod egress;
mod keys;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::config::reader::name;
use crate::config::{Mistakes, UpstreamUrl, units};
pub use egress::EgressDefinition;
use keys::{File, Section};
pub use user::SystemUser;

/// An actor: how the process that runs it is started, or where the servers are that do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorDefinition {
    /// The actor's name at the gateway.
    pub name: String,
    /// The program, then its arguments; empty when there are upstreams.
    pub command: Vec<String>,
    /// How many processes there are.
    pub process: ProcessPer,
    /// The servers that run it, instead of a process; empty when there is a command.
    pub upstream: Vec<UpstreamUrl>,
    /// The path of a health check of the upstreams.
    pub health: Option<String>,
    /// The working directory; absolute.
    pub cwd: PathBuf,
    /// Variables for the process; none of those that are given out by the runner.
    pub env: BTreeMap<String, String>,
    /// A file with more variables; absolute.
    pub env_file: Option<PathBuf>,
    /// Where the process listens.
    pub listen: Listen,
    /// Client sockets are handed to the process as they are; else their frames come as events.
    pub proxy_sockets: bool,
    /// How many events the actor is told at once; nothing for the host's default.
    pub concurrency: Option<u32>,
    /// Asks for sleep after this long without work; nothing for never.
    pub sleep_after: Option<Duration>,
    /// How long a start may take; nothing for the host's default.
    pub start_timeout: Option<Duration>,
    /// How long a stop may take; nothing for the host's default. Always less than the drain timeout.
    pub stop_grace: Option<Duration>,
    /// Its processes are each in a Landlock domain of their own, when the kernel has it.
    pub sandbox: bool,
    /// What they may read there beyond the usual; absolute.
    pub read_paths: Vec<PathBuf>,
    /// What they may write there beyond their own directories; absolute.
    pub write_paths: Vec<PathBuf>,
    /// Who the processes run as; nothing for the daemon's own user.
    pub user: Option<SystemUser>,
    /// The most memory of a process with all that it starts, in bytes.
    pub memory_max: Option<u64>,
    /// The most processes and threads at once.
    pub pids_max: Option<u32>,
    /// The names of the egresses that it may use; each is defined.
    pub egress: Vec<String>,
}

/// What an actors file defines.
#[derive(Clone, Debug, Default)]
pub struct ActorsFile {
    /// In the order of the file.
    pub actors: Vec<ActorDefinition>,
    /// In the order of the file.
    pub egress: Vec<EgressDefinition>,
}

/// How many processes the actors of a name have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessPer {
    /// Each actor has its own.
    #[default]
    Actor,
    /// One serves them all.
    Name,
}

/// Where an actor's process listens for requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// On a Unix socket.
    #[default]
    Unix,
    /// On a loopback port.
    Port,
    /// On an inherited file descriptor that already listens.
    Fd,
    /// Nowhere: it asks its API for requests and events.
    Pull,
}

/// Reads an actors file. `file` is its name in messages, `directory` what its paths are relative to.
///
/// Definitions with mistakes come out too, filled in with defaults: the mistakes decide whether anything starts.
pub fn parse(text: &str, file: &str, directory: &Path, drain_timeout: Duration, mistakes: &mut Mistakes) -> ActorsFile {
    let file = File::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut defined = ActorsFile::default();
    if errors.is_empty() {
        defined = read(&file, document.get_ref(), directory, drain_timeout);
    }
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        file.mistake(offset, "", error.message().trim().replace('\n', ", "));
    }
    file.mistakes().for_each(|mistake| mistakes.push(mistake));
    defined
}

fn read<'a>(file: &'a File<'a>, root: &'a DeTable<'a>, directory: &Path, drain: Duration) -> ActorsFile {
    let root = Section::new(file, root, String::new(), 0);
    root.refuse_unknown(&["actors", "egress"]);
    let egress = egress::read(file, &root, directory);
    let mut actors = Vec::new();
    for (key, value) in root.table("actors").into_iter().flatten() {
        let (offset, key) = (key.span().start, key.get_ref());
        let path = format!("actors.{}", key.escape_debug());
        if let Err(expected) = name(key) {
            file.mistake(offset, &path, expected);
        }
        match value.get_ref() {
            DeValue::Table(table) => {
                let section = Section::new(file, table, path, offset);
                let mut actor = actor(key, &section, directory, drain);
                actor.egress = egress::used(&section, &egress);
                actors.push(actor);
            }
            _ => file.mistake(offset, &path, format!("expected a table: [{path}]")),
        }
    }
    ActorsFile { actors, egress }
}

/// The actor of `NAME=COMMAND`: the command is for a shell.
///
/// # Errors
/// What was expected instead.
pub(crate) fn short_form(text: &str, cwd: PathBuf, drain_timeout: Duration) -> Result<ActorDefinition, String> {
    let (actor, command) = text.split_once('=').ok_or("expected NAME=COMMAND, like counter='node counter.mjs'")?;
    if command.trim().is_empty() || command.contains('\0') {
        return Err("expected a command after NAME=, like counter='node counter.mjs'".to_owned());
    }
    let command = ["sh", "-c", command].map(str::to_owned).to_vec();
    Ok(ActorDefinition {
        name: name(actor)?,
        command,
        process: ProcessPer::default(),
        upstream: Vec::new(),
        health: None,
        cwd,
        env: BTreeMap::new(),
        env_file: None,
        listen: Listen::default(),
        proxy_sockets: false,
        concurrency: None,
        sleep_after: None,
        start_timeout: None,
        stop_grace: fitting_grace(drain_timeout),
        sandbox: true,
        read_paths: Vec::new(),
        write_paths: Vec::new(),
        user: None,
        memory_max: None,
        pids_max: None,
        egress: Vec::new(),
    })
}

fn actor(name: &str, section: &Section<'_>, directory: &Path, drain_timeout: Duration) -> ActorDefinition {
    section.refuse_unknown(KEYS);
    for (key, built) in NOT_BUILT_KEYS {
        section.refuse_not_built_unless(key, built);
    }
    let command = section.command("command");
    if !section.has("command") && !section.has("upstream") {
        section.mistake_here("expected a command, like command = [\"node\", \"counter.mjs\"], or an upstream");
    }
    let (upstream, health) = upstream(section);
    let process = match section.choice("process", &["per-actor", "per-name"]) {
        Some("per-name") => ProcessPer::Name,
        Some(_) | None => ProcessPer::Actor,
    };
    let cwd = section.text("cwd").map_or_else(|| directory.to_owned(), |path| directory.join(path));
    if !cwd.is_dir() {
        section.mistake("cwd", "expected a directory");
    }
    let env_file = section.text("env_file").map(|path| directory.join(path));
    if env_file.as_ref().is_some_and(|path| !path.is_file()) {
        section.mistake("env_file", "expected a file");
    }
    let listen = match section.choice("listen", &["unix", "port", "fd", "pull"]) {
        Some("port") => Listen::Port,
        Some("fd") => Listen::Fd,
        Some("pull") => Listen::Pull,
        Some(_) | None => Listen::Unix,
    };
    if process == ProcessPer::Name && listen == Listen::Pull {
        section.mistake("listen", "expected unix, port or fd: with process = \"per-name\" the process must listen");
    }
    let proxy_sockets = section.choice("websocket", &["events", "proxy"]) == Some("proxy");
    if proxy_sockets && listen == Listen::Pull {
        section.mistake("websocket", "expected \"events\": an actor with listen = \"pull\" has no server for sockets");
    }
    let concurrency = section.count("concurrency", 1..=CONCURRENCY_MAX);
    let never = section.is_word("sleep_after", "never");
    let sleep_after = if never { None } else { section.duration("sleep_after") };
    if sleep_after.is_some_and(|after| after < SLEEP_AFTER_MIN) {
        section.mistake("sleep_after", "expected at least 1s, or \"never\"");
    }
    let start_timeout = section.duration("start_timeout");
    if start_timeout.is_some_and(|timeout| timeout.is_zero()) {
        section.mistake("start_timeout", "expected more than 0s");
    }
    let stop_grace = section.duration("stop_grace");
    if stop_grace.is_some_and(|grace| grace >= drain_timeout) {
        let drain = units::duration_text(drain_timeout);
        section
            .mistake("stop_grace", &format!("expected less than --drain-timeout ({drain}), or the actor is cut off"));
    }
    let sandbox = section.choice("sandbox", &["landlock", "off"]) != Some("off");
    let paths = |key| {
        let paths: Vec<PathBuf> = section.paths(key).into_iter().map(|path| directory.join(path)).collect();
        if !sandbox && !paths.is_empty() {
            section.mistake(key, "without a sandbox nothing is closed, so there is nothing to open");
        }
        paths
    };
    let memory_max = section.size("memory_max");
    if memory_max.is_some_and(|bytes| bytes < MEMORY_MIN) {
        section.mistake("memory_max", "expected at least 1MiB");
    }
    ActorDefinition {
        name: name.to_owned(),
        command,
        process,
        upstream,
        health,
        cwd,
        env: env(section, listen),
        env_file,
        listen,
        proxy_sockets,
        concurrency,
        sleep_after,
        start_timeout,
        stop_grace: stop_grace.or_else(|| fitting_grace(drain_timeout)),
        sandbox,
        read_paths: paths("read_paths"),
        write_paths: paths("write_paths"),
        user: user::read(section),
        memory_max,
        pids_max: section.count("pids_max", 1..=PIDS_MAX),
        egress: Vec::new(),
    }
}

/// The servers that run the actor, and how they are looked after.
fn upstream(section: &Section<'_>) -> (Vec<UpstreamUrl>, Option<String>) {
    let health = section.text("health");
    if health.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(|c: char| !c.is_ascii_graphic())) {
        section.mistake("health", "expected a path, like \"/health\"");
    }
    if !section.has("upstream") {
        if section.has("health") {
            section.mistake("health", "only upstreams have a health check; a process is watched anyway");
        }
        return (Vec::new(), health);
    }
    if section.has("command") {
        section.mistake("upstream", "expected only one of command and upstream");
    }
    for key in OF_PROCESSES {
        if section.has(key) {
            section.mistake(key, "this is for a process that greenroom starts, and upstreams are not");
        }
    }
    let urls = section.texts("upstream", "a list of URLs, like [\"http://127.0.0.1:9000\"]");
    if urls.as_ref().is_some_and(|urls| urls.is_empty() || urls.len() > UPSTREAMS_MAX) {
        section.mistake("upstream", &format!("expected 1 to {UPSTREAMS_MAX} URLs"));
    }
    let mut upstream = Vec::new();
    for url in urls.unwrap_or_default() {
        match url.parse::<UpstreamUrl>() {
            Ok(url) if upstream.contains(&url) => section.mistake("upstream", &format!("{url} is there twice")),
            Ok(url) => upstream.push(url),
            Err(expected) => section.mistake("upstream", &format!("{:?}: {expected}", url)),
        }
    }
    (upstream, health)
}

fn env(section: &Section<'_>, listen: Listen) -> BTreeMap<String, String> {
    let variables = section.texts_by_name("env");
    for name in variables.keys() {
        let given_out = name.starts_with("ACTOR_")
            || name.starts_with("LISTEN_")
            || name == "TMPDIR"
            || (listen == Listen::Port && (name == "HOST" || name == "PORT"));
        if given_out {
            section.mistake_in("env", name, "this variable is set by greenroom");
        } else if name.is_empty() || name.contains(['=', '\0']) {
            section.mistake_in("env", name, "expected the name of a variable");
        } else if variables[name].contains('\0') {
            section.mistake_in("env", name, "expected text without NUL");
        }
    }
    variables
}

/// The stop grace of an actor that names none, when the host's default would not fit into the drain timeout.
fn fitting_grace(drain_timeout: Duration) -> Option<Duration> {
    (drain_timeout <= USUAL_GRACE).then(|| drain_timeout.mul_f64(0.8))
}

/// An actor that sleeps after less would do nothing else than start and stop.
const SLEEP_AFTER_MIN: Duration = Duration::from_secs(1);

/// More events at once than anybody means.
const CONCURRENCY_MAX: u32 = 10_000;

/// No program starts with less memory.
const MEMORY_MIN: u64 = 1 << 20;

/// The most process ids that Linux has.
const PIDS_MAX: u32 = 1 << 22;

/// Above this, the host's default for `stop_grace` (10 s) leaves enough time to tell the gateway.
const USUAL_GRACE: Duration = Duration::from_secs(11);

/// More servers than this belong behind a load balancer of their own.
const UPSTREAMS_MAX: usize = 64;

/// Keys that say how a process is run.
const OF_PROCESSES: &[&str] = &[
    "process",
    "cwd",
    "env",
    "env_file",
    "listen",
    "sandbox",
    "read_paths",
    "write_paths",
    "user",
    "memory_max",
    "pids_max",
];

/// Every key of an actor.
const KEYS: &[&str] = &[
    "command",
    "upstream",
    "health",
    "process",
    "cwd",
    "env",
    "env_file",
    "listen",
    "websocket",
    "concurrency",
    "sleep_after",
    "start_timeout",
    "stop_grace",
    "sandbox",
    "read_paths",
    "write_paths",
    "user",
    "memory_max",
    "pids_max",
    "workflows",
    "jobs",
    "jobs_tokens_file",
    "egress",
];

/// Keys whose feature is not built, and the values that need none of it. A feature that gets built deletes its line.
const NOT_BUILT_KEYS: &[(&str, &[&str])] = &[("workflows", &[]), ("jobs", &["false"]), ("jobs_tokens_file", &[])];

#[cfg(test)]
mod tests;
