//! Files: their names, their length, and words that do not belong in them.

use super::report;
use super::source::{files, read, sources};

#[test]
fn no_file_is_longer_than_a_person_reads_at_once() {
    let findings = files("src").into_iter().chain(files("protocol/src")).filter_map(|path| {
        let lines = read(&path).lines().count();
        (lines > LINES_MAX).then(|| format!("{path}: {lines} lines; near 500, look for the second idea in it"))
    });
    report("no source file has more than 700 lines", findings.collect());
}

#[test]
fn no_file_is_named_after_nothing() {
    let findings = files("").into_iter().filter(|path| path.ends_with(".rs")).filter_map(|path| {
        let name = path.split('/').next_back()?.trim_end_matches(".rs").to_owned();
        let named = path.split('/').map(|part| part.trim_end_matches(".rs")).find(|part| NAMELESS.contains(part))?;
        Some(if name == "mod" { format!("{path}: foo.rs beside foo/ instead") } else { format!("{path}: `{named}`") })
    });
    report("a file is a feature under the name a user would give it", findings.collect());
}

#[test]
fn what_can_fail_is_handled() {
    let mut findings = Vec::new();
    for source in sources("src").into_iter().chain(sources("protocol/src")) {
        for (line, code) in source.lines() {
            for (word, instead) in UNHANDLED {
                if code.contains(word) {
                    findings.push(format!("{}:{line}: `{word}`: {instead}", source.path));
                }
            }
        }
    }
    report("outside tests, nothing is left open", findings);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut findings = Vec::new();
    for path in files("").into_iter().filter(|path| is_text(path)) {
        for (line, text) in (1..).zip(read(&path).lines()) {
            findings
                .extend(PLACES.iter().filter(|place| text.contains(**place)).map(|_| format!("{path}:{line}: {text}")));
        }
    }
    report("paths are relative, or those of an installed system", findings);
}

fn is_text(path: &str) -> bool {
    let known = path.rsplit_once('.').is_some_and(|(_, ending)| TEXT.contains(&ending));
    // Split here, so that this list does not find itself.
    (known || path == ".ci/run") && path != "tests/tidy/files.rs"
}

const LINES_MAX: usize = 700;

const NAMELESS: &[&str] = &["common", "helper", "helpers", "manager", "misc", "mod", "util", "utils"];

const UNHANDLED: &[(&str, &str)] = &[
    (".unwrap()", "`?`, or `expect` with the reason why it cannot fail"),
    (".unwrap_err()", "match on it"),
    ("todo!(", "say that it is not built yet, as an error"),
    ("unimplemented!(", "say that it is not built yet, as an error"),
    ("dbg!(", "a log line, or nothing"),
];

/// Home folders, and where work spaces are kept.
const PLACES: &[&str] = &["/home/", "/root/", "/Users/", "/workspace", concat!("/wo", "rk/"), concat!("/tmp/", "t-")];

const TEXT: &[&str] =
    &["env", "js", "json", "lock", "md", "mjs", "py", "rs", "service", "sh", "toml", "ts", "txt", "yaml", "yml"];
