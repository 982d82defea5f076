//! The fields of a record or a span.

use std::error::Error;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};

/// Fields by name, in the order they were recorded; a name recorded again replaces its value.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
}

impl Fields {
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| *other == name)
    }

    /// Takes a field out, as text.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.remove(index).1.to_string())
    }

    /// Drops the fields that the predicate does not want.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| wanted(name));
    }

    /// Adds the fields of an outer span that are not there yet.
    pub fn add_missing(&mut self, outer: &Fields) {
        for (name, value) in &outer.0 {
            if !self.contains(name) {
                self.0.push((name, value.clone()));
            }
        }
    }

    /// Adds a field that a record has not got.
    pub fn add(&mut self, name: &'static str, value: Value) {
        self.0.push((name, value));
    }

    fn set(&mut self, field: &Field, value: Value) {
        // A field that is a keyword is written r#type and meant as type.
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::Text(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Unsigned(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.set(field, i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Signed));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.set(field, u64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Unsigned));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bool(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.set(field, Value::Text(text));
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Signed(number) => write!(f, "{number}"),
            Value::Unsigned(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number}"),
            Value::Bool(value) => write!(f, "{value}"),
        }
    }
}
