//! What was said of each setting, and where.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::suggest::hint;
use crate::config::{Command, Id, Mistake, SETTINGS, Setting};

/// Where a value was said; a flag wins over a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment variable of the setting.
    Variable,
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As written.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

/// The part of a process's surroundings that settings may come from.
#[derive(Clone, Debug)]
pub struct Environment {
    /// All variables. A name that is no UTF-8 is none of ours.
    pub variables: BTreeMap<String, OsString>,
    /// What relative paths are relative to.
    pub current_dir: PathBuf,
}

/// What was said for some commands, before anything is parsed.
#[derive(Debug)]
pub struct Values {
    commands: Vec<Command>,
    given: BTreeMap<Id, Vec<Value>>,
    environment: Environment,
    mistakes: Vec<Mistake>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        // Without a current directory relative paths stay relative, and opening them fails with a reason.
        let current_dir = std::env::current_dir().unwrap_or_default();
        Environment { variables, current_dir }
    }

    /// A variable's value; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// A directory that the service manager names; of several in one variable, the first.
    pub(crate) fn directory(&self, name: &str) -> Option<PathBuf> {
        let value = self.get(name)?;
        Some(std::env::split_paths(value).next().unwrap_or_else(|| PathBuf::from(value)))
    }
}

impl Values {
    /// Puts together what the flags and the environment say about the settings of these commands.
    ///
    /// A variable of another command's setting is left alone: one environment may serve several commands. A variable
    /// with our prefix that no setting has is a mistake.
    #[must_use]
    pub fn collect(commands: &[Command], flags: BTreeMap<Id, Vec<String>>, environment: Environment) -> Self {
        let said = |text: String, origin: Origin| Value { text, origin };
        let mut given: BTreeMap<Id, Vec<Value>> = flags
            .into_iter()
            .map(|(id, texts)| (id, texts.into_iter().map(|text| said(text, Origin::Flag)).collect()))
            .collect();
        let mut mistakes = Vec::new();
        for setting in SETTINGS.iter().filter(|setting| commands.iter().any(|command| setting.applies_to(*command))) {
            let Some((variable, value)) = setting.variable.and_then(|name| Some((name, environment.get(name)?))) else {
                continue;
            };
            if given.contains_key(&setting.id) {
                continue;
            }
            match value.to_str() {
                Some(text) => {
                    given.insert(setting.id, vec![said(text.to_owned(), Origin::Variable)]);
                }
                None => mistakes.push(Mistake::new(variable, "expected UTF-8")),
            }
        }
        let known: Vec<&str> = SETTINGS.iter().filter_map(|setting| setting.variable).collect();
        for name in environment.variables.keys().filter(|name| name.starts_with(PREFIX)) {
            if !known.contains(&name.as_str()) {
                mistakes.push(Mistake::new(name, format!("unknown variable{}", hint(name, known.iter().copied()))));
            }
        }
        Values { commands: commands.to_vec(), given, environment, mistakes }
    }

    /// What was said of a setting: nothing, one value, or several of a repeatable one.
    #[must_use]
    pub fn given(&self, id: Id) -> &[Value] {
        self.given.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The settings of the commands.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> + '_ {
        SETTINGS.iter().filter(|setting| self.commands.iter().any(|command| setting.applies_to(*command)))
    }

    /// Where these values were collected.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// A path as it was written, made absolute.
    pub(crate) fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        let path = path.strip_prefix(".").unwrap_or(path);
        self.environment.current_dir.join(path)
    }

    /// What was wrong before any value was parsed.
    pub(crate) fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl Value {
    /// How messages name the place where the value was said.
    #[must_use]
    pub fn place(&self, setting: &Setting) -> String {
        match (&self.origin, setting.variable) {
            (Origin::Variable, Some(variable)) => variable.to_owned(),
            (Origin::Flag | Origin::Variable, _) => setting.name(),
        }
    }
}

/// Variables that begin like this are ours, and a name that is not in the table is a slip.
const PREFIX: &str = "GREENROOM_";
