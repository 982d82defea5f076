//! `[egress.NAME]`: servers that actors may call, with a credential that they never see.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::HeaderName;
use toml::de::DeValue;

use super::keys::{File, Section};
use crate::config::secret::Privacy;
use crate::config::suggest::hint;
use crate::config::{Endpoint, SecretFile};

/// A server that actors may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressDefinition {
    /// Its name in the path of a call; letters, digits, `-` and `_`.
    pub name: String,
    /// Where it is; its path begins every call's.
    pub url: Endpoint,
    /// What is sent as bearer, never shown to the actor.
    pub credential: Option<SecretFile>,
    /// The request header that names the backend of the last answer.
    pub preferred_backend_header: Option<HeaderName>,
    /// The response header that names the backend that answered.
    pub resolved_backend_header: Option<HeaderName>,
    /// The response header with the backend's cache key.
    pub cache_key_header: Option<HeaderName>,
    /// Addresses of this link may be called, where clouds keep the secrets of a machine.
    pub allow_link_local: bool,
    /// How long the server may take to begin its answer, and then be silent.
    pub timeout: Duration,
    /// The largest request body, in bytes.
    pub max_body: u64,
    /// Calls at once.
    pub max_in_flight: u32,
}

/// Reads `[egress.*]`.
pub(super) fn read<'a>(file: &'a File<'a>, root: &Section<'a>, directory: &Path) -> Vec<EgressDefinition> {
    let mut all = Vec::new();
    for (key, value) in root.table("egress").into_iter().flatten() {
        let (offset, name) = (key.span().start, key.get_ref());
        let path = format!("egress.{}", name.escape_debug());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
            let expected = format!("expected a name of 1 to {NAME_MAX} letters, digits, - and _: it is part of a path");
            file.mistake(offset, &path, expected);
        }
        match value.get_ref() {
            DeValue::Table(table) => all.extend(one(name, &Section::new(file, table, path, offset), directory)),
            _ => file.mistake(offset, &path, format!("expected a table: [{path}]")),
        }
    }
    all
}

/// Which egresses an actor may use.
pub(super) fn used(section: &Section<'_>, defined: &[EgressDefinition]) -> Vec<String> {
    let names = section.names("egress");
    for name in &names {
        if !defined.iter().any(|egress| egress.name == *name) {
            let hint = hint(name, defined.iter().map(|egress| egress.name.as_str()));
            section.mistake("egress", &format!("there is no [egress.{}]{hint}", name.escape_debug()));
        }
    }
    names
}

fn one(name: &str, section: &Section<'_>, directory: &Path) -> Option<EgressDefinition> {
    section.refuse_unknown(KEYS);
    if !section.has("url") {
        section.mistake_here("expected a url, like url = \"https://llm.internal/v1\"");
    }
    let url = section
        .text("url")
        .and_then(|text| Endpoint::of_http(&text).map_or_else(|expected| told(section, "url", &expected), Some));
    let credential = section.text("credential_file").and_then(|path| {
        let file = credential(directory.join(path));
        file.map_or_else(|error| told(section, "credential_file", &error), Some)
    });
    let timeout = section.duration("timeout");
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        section.mistake("timeout", "expected more than 0s");
    }
    Some(EgressDefinition {
        name: name.to_owned(),
        preferred_backend_header: header(section, "preferred_backend_header"),
        resolved_backend_header: header(section, "resolved_backend_header"),
        cache_key_header: header(section, "cache_key_header"),
        allow_link_local: section.switch("allow_link_local").unwrap_or(false),
        timeout: timeout.unwrap_or(TIMEOUT),
        max_body: section.size("max_body").unwrap_or(MAX_BODY),
        max_in_flight: section.count("max_in_flight", 1..=100_000).unwrap_or(MAX_IN_FLIGHT),
        credential,
        url: url?,
    })
}

fn credential(path: PathBuf) -> Result<SecretFile, String> {
    let privacy = if path.starts_with(SYSTEM_CREDENTIALS) { Privacy::System } else { Privacy::Owner };
    SecretFile::new(path, privacy)
}

fn header(section: &Section<'_>, key: &str) -> Option<HeaderName> {
    let text = section.text(key)?;
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    name.or_else(|| told(section, key, "expected the name of a header, like \"x-backend\""))
}

fn told<T>(section: &Section<'_>, key: &str, says: &str) -> Option<T> {
    section.mistake(key, says);
    None
}

/// Where systemd keeps credentials; it protects the directory as a whole.
const SYSTEM_CREDENTIALS: &str = "/run/credentials";
/// The longest name, in bytes: it is part of a path and of a storage key.
const NAME_MAX: usize = 64;
/// Models take their time before the first word.
const TIMEOUT: Duration = Duration::from_secs(120);
/// As large as the bodies that clients can send to an actor.
const MAX_BODY: u64 = 20 * 1024 * 1024;
/// Each is a connection and two small buffers.
const MAX_IN_FLIGHT: u32 = 256;

/// Every key of an egress.
const KEYS: &[&str] = &[
    "url",
    "credential_file",
    "preferred_backend_header",
    "resolved_backend_header",
    "cache_key_header",
    "allow_link_local",
    "timeout",
    "max_body",
    "max_in_flight",
];
