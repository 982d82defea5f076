//! The layers of `docs/ARCHITECTURE.md`: a module names only what is below it.

use super::report;
use super::source::{Source, sources};

/// Where a module stands. It may name modules that stand lower, and those in `besides` of its own layer.
struct Module {
    name: &'static str,
    layer: u8,
    besides: &'static [&'static str],
}

const LEAF: u8 = 1;
const CORE: u8 = 2;
const EDGE: u8 = 3;
const SHELL: u8 = 4;
const ROOT: u8 = 5;

const MODULES: &[Module] = &[
    module("actor", LEAF, &[]),
    module("backoff", LEAF, &[]),
    module("bearer", LEAF, &[]),
    module("clock", LEAF, &[]),
    module("config", LEAF, &[]),
    module("credit", LEAF, &[]),
    module("kv", LEAF, &[]),
    module("link_local", LEAF, &[]),
    module("local_socket", LEAF, &[]),
    module("number_map", LEAF, &[]),
    module("queue", LEAF, &[]),
    module("shutdown", LEAF, &[]),
    module("store", LEAF, &["telemetry"]),
    module("stream", LEAF, &[]),
    module("tasks", LEAF, &[]),
    module("telemetry", LEAF, &["config"]),
    module("job", CORE, &[]),
    module("report", CORE, &[]),
    module("session", CORE, &[]),
    module("sticky", CORE, &[]),
    module("workflow", CORE, &[]),
    module("host", EDGE, &[]),
    module("socket", EDGE, &[]),
    module("admin", SHELL, &["runner"]),
    module("api", SHELL, &["egress", "reporter"]),
    module("egress", SHELL, &[]),
    module("gateway", SHELL, &[]),
    module("otlp", SHELL, &[]),
    module("reporter", SHELL, &[]),
    module("runner", SHELL, &[]),
    module("app", ROOT, &[]),
];

/// What edges do not name although it stands lower: they carry, and do not decide.
const NOT_FOR_EDGES: &[&str] = &["session", "workflow", "job", "sticky", "report"];

/// Modules that decide and do nothing: they run in simulation, where time and chance come from a seed. A name covers
/// what is below it.
const PURE: &[&str] = &[
    "actor",
    "backoff",
    "gateway::actor",
    "gateway::core",
    "gateway::error",
    "gateway::id",
    "gateway::stream",
    "host::events::schedule",
    "host::visible",
    "kv",
    "number_map",
    "report",
    "session",
    "sticky",
    "store::kv",
    "store::memory",
    "store::record",
    "stream",
];

/// What a pure module does without, and what it does instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "tasks and sockets belong to a shell"),
    ("futures_util", "tasks belong to a shell"),
    ("async", "a core is asked and answers; it does not wait"),
    ("Instant::now", "time comes in as a value"),
    ("SystemTime::now", "time comes in as a value"),
    ("elapsed", "it reads the clock; time comes in as a value"),
    ("rand", "seeds and random values come in as values"),
    ("RandomState", "seeds come in as values"),
    ("HashMap", "its order differs from run to run: BTreeMap"),
    ("HashSet", "its order differs from run to run: BTreeSet"),
    ("DashMap", "locks belong to an edge"),
    ("Mutex", "a core is owned by one loop and needs no lock"),
    ("RwLock", "a core is owned by one loop and needs no lock"),
    ("OnceLock", "no state outlives a core"),
    ("LazyLock", "no state outlives a core"),
    ("thread_local", "no state outlives a core"),
    ("std::thread", "threads belong to a shell"),
    ("std::net", "sockets belong to an edge"),
    ("std::fs", "files belong to a leaf or a shell"),
    ("std::env", "settings come in as values"),
    ("std::process", "processes belong to an edge"),
];

/// Where a word of [`IMPURE`] is right, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("protocol/src/bare/repeats.rs", "HashSet", "only asked whether it contains; its seed keeps hostile keys apart"),
    ("src/number_map.rs", "HashMap", "its hash has no seed, so its order is the same in every run"),
    ("src/session/tunnel/headers.rs", "HashSet", "only asked whether it contains; its seed keeps hostile names apart"),
];

#[test]
fn modules_name_only_what_is_below_them() {
    let mut findings = Vec::new();
    for source in sources("src") {
        let Some(own) = source.module.first() else { continue };
        let Some(own) = find(own) else {
            findings.push(format!(
                "{}: module `{own}` has no layer; give it one in tests/tidy/layers.rs and docs/ARCHITECTURE.md",
                source.path
            ));
            continue;
        };
        for (at, path) in references(&source) {
            let Some(other) = path.first().and_then(|name| find(name)) else { continue };
            let allowed = other.name == own.name
                || own.besides.contains(&other.name)
                || (other.layer < own.layer && !(own.layer == EDGE && NOT_FOR_EDGES.contains(&other.name)));
            if !allowed {
                findings.push(format!("{at}: `{}` names `{}`", own.name, path.join("::")));
            }
        }
    }
    report("a module names only what is below it (docs/ARCHITECTURE.md, layers)", findings);
}

#[test]
fn pure_modules_have_no_clock_no_chance_no_tasks_and_no_locks() {
    let mut findings = Vec::new();
    for source in sources("src").into_iter().filter(|source| is_pure(&source.module)).chain(sources("protocol/src")) {
        for (line, code) in source.lines() {
            for (word, instead) in IMPURE {
                let excepted = EXCEPTIONS.iter().any(|(path, what, _)| *path == source.path && what == word);
                if has_word(code, word) && !excepted {
                    findings.push(format!("{}:{line}: `{word}`: {instead}", source.path));
                }
            }
        }
    }
    report("pure modules decide and do nothing else", findings);
}

#[test]
fn pure_modules_name_nothing_of_ours_that_is_not_pure() {
    let mut findings = Vec::new();
    for source in sources("src").into_iter().filter(|source| is_pure(&source.module)) {
        for (at, path) in references(&source) {
            let module: Vec<String> =
                path.iter().take_while(|name| name.starts_with(char::is_lowercase)).cloned().collect();
            // What a parent exports under a type's name is checked by building without the features.
            let exported = module.len() < path.len() && PURE.iter().any(|pure| pure.starts_with(&module.join("::")));
            if !exported && !is_pure(&module) {
                findings.push(format!("{at}: names `{}`", path.join("::")));
            }
        }
    }
    report("a pure module uses nothing of ours that is not pure", findings);
}

#[test]
fn runner_and_gateway_never_name_each_other() {
    let mut findings = Vec::new();
    for source in sources("src") {
        for (at, path) in references(&source) {
            let own = source.module.first().map(String::as_str);
            if matches!((own, path[0].as_str()), (Some("runner"), "gateway") | (Some("gateway"), "runner")) {
                findings.push(format!("{at}: names `{}`", path.join("::")));
            }
        }
    }
    report("both ends of the wire know only the wire; `app` alone knows both", findings);
}

#[test]
fn every_pure_module_exists() {
    let sources = sources("src");
    let findings = PURE.iter().filter(|pure| {
        let path: Vec<&str> = pure.split("::").collect();
        !sources.iter().any(|source| source.module == path)
    });
    let findings = findings.map(|pure| format!("tests/tidy/layers.rs: there is no module `{pure}`")).collect();
    report("a list of modules that do not exist protects nothing", findings);
}

const fn module(name: &'static str, layer: u8, besides: &'static [&'static str]) -> Module {
    Module { name, layer, besides }
}

fn find(name: &str) -> Option<&'static Module> {
    MODULES.iter().find(|module| module.name == name)
}

fn is_pure(module: &[String]) -> bool {
    let name = module.join("::");
    PURE.iter().any(|pure| name == *pure || name.starts_with(&format!("{pure}::")))
        // The file above pure files says what they share.
        || name == "store"
}

/// The paths of our own modules that a file names, each with its place: `crate::…` and what `super::…` leads to.
fn references(source: &Source) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (start, _) in source.code.match_indices("crate::") {
        if is_word_start(&source.code, start) {
            for path in paths(&source.code[start + "crate::".len()..]) {
                found.push((source.at(start), path));
            }
        }
    }
    for (start, _) in source.code.match_indices("super::") {
        if !is_word_start(&source.code, start) || source.code[..start].ends_with("super::") {
            continue;
        }
        let mut rest = &source.code[start..];
        let mut module = source.module.clone();
        while let Some(behind) = rest.strip_prefix("super::") {
            module.pop();
            rest = behind;
        }
        for path in paths(rest) {
            found.push((source.at(start), module.iter().cloned().chain(path).collect()));
        }
    }
    found.retain(|(_, path)| !path.is_empty());
    found
}

/// The paths that begin here; a group in braces is several.
fn paths(code: &str) -> Vec<Vec<String>> {
    let code = code.trim_start();
    if let Some(group) = code.strip_prefix('{') {
        return members(group).into_iter().flat_map(paths).collect();
    }
    let name: String = code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() || name == "self" {
        return vec![vec![]];
    }
    match code[name.len()..].strip_prefix("::") {
        Some(rest) => paths(rest).into_iter().map(|path| [vec![name.clone()], path].concat()).collect(),
        None => vec![vec![name]],
    }
}

/// What is between the commas of a group, up to its closing brace.
fn members(group: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                return members;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

fn is_word_start(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$')
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let behind = code[at + word.len()..].chars().next();
        is_word_start(code, at) && !behind.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn references_are_found_in_every_form() {
    let code = "use crate::{host::Body, session::{self, Input}, protocol as wire};\nuse super::super::runner::Driver;\n\
                fn f(x: super::Sibling) -> crate::gateway::Id { my_crate::x() }";
    let module = vec!["api".to_owned(), "kv".to_owned()];
    let source = Source { path: "src/api/kv.rs".to_owned(), module, code: code.to_owned() };
    let found: Vec<String> =
        references(&source).into_iter().map(|(at, path)| format!("{at} {}", path.join("::"))).collect();
    assert_eq!(
        found,
        [
            "src/api/kv.rs:1 host::Body",
            "src/api/kv.rs:1 session",
            "src/api/kv.rs:1 session::Input",
            "src/api/kv.rs:1 protocol",
            "src/api/kv.rs:3 gateway::Id",
            "src/api/kv.rs:2 runner::Driver",
            "src/api/kv.rs:3 api::Sibling",
        ]
    );
    assert!(
        has_word("let x = tokio::spawn", "tokio") && !has_word("tokio_like", "tokio") && !has_word("operand", "rand")
    );
}
