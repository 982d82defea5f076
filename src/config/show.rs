//! The table of settings, written out: for the README, and with the values of one environment.

use std::fmt::Write;

use crate::config::{Fallback, Id, Kind, NOT_BUILT, RunSettings, SETTINGS, Setting, Values};

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
pub fn effective(values: &Values, run: &RunSettings) -> String {
    let mut rows = Vec::new();
    for setting in values.settings().filter(|setting| setting.built) {
        let name = setting.flag.or(setting.variable).unwrap_or_default();
        let given = values.given(setting.id);
        for value in given {
            let text = if setting.is_secret() { HIDDEN.to_owned() } else { value.text.clone() };
            rows.push((name, text, value.place(setting)));
        }
        if given.is_empty() {
            let (text, source) = unsaid(setting, values, run);
            rows.push((name, text, source.to_owned()));
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

/// What holds where nothing was said, and who says so.
fn unsaid(setting: &Setting, values: &Values, run: &RunSettings) -> (String, &'static str) {
    let by_service_manager = |variable| if values.environment().get(variable).is_some() { variable } else { "default" };
    match setting.id {
        Id::DataDir => (run.data_dir.display().to_string(), by_service_manager("STATE_DIRECTORY")),
        Id::RuntimeDir => (run.runtime_dir.display().to_string(), by_service_manager("RUNTIME_DIRECTORY")),
        Id::Token if run.token.is_some() && values.given(Id::TokenFile).is_empty() => {
            (HIDDEN.to_owned(), "$CREDENTIALS_DIRECTORY/token")
        }
        Id::Token => ("–".to_owned(), "default"),
        _ => (setting.default.text().replace('`', ""), "default"),
    }
}

/// A flag as it is written, with the word that stands for its value.
pub(crate) fn usage(flag: &str, kind: Kind) -> String {
    match kind.placeholder() {
        "" => format!("--{flag}"),
        placeholder => format!("--{flag} {placeholder}"),
    }
}

fn commands_text(setting: &Setting) -> String {
    setting.commands.iter().map(|command| command.as_str()).collect::<Vec<_>>().join(", ")
}

const HIDDEN: &str = "(set, not shown)";
