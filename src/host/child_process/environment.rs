//! The variables a process is given: a short list of harmless ones, what the actors file names, and the contract's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::host::{Doors, StartActor, StartError};

use super::Settings;
use super::directories::Directories;
use super::listen::Listening;

/// The whole environment of a process.
pub(super) fn environment(
    settings: &Settings,
    start: &StartActor,
    doors: &Doors,
    directories: &Directories,
    listening: &Listening,
) -> Result<BTreeMap<OsString, OsString>, StartError> {
    let mut variables: BTreeMap<OsString, OsString> =
        INHERITED.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?))).collect();
    if let Some(user) = settings.user() {
        variables.insert("HOME".into(), user.home.clone().into());
    }
    if let Some(file) = &settings.env_file {
        for (name, value) in read(file)? {
            variables.insert(name.into(), value.into());
        }
    }
    for (name, value) in &settings.env {
        variables.insert(name.into(), value.into());
    }
    variables.retain(|name, _| !name.to_str().is_some_and(ours));

    let mut set = |name: &str, value: OsString| variables.insert(name.into(), value);
    set("ACTOR_ID", (&*start.key.id).into());
    set("ACTOR_NAME", (&*start.name).into());
    if let Some(key) = &start.actor_key {
        set("ACTOR_KEY", (&**key).into());
    }
    set("ACTOR_GENERATION", start.key.generation.to_string().into());
    set("ACTOR_START_REASON", start.reason.as_str().into());
    set("ACTOR_API", format!("http://{}", doors.tcp).into());
    set("ACTOR_API_SOCKET", doors.unix.clone().into());
    set("ACTOR_TOKEN_FILE", directories.token_file().into());
    set("ACTOR_STATE_DIR", directories.state().into());
    set("TMPDIR", directories.scratch().into());
    for (name, value) in listening.variables() {
        set(name, value);
    }
    let with_nul = |value: &OsString| value.as_encoded_bytes().contains(&0);
    match variables.iter().find(|(name, value)| with_nul(name) || with_nul(value)) {
        Some((name, _)) => Err(StartError(format!(
            "the variable {} would contain a NUL byte, which no environment can carry",
            name.to_string_lossy().escape_debug()
        ))),
        None => Ok(variables),
    }
}

/// Whether only the contract may set this variable.
fn ours(name: &str) -> bool {
    name.starts_with("ACTOR_") || name.starts_with("LISTEN_") || name == "TMPDIR"
}

fn read(file: &Path) -> Result<Vec<(String, String)>, StartError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| StartError(format!("could not read {} (env_file): {error}", file.display())))?;
    parse(&text).map_err(|line| StartError(format!("{} (env_file), line {line}: expected NAME=value", file.display())))
}

/// Reads `NAME=value` lines; empty lines and comments are skipped, one pair of quotes around a value is taken off.
/// The error is the number of the line that is none of these.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(number + 1)?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(number + 1);
        }
        pairs.push((name.to_owned(), unquoted(value.trim()).to_owned()));
    }
    Ok(pairs)
}

fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|value: &str| value.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// What passes from the runner's own environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_env_file_has_names_values_quotes_and_comments() {
        let text = "# note\n\nA=1\n export B = two words \nC=\"quoted # \"\nD='x'\nE=\nF=a=b\nG='\n";
        let expected =
            [("A", "1"), ("B", "two words"), ("C", "quoted # "), ("D", "x"), ("E", ""), ("F", "a=b"), ("G", "'")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), Ok(expected.to_vec()));
        assert_eq!(parse("A=1\nnonsense\n"), Err(2));
        assert_eq!(parse("=1"), Err(1));
        assert_eq!(parse("a b=1"), Err(1));
    }
}
