//! Reads values into types, and notes what is wrong instead of stopping at it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::config::suggest::hint;
use crate::config::units::{self, Rate};
use crate::config::{Endpoint, Fallback, Id, Kind, Mistake, Mistakes, NOT_BUILT, Origin, Setting, Value, Values};

/// Reads settings one by one. After a mistake a reading goes on with the default, and the mistakes decide at the end.
pub(crate) struct Reader<'a> {
    pub values: &'a Values,
    pub mistakes: Mistakes,
}

impl<'a> Reader<'a> {
    /// A reader that knows of the mistakes made so far, and of values for what is not built.
    pub fn new(values: &'a Values) -> Self {
        let mut reader = Reader { values, mistakes: Mistakes::default() };
        for mistake in values.mistakes() {
            reader.mistakes.push(mistake.clone());
        }
        for setting in values.settings().filter(|setting| !setting.built) {
            // A variable that is not named after us may be meant for others.
            let ours = |value: &&Value| value.origin == Origin::Flag || value.place(setting).starts_with("GREENROOM_");
            if let Some(value) = values.given(setting.id).iter().find(ours) {
                reader.mistakes.push(Mistake::new(value.place(setting), NOT_BUILT));
            }
        }
        reader
    }

    pub fn endpoint(&mut self, id: Id) -> Endpoint {
        self.required(id, Endpoint::from_str)
    }

    pub fn name(&mut self, id: Id) -> String {
        self.required(id, name)
    }

    pub fn optional_name(&mut self, id: Id) -> Option<String> {
        self.optional(id, name)
    }

    pub fn count(&mut self, id: Id) -> u32 {
        let kind = id.setting().kind;
        self.required(id, |text| {
            let Kind::Count { min, max } = kind else { return expected(kind) };
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let count = text.parse().ok().filter(|count| digits && (min..=max).contains(count));
            count.map_or_else(|| expected(kind), Ok)
        })
    }

    pub fn duration(&mut self, id: Id) -> Duration {
        let kind = id.setting().kind;
        self.required(id, |text| {
            let Kind::Duration { min, max } = kind else { return expected(kind) };
            let duration = units::duration(text)?;
            if (min..=max).contains(&duration) { Ok(duration) } else { expected(kind) }
        })
    }

    pub fn address(&mut self, id: Id) -> SocketAddr {
        let kind = id.setting().kind;
        self.required(id, |text| address(text).map_or_else(|| expected(kind), Ok))
    }

    /// An address, or nothing for `off`.
    pub fn address_or_off(&mut self, id: Id) -> Option<SocketAddr> {
        let kind = id.setting().kind;
        self.required(id, |text| match text {
            "off" => Ok(None),
            text => address(text).map_or_else(|| expected(kind), |address| Ok(Some(address))),
        })
    }

    /// A rate, or nothing for `off`.
    pub fn rate_or_off(&mut self, id: Id) -> Option<Rate> {
        self.required(id, |text| match text {
            "off" => Ok(None),
            text => units::rate(text).map(Some),
        })
    }

    /// Host names in lower case; `*` is one of its own.
    pub fn hosts(&mut self, id: Id) -> Vec<String> {
        let kind = id.setting().kind;
        let hosts = self.optional(id, |text| {
            let hosts: Vec<String> = text.split(',').map(|host| host.trim().to_ascii_lowercase()).collect();
            let named = |host: &String| !host.is_empty() && !host.contains(['/', '@', ' ', '?', '#']);
            if hosts.iter().all(named) { Ok(hosts) } else { expected(kind) }
        });
        hosts.unwrap_or_default()
    }

    pub fn choice(&mut self, id: Id) -> &'static str {
        let kind = id.setting().kind;
        self.required(id, |text| {
            let Kind::Choice(words) = kind else { return expected(kind) };
            let word = words.iter().find(|word| **word == text);
            word.copied().ok_or_else(|| format!("expected {}{}", kind.expected(), hint(text, words.iter().copied())))
        })
    }

    pub fn switch(&mut self, id: Id) -> bool {
        let kind = id.setting().kind;
        self.required(id, |text| match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => expected(kind),
        })
    }

    /// An absolute path, when one was given.
    pub fn path(&mut self, id: Id) -> Option<PathBuf> {
        let values = self.values;
        self.optional(id, |text| match text {
            "" => expected(id.setting().kind),
            text => Ok(values.absolute(text)),
        })
    }

    /// A value that was given or has a default in the table.
    pub fn required<T>(&mut self, id: Id, parse: impl Fn(&str) -> Result<T, String>) -> T {
        if let Some(value) = self.optional(id, &parse) {
            return value;
        }
        let Fallback::Text(default) = id.setting().default else { panic!("{id:?} has no default and is required") };
        parse(default).expect("a test parses every default of the table")
    }

    /// A value when one was given.
    pub fn optional<T>(&mut self, id: Id, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.values.given(id).first()?;
        let parsed = parse(&value.text);
        parsed.inspect_err(|expected| self.mistake(id.setting(), value, expected)).ok()
    }

    /// Notes a mistake in a value, which is shown unless it is a secret.
    pub fn mistake(&mut self, setting: &Setting, value: &Value, says: &str) {
        let place = value.place(setting);
        let place = if setting.is_secret() { place } else { format!("{place}={:?}", value.text) };
        self.mistakes.push(Mistake::new(place, says));
    }

    /// Notes a mistake in what a setting came to, wherever that was said.
    pub fn mistake_at(&mut self, id: Id, says: &str) {
        match self.values.given(id).first() {
            Some(value) => self.mistake(id.setting(), value, says),
            None => self.mistakes.push(Mistake::new(id.setting().name(), says)),
        }
    }
}

fn expected<T>(kind: Kind) -> Result<T, String> {
    Err(format!("expected {}", kind.expected()))
}

/// A name for the wire: it goes into URLs (encoded) and messages, and people have to read it in logs.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_MAX || text.chars().any(char::is_control) {
        return Err(format!("expected a name of 1 to {NAME_MAX} bytes without control characters"));
    }
    Ok(text.to_owned())
}

/// An IP address and a port; `localhost` stands for 127.0.0.1, other names are not looked up.
fn address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

/// The longest name, in bytes: far above any sensible one, far below what a URL may carry.
const NAME_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Command, Environment, SETTINGS};

    #[test]
    fn every_default_of_the_table_parses() {
        let environment = Environment { variables: BTreeMap::new(), current_dir: PathBuf::from("/") };
        let values = Values::collect(&Command::ALL, BTreeMap::new(), environment);
        let mut reader = Reader::new(&values);
        for setting in SETTINGS.iter().filter(|setting| matches!(setting.default, Fallback::Text(_))) {
            let id = setting.id;
            match setting.kind {
                Kind::Endpoint => drop(reader.endpoint(id)),
                Kind::Name => drop(reader.name(id)),
                Kind::Count { .. } => drop(reader.count(id)),
                Kind::Duration { .. } => drop(reader.duration(id)),
                Kind::Address => drop(reader.address(id)),
                Kind::AddressOrOff => drop(reader.address_or_off(id)),
                Kind::RateOrOff => drop(reader.rate_or_off(id)),
                Kind::Choice(_) => drop(reader.choice(id)),
                Kind::Switch => drop(reader.switch(id)),
                Kind::Filter => assert!(crate::config::LogSettings::filter_of(setting.default.text()).is_ok()),
                Kind::Url | Kind::Hosts | Kind::File | Kind::Directory | Kind::Secret | Kind::Actor => {
                    panic!("{id:?}: no default of this kind is expected")
                }
            }
        }
        assert!(reader.mistakes.is_empty(), "{}", reader.mistakes);
    }
}
