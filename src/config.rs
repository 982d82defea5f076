//! Settings: what a user may say on the command line, in the environment and in the actors file.
//!
//! One table ([`SETTINGS`]) names every flag with its variable, default and meaning; parsing, help, the README and
//! `config show` are made from it. [`Values`] collects what was said and where, `RunSettings` and its siblings are
//! what came out of it: types that are already right. Every mistake of one run is reported together ([`Mistakes`]).
//!
//! Reads files and the environment it is handed; writes nothing but [`runner_key`].

pub mod actors_file;
mod endpoint;
mod mistake;
mod reader;
pub mod runner_key;
mod secret;
mod setting;
mod settings;
mod show;
mod suggest;
mod units;
mod upstream_url;
mod values;

pub use actors_file::{ActorDefinition, EgressDefinition, Listen, ProcessPer, SystemUser};
pub use endpoint::Endpoint;
pub use mistake::{Mistake, Mistakes};
pub use secret::SecretFile;
pub use setting::{Command, Fallback, Id, Kind, Reload, SETTINGS, Setting};
pub use settings::{
    AdminSettings, AskSettings, DevSettings, GatewaySettings, LogFilter, LogFormat, LogSettings, ReportSettings,
    RunSettings, TraceSettings, check,
};
pub(crate) use show::usage;
pub use show::{effective, markdown};
pub use units::Rate;
pub(crate) use units::duration;
pub use upstream_url::UpstreamUrl;
pub use values::{Environment, Origin, Value, Values};

/// What is said of settings, keys and commands that the contract names and this version lacks.
pub const NOT_BUILT: &str = "not built yet in this version";
