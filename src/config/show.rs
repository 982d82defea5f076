//! The table of settings, written out: for the README, and with the values of one environment.

use std::fmt::Write;

use crate::config::{Fallback, Id, Kind, NOT_BUILT, Origin, SETTINGS, Setting, Values};

/// The README's table of settings.
#[must_use]
pub fn markdown() -> String {
    let mut table = "| flag | variable | default | commands | meaning |\n|---|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let flag = setting.flag.map_or_else(|| "–".to_owned(), |flag| format!("`{}`", usage(flag, setting.kind)));
        let flag = flag.replace('|', "\\|");
        let variable = setting.variable.map_or_else(|| "–".to_owned(), |variable| format!("`{variable}`"));
        let default = match setting.default {
            Fallback::Text(text) => format!("`{text}`"),
            Fallback::Words(words) => words.to_owned(),
        };
        let built = if setting.built { String::new() } else { format!(" ({NOT_BUILT})") };
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {flag} | {variable} | {default} | {} | {}{built} |",
            commands_text(setting),
            setting.help.replace('|', "\\|"),
        );
    }
    table
}

/// Every setting with the value that holds and where it comes from, a line each. Secrets are not shown.
#[must_use]
pub fn effective(values: &Values) -> String {
    let mut rows = Vec::new();
    for setting in values.settings().filter(|setting| setting.built) {
        let name = setting.flag.or(setting.variable).unwrap_or_default();
        let given = values.given(setting.id);
        for value in given {
            let text = if setting.is_secret() { "(set, not shown)".to_owned() } else { value.text.clone() };
            let source = match value.origin {
                Origin::Flag => setting.name(),
                Origin::Variable => setting.variable.unwrap_or_default().to_owned(),
                Origin::Default => "default".to_owned(),
            };
            rows.push((name, text, source));
        }
        if given.is_empty() {
            rows.push((name, default_text(setting, values), "default".to_owned()));
        }
    }
    let name_width = rows.iter().map(|(name, _, _)| name.len()).max().unwrap_or_default();
    let text_width = rows.iter().map(|(_, text, _)| text.chars().count()).max().unwrap_or_default();
    let mut lines = String::new();
    for (name, text, source) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{name:name_width$}  {text:text_width$}  {source}");
    }
    lines
}

/// A flag as it is written, with the word that stands for its value.
pub(crate) fn usage(flag: &str, kind: Kind) -> String {
    match kind.placeholder() {
        "" => format!("--{flag}"),
        placeholder => format!("--{flag} {placeholder}"),
    }
}

fn default_text(setting: &Setting, values: &Values) -> String {
    let environment = values.environment();
    let found = match setting.id {
        Id::DataDir => environment.directory("STATE_DIRECTORY"),
        Id::RuntimeDir => environment.directory("RUNTIME_DIRECTORY"),
        _ => None,
    };
    match (found, setting.default) {
        (Some(directory), _) => directory.display().to_string(),
        (None, default) => default.text().replace('`', ""),
    }
}

fn commands_text(setting: &Setting) -> String {
    setting.commands.iter().map(|command| command.as_str()).collect::<Vec<_>>().join(", ")
}
