//! Reads the keys of a TOML table one by one, and notes what is wrong instead of stopping at it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::suggest::hint;
use crate::config::units;
use crate::config::{Mistake, NOT_BUILT};

/// A file by its name in messages and its text, with what is wrong in it.
pub(super) struct File<'a> {
    name: &'a str,
    text: &'a str,
    /// By the byte offset of their place.
    mistakes: RefCell<Vec<(usize, Mistake)>>,
}

/// A table in the file.
pub(super) struct Section<'a> {
    file: &'a File<'a>,
    table: &'a DeTable<'a>,
    /// The table's own name, safe to print; empty for the root.
    path: String,
    /// Where that name stands.
    offset: usize,
}

impl<'a> File<'a> {
    pub fn new(name: &'a str, text: &'a str) -> Self {
        File { name, text, mistakes: RefCell::default() }
    }

    /// Notes what is wrong at a byte offset, in a key that is safe to print.
    pub fn mistake(&self, offset: usize, key: &str, says: impl Into<String>) {
        let line = 1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let place = match key {
            "" => format!("{}:{line}", self.name),
            key => format!("{}:{line}: {key}", self.name),
        };
        self.mistakes.borrow_mut().push((offset, Mistake::new(place, says)));
    }

    /// All that is wrong, from the top of the file to its end.
    pub fn mistakes(self) -> impl Iterator<Item = Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|(offset, _)| *offset);
        mistakes.into_iter().map(|(_, mistake)| mistake)
    }
}

impl<'a> Section<'a> {
    pub fn new(file: &'a File<'a>, table: &'a DeTable<'a>, path: String, offset: usize) -> Self {
        Section { file, table, path, offset }
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes every key that is none of these.
    pub fn refuse_unknown(&self, known: &[&str]) {
        for key in self.table.keys() {
            let word = key.get_ref().as_ref();
            if !known.contains(&word) {
                let says = format!("unknown key{}", hint(word, known.iter().copied()));
                self.file.mistake(key.span().start, &self.full(word), says);
            }
        }
    }

    /// Notes a key that needs something that is not built, unless its value is one of these.
    pub fn refuse_not_built_unless(&self, key: &str, built: &[&str]) {
        let Some(value) = self.value(key) else { return };
        let harmless = match value.get_ref() {
            DeValue::String(text) => built.contains(&text.as_ref()),
            DeValue::Boolean(value) => built.contains(&value.to_string().as_str()),
            _ => false,
        };
        if !harmless {
            let rest = built.first().map(|word| format!("; what works is {word:?}")).unwrap_or_default();
            self.mistake(key, &format!("{NOT_BUILT}{rest}"));
        }
    }

    pub fn text(&self, key: &str) -> Option<String> {
        match self.value(key)?.get_ref() {
            DeValue::String(text) if !text.is_empty() => Some(text.to_string()),
            _ => self.expected(key, "text"),
        }
    }

    /// Whether the value is this word.
    pub fn is_word(&self, key: &str, word: &str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().as_str() == Some(word))
    }

    pub fn duration(&self, key: &str) -> Option<Duration> {
        let DeValue::String(text) = self.value(key)?.get_ref() else {
            return self.expected(key, "a duration like \"250ms\", \"30s\" or \"5m\"");
        };
        units::duration(text).inspect_err(|expected| self.mistake(key, expected)).ok()
    }

    pub fn choice(&self, key: &str, words: &[&'static str]) -> Option<&'static str> {
        let one_of = format!("one of {}", words.join(", "));
        let DeValue::String(text) = self.value(key)?.get_ref() else { return self.expected(key, &one_of) };
        let word = words.iter().find(|word| **word == text.as_ref());
        word.copied().or_else(|| self.expected(key, &format!("{one_of}{}", hint(text, words.iter().copied()))))
    }

    /// A size in bytes.
    pub fn size(&self, key: &str) -> Option<u64> {
        let DeValue::String(text) = self.value(key)?.get_ref() else {
            return self.expected(key, "a size like \"64KiB\" or \"20MiB\"");
        };
        units::size(text).inspect_err(|expected| self.mistake(key, expected)).ok()
    }

    /// A whole number in this range.
    pub fn count(&self, key: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let number = match self.value(key)?.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .or_else(|| self.expected(key, &format!("a count from {} to {}", range.start(), range.end())))
    }

    pub fn switch(&self, key: &str) -> Option<bool> {
        match self.value(key)?.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.expected(key, "true or false"),
        }
    }

    /// A list of names.
    pub fn names(&self, key: &str) -> Vec<String> {
        self.texts(key, "a list of names, like [\"llm\"]").unwrap_or_default()
    }

    /// A list of paths.
    pub fn paths(&self, key: &str) -> Vec<String> {
        self.texts(key, "a list of paths, like [\"/srv/models\"]").unwrap_or_default()
    }

    /// A list of texts.
    pub fn texts(&self, key: &str, expected: &str) -> Option<Vec<String>> {
        let DeValue::Array(items) = self.value(key)?.get_ref() else { return self.expected(key, expected) };
        let texts: Option<_> = items.iter().map(|item| Some(item.get_ref().as_str()?.to_owned())).collect();
        texts.or_else(|| self.expected(key, expected))
    }

    /// A program and its arguments.
    pub fn command(&self, key: &str) -> Vec<String> {
        const COMMAND: &str = "a list of texts, the program first, like [\"node\", \"counter.mjs\"]";
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else { return self.expected(key, COMMAND).unwrap_or_default() };
        let words: Option<Vec<String>> = items.iter().map(|item| Some(item.get_ref().as_str()?.to_owned())).collect();
        let usable = |words: &Vec<String>| {
            words.first().is_some_and(|program| !program.is_empty()) && !words.iter().any(|word| word.contains('\0'))
        };
        words.filter(usable).or_else(|| self.expected(key, COMMAND)).unwrap_or_default()
    }

    /// A table of texts.
    pub fn texts_by_name(&self, key: &str) -> BTreeMap<String, String> {
        let Some(value) = self.value(key) else { return BTreeMap::new() };
        let DeValue::Table(table) = value.get_ref() else {
            return self.expected(key, "a table of texts, like { LOG = \"debug\" }").unwrap_or_default();
        };
        let mut texts = BTreeMap::new();
        for (name, value) in table {
            match value.get_ref().as_str() {
                Some(text) => drop(texts.insert(name.get_ref().to_string(), text.to_owned())),
                None => self.mistake_in(key, name.get_ref(), "expected text in quotes"),
            }
        }
        texts
    }

    /// The table under this key.
    pub fn table(&self, key: &str) -> Option<&'a DeTable<'a>> {
        match self.value(key)?.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => self.expected(key, "a table"),
        }
    }

    /// Notes a mistake in a key of this table.
    pub fn mistake(&self, key: &str, says: &str) {
        let Some((name, value)) = self.table.get_key_value(key) else { return self.mistake_here(says) };
        self.file.mistake(name.span().start, &format!("{}{}", self.full(key), found(value)), says);
    }

    /// Notes a mistake in a key of a table in this table.
    pub fn mistake_in(&self, table: &str, key: &str, says: &str) {
        let name = self.value(table).and_then(|value| value.get_ref().as_table()?.get_key_value(key));
        let Some((name, _)) = name else { return self.mistake(table, says) };
        self.file.mistake(name.span().start, &self.full(&format!("{table}.{key}")), says);
    }

    /// Notes a mistake in the table as a whole.
    pub fn mistake_here(&self, says: &str) {
        self.file.mistake(self.offset, &self.path, says);
    }

    fn expected<T>(&self, key: &str, what: &str) -> Option<T> {
        self.mistake(key, &format!("expected {what}"));
        None
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// The key with the names of its tables, safe to print.
    fn full(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }
}

/// ` = value`, for values that are a word or a number; environment variables and other tables may hold secrets.
fn found(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!(" = {text:?}"),
        DeValue::Integer(number) => format!(" = {}", number.as_str()),
        DeValue::Float(number) => format!(" = {}", number.as_str()),
        DeValue::Boolean(value) => format!(" = {value}"),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => String::new(),
    }
}
