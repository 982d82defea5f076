//! From the actors file to hosts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{error, info, warn};

use crate::api::{Api, Services};
use crate::app::Exit;
use crate::config::{ActorDefinition, Listen, Mistake, Mistakes, ProcessPer, RunSettings, SystemUser};
use crate::egress::Egress;
use crate::host::child_process::{self, Cgroups, ChildProcess, Isolation, Limits, Orphans, Roots, SharedProcess};
use crate::host::upstream::{self, Upstream};
use crate::host::{ActorHost, Doors};
use crate::socket::tls_connector;
use crate::telemetry::fields;

/// Where the actors of each name run.
type HostsByName = Vec<(String, Arc<dyn ActorHost>)>;

/// Where the actors of a runner run.
pub(super) struct Hosts {
    /// By actor name.
    pub(super) by_name: HostsByName,
    /// What the hosts were made from; a host stays when a reload brings the same again.
    definitions: Vec<ActorDefinition>,
    /// What the hosts keep from their processes beside what the definitions say.
    secrets: Vec<PathBuf>,
    /// The API that they tell their processes of; serves while this lives.
    api: Option<Api>,
    /// Where their processes get cgroups, or why nowhere.
    cgroups: Result<Cgroups, String>,
    /// What their processes leave behind, where no cgroup holds it.
    _orphans: Option<Orphans>,
    /// What the API passes calls on to.
    pub(super) services: Services,
}

impl Hosts {
    /// Hosts that need no API.
    #[cfg(feature = "gateway")]
    pub(super) fn in_process(by_name: HostsByName) -> Self {
        Hosts { by_name, ..Hosts::none(Services::default()) }
    }

    fn none(services: Services) -> Self {
        let cgroups = Err("nothing needs one".to_owned());
        let (by_name, definitions, secrets) = (Vec::new(), Vec::new(), Vec::new());
        Hosts { by_name, definitions, secrets, api: None, cgroups, _orphans: None, services }
    }
}

/// The hosts of the defined actors, with the API that they tell their processes of.
pub(super) async fn hosts(settings: &RunSettings) -> Result<Hosts, Exit> {
    with_services(settings, services(settings)?).await
}

async fn with_services(settings: &RunSettings, services: Services) -> Result<Hosts, Exit> {
    if settings.actors.is_empty() {
        return Ok(Hosts::none(services));
    }
    if as_root(settings)? {
        warn!("actors run as root; start the runner as a user of its own to keep them from the rest of the machine");
    }
    let api = Api::start_with(settings.api, &settings.runtime_dir, services.clone()).await.map_err(|error| {
        error!({ fields::ERROR } = %error, "the actor API does not serve");
        Exit::Misconfigured
    })?;
    let roots = roots(settings);
    // The API serves in the runtime directory, so no other runner does.
    child_process::end_leftovers(&roots);
    match child_process::landlock() {
        Some(kind) => {
            info!(kind, "each process of an actor is in a sandbox of its own, unless its definition says off")
        }
        None => warn!("this kernel has no Landlock: actors can read what this user can read"),
    }
    let cgroups = Cgroups::claim();
    match &cgroups {
        Ok(cgroups) => info!(%cgroups, "each process of an actor has a cgroup of its own"),
        Err(reason) => info!(reason, "processes of actors have no cgroups of their own: no memory_max, no pids_max"),
    }
    let orphans = cgroups.is_err().then(Orphans::adopt).transpose().unwrap_or_else(|error| {
        warn!({ fields::ERROR } = %error, "processes that leave the group of their actor are not found at its end");
        None
    });
    kept(&settings.actors, &cgroups)?;
    admit_users(&settings.actors, api.doors())?;
    let by_name = by_name(settings, &roots, api.doors(), &cgroups, None)?;
    let definitions = settings.actors.clone();
    let secrets = secrets(settings);
    Ok(Hosts { by_name, definitions, secrets, api: Some(api), cgroups, _orphans: orphans, services })
}

/// Makes the hosts those of other definitions; they go on telling their processes of the same API.
pub(super) async fn change(hosts: &mut Hosts, settings: &RunSettings) -> Result<(), Exit> {
    match &hosts.api {
        Some(api) => {
            as_root(settings)?;
            kept(&settings.actors, &hosts.cgroups)?;
            admit_users(&settings.actors, api.doors())?;
            hosts.by_name = by_name(settings, &roots(settings), api.doors(), &hosts.cgroups, Some(hosts))?;
            hosts.definitions.clone_from(&settings.actors);
            hosts.secrets = secrets(settings);
        }
        None => *hosts = with_services(settings, hosts.services.clone()).await?,
    }
    hosts.services.egress.redefine(settings.egress.clone(), used(settings)).map_err(|error| cannot_call(&error))
}

/// Which egresses the actors of each name may use.
fn used(settings: &RunSettings) -> BTreeMap<String, Vec<String>> {
    settings.actors.iter().map(|actor| (actor.name.clone(), actor.egress.clone())).collect()
}

fn cannot_call(error: &rustls::Error) -> Exit {
    error!({ fields::ERROR } = %error, "servers outside cannot be called");
    Exit::Internal
}

/// The files with the credentials of egresses.
fn secrets(settings: &RunSettings) -> Vec<PathBuf> {
    let files = settings.egress.iter().filter_map(|egress| egress.credential.as_ref());
    files.map(|file| file.path().to_owned()).collect()
}

fn roots(settings: &RunSettings) -> Roots {
    Roots { runtime: settings.runtime_dir.clone(), data: settings.data_dir.clone() }
}

/// The host of every actor name; one whose definition has not changed is kept, with the process or the servers that
/// its actors share.
fn by_name(
    settings: &RunSettings,
    roots: &Roots,
    doors: &Doors,
    cgroups: &Result<Cgroups, String>,
    before: Option<&Hosts>,
) -> Result<HostsByName, Exit> {
    let secrets = secrets(settings);
    let kept = |actor: &ActorDefinition| {
        let before = before.filter(|before| before.definitions.contains(actor) && before.secrets == secrets)?;
        before.by_name.iter().find(|(name, _)| *name == actor.name).cloned()
    };
    let made =
        |actor: &ActorDefinition| Ok((actor.name.clone(), host(actor, settings, roots, doors, cgroups.as_ref().ok())?));
    settings.actors.iter().map(|actor| kept(actor).map_or_else(|| made(actor), Ok)).collect()
}

fn host(
    actor: &ActorDefinition,
    settings: &RunSettings,
    roots: &Roots,
    doors: &Doors,
    cgroups: Option<&Cgroups>,
) -> Result<Arc<dyn ActorHost>, Exit> {
    let (roots, doors) = (roots.clone(), doors.clone());
    if actor.upstream.is_empty() {
        let settings = child_process(actor, settings, cgroups);
        return Ok(match actor.process {
            ProcessPer::Actor => Arc::new(ChildProcess::new(settings, roots, doors)),
            ProcessPer::Name => Arc::new(SharedProcess::new(settings, roots, doors)),
        });
    }
    let cannot = |error: &dyn std::fmt::Display| {
        error!(actor = actor.name, { fields::ERROR } = %error, "the upstreams of an actor cannot be used");
        Exit::Misconfigured
    };
    let tls = tls_connector().map_err(|error| cannot(&error))?;
    let upstream = Upstream::new(upstream(actor), doors, Some(&tls)).map_err(|error| cannot(&error))?;
    Ok(Arc::new(upstream))
}

/// Whether code of actors runs as root, which has to be allowed: its user keeps such a process away from nothing.
fn as_root(settings: &RunSettings) -> Result<bool, Exit> {
    let runs_code = settings.actors.iter().any(|actor| actor.upstream.is_empty() && actor.user.is_none());
    let as_root = runs_code && rustix::process::geteuid().is_root();
    if !as_root || settings.allow_root {
        return Ok(as_root);
    }
    error!(
        "actors do not run as root: start the runner as another user, name a user for every actor (user = \"…\" in the \
         actors file), or say --allow-root (GREENROOM_ALLOW_ROOT=true)"
    );
    Err(Exit::Misconfigured)
}

/// Lets the processes of other users reach the API, which asks everybody for a token.
fn admit_users(actors: &[ActorDefinition], doors: &Doors) -> Result<(), Exit> {
    if actors.iter().all(|actor| actor.user.is_none()) {
        return Ok(());
    }
    fs::set_permissions(&doors.unix, fs::Permissions::from_mode(0o666)).map_err(|error| {
        error!({ fields::ERROR } = %error, "the actor API cannot be opened to the users of actors");
        Exit::Internal
    })
}

/// What actors ask for that cannot be kept here, each with what to do.
pub(super) fn unkept(actors: &[ActorDefinition], cgroups: &Result<Cgroups, String>) -> Mistakes {
    let mut mistakes = Mistakes::default();
    for actor in actors {
        let limits = limits(actor);
        let missing = match cgroups {
            Ok(cgroups) => cgroups.missing(&limits),
            Err(why) => limits.key().map(|key| (key, why.as_str())),
        };
        if other_user(actor).is_some() && !child_process::may_change_user() {
            let says = "only a daemon that runs as root can start processes as other users";
            mistakes.push(Mistake::new(format!("actors.{}.user", actor.name), says));
        }
        if let Some((key, why)) = missing {
            let says = format!("{why}; start the daemon by a unit with {DELEGATE}, as greenroom-runner.service does");
            mistakes.push(Mistake::new(format!("actors.{}.{key}", actor.name), says));
        }
    }
    mistakes
}

fn kept(actors: &[ActorDefinition], cgroups: &Result<Cgroups, String>) -> Result<(), Exit> {
    let unkept = unkept(actors, cgroups);
    unkept.iter().for_each(|mistake| error!({ fields::ERROR } = %mistake, "what an actor asks for cannot be kept"));
    if unkept.is_empty() { Ok(()) } else { Err(Exit::Misconfigured) }
}

/// Who an actor runs as, when that is not the user of this process anyway.
fn other_user(actor: &ActorDefinition) -> Option<&SystemUser> {
    actor.user.as_ref().filter(|user| user.uid != rustix::process::geteuid().as_raw())
}

fn limits(actor: &ActorDefinition) -> Limits {
    Limits { memory_max: actor.memory_max, pids_max: actor.pids_max }
}

/// What actors may call through the API.
fn services(settings: &RunSettings) -> Result<Services, Exit> {
    let egress = Egress::new(settings.egress.clone(), used(settings)).map_err(|error| cannot_call(&error))?;
    Ok(Services { egress: Arc::new(egress), metadata: Arc::default() })
}

/// How to run a defined actor as a child process.
fn child_process(actor: &ActorDefinition, run: &RunSettings, cgroups: Option<&Cgroups>) -> child_process::Settings {
    let mut settings = child_process::Settings::new(actor.command.clone(), actor.cwd.clone());
    settings.env.clone_from(&actor.env);
    settings.env_file.clone_from(&actor.env_file);
    settings.listen = match actor.listen {
        Listen::Unix => child_process::Listen::Unix,
        Listen::Port => child_process::Listen::Port,
        Listen::Fd => child_process::Listen::Fd,
        Listen::Pull => child_process::Listen::Pull,
    };
    settings.websocket = websocket(actor);
    settings.sleep_after = actor.sleep_after;
    if actor.listen == Listen::Pull {
        // A program that asks does one thing at a time, and what waits for its turn is not late.
        settings.concurrency = 1;
    }
    if let Some(concurrency) = actor.concurrency {
        settings.concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
    }
    settings.start_timeout = actor.start_timeout.unwrap_or(settings.start_timeout);
    settings.stop_grace = actor.stop_grace.unwrap_or(settings.stop_grace);
    let places = [&run.data_dir, &run.runtime_dir];
    let files = run.own_files.iter().chain(&actor.env_file);
    settings.isolation = Some(Isolation {
        launcher: OWN_PROGRAM.into(),
        sandbox: actor.sandbox,
        hidden: places
            .into_iter()
            .chain(files)
            .cloned()
            .chain(secrets(run))
            .chain(KEPT_AWAY.iter().map(PathBuf::from))
            .collect(),
        read_paths: actor.read_paths.clone(),
        write_paths: actor.write_paths.clone(),
        user: other_user(actor).cloned(),
        cgroups: cgroups.cloned(),
        limits: limits(actor),
    });
    settings
}

/// How to run a defined actor on servers elsewhere.
fn upstream(actor: &ActorDefinition) -> upstream::Settings {
    let mut settings = upstream::Settings::new(actor.upstream.clone());
    settings.health.clone_from(&actor.health);
    settings.websocket = websocket(actor);
    settings.sleep_after = actor.sleep_after;
    if let Some(concurrency) = actor.concurrency {
        settings.concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
    }
    settings.start_timeout = actor.start_timeout.unwrap_or(settings.start_timeout);
    settings.stop_grace = actor.stop_grace.unwrap_or(settings.stop_grace);
    settings
}

fn websocket(actor: &ActorDefinition) -> child_process::WebSocketMode {
    if actor.proxy_sockets { child_process::WebSocketMode::Proxy } else { child_process::WebSocketMode::Events }
}

/// The actors with their commands or upstreams, a line each; for `config show`.
pub(super) fn list(actors: &[ActorDefinition]) -> String {
    let width = actors.iter().map(|actor| actor.name.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for actor in actors {
        // Writing to a string cannot fail.
        let _ = write!(lines, "\nactor {:width$}  ", actor.name);
        if actor.upstream.is_empty() {
            let _ = write!(lines, "{:?} in {}", actor.command, actor.cwd.display());
        } else {
            let urls: Vec<_> = actor.upstream.iter().map(ToString::to_string).collect();
            let _ = write!(lines, "at {}", urls.join(", "));
        }
        if actor.process == ProcessPer::Name {
            lines.push_str(", one process for all");
        }
        if let Some(user) = &actor.user {
            let _ = write!(lines, ", as {}", user.name);
        }
    }
    lines
}

/// What gives a daemon a cgroup of its own.
const DELEGATE: &str = "Delegate=cpu memory pids";

/// This program, also after its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Where the system keeps the settings and secrets of daemons like this one.
const KEPT_AWAY: &[&str] = &["/etc/greenroom", "/run/credentials", "/etc/shadow", "/etc/gshadow", "/etc/ssl/private"];
