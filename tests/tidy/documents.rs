//! Documents and examples agree with what is there.

use std::path::Path;

use super::report;
use super::source::{files, read, root};

#[test]
fn every_program_of_the_example_actors_exists() {
    let file: toml::Table = read("examples/actors.toml").parse().unwrap();
    let actors = file["actors"].as_table().unwrap();
    let (mut findings, mut programs) = (Vec::new(), 0);
    for (actor, settings) in actors {
        let words = settings.get("command").and_then(|command| command.as_array()).into_iter().flatten();
        // A command for a shell has its words in one.
        let words = words.filter_map(|word| word.as_str()).flat_map(str::split_whitespace);
        for word in words.filter(|word| [".rs", ".mjs", ".py", ".sh"].iter().any(|ending| word.ends_with(ending))) {
            programs += 1;
            if !root().join("examples").join(word).exists() {
                findings.push(format!("examples/actors.toml: actors.{actor} runs `{word}`: no examples/{word}"));
            }
        }
    }
    let commands = actors.values().filter(|settings| settings.get("command").is_some()).count();
    assert_eq!(programs, commands, "each example actor with a command runs a program of its own");
    report("the example actors can be started", findings);
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut findings = Vec::new();
    for path in files("").into_iter().filter(|path| path.ends_with(".md")) {
        for (line, text) in (1..).zip(read(&path).lines()) {
            for target in links(text).filter(|target| !target.contains("://") && !target.starts_with(['#', '/'])) {
                let file = target.split('#').next().unwrap();
                if !root().join(&path).parent().unwrap().join(file).exists() {
                    findings.push(format!("{path}:{line}: {target}"));
                }
            }
        }
    }
    report("a link leads to a file that exists", findings);
}

#[test]
fn every_threat_has_a_test_that_exists() {
    let guide = read("docs/OPERATIONS.md");
    let section = guide.split_once("\n### Threats\n").expect("docs/OPERATIONS.md has a section `Threats`").1;
    let section = section.split("\n## ").next().unwrap();
    let rust = files("").into_iter().filter(|path| path.ends_with(".rs"));
    let code: String = rust.map(|path| read(&path)).collect();
    let mut findings = Vec::new();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    for row in &rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            findings.push(format!("docs/OPERATIONS.md: no test: {row}"));
        }
        let missing = names.into_iter().filter(|name| !code.contains(&format!("fn {name}()")));
        findings.extend(missing.map(|name| format!("docs/OPERATIONS.md: there is no test {name}")));
    }
    assert!(rows.len() > 20, "the table of threats was read");
    report("every row of the table of threats names its tests", findings);
}

#[test]
fn the_readme_gives_a_reason_for_every_dependency() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let readme = read("README.md");
    let reasons = readme.split_once("\n## Dependencies").map_or("", |(_, section)| section);
    let findings = manifest["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .filter(|name| !name.starts_with("greenroom") && !reasons.contains(&format!("`{name}`")))
        .map(|name| format!("README.md, dependencies: `{name}` is missing"));
    report("every dependency has a reason", findings.collect());
}

#[test]
fn ci_runs_what_the_readme_says() {
    let readme = read("README.md");
    let test = readme.split_once("\n## Test it\n").expect("README.md has a section `Test it`").1;
    let mut blocks = test.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    assert_eq!(
        blocks.next(),
        Some("cargo test --workspace\n"),
        "README.md: the command that passes the tests comes first"
    );
    let interop = blocks.next().expect("README.md: the commands of the interop suite come second");
    assert!(interop.contains("npm ci") && interop.contains("--test interop"), "README.md: {interop}");
    let ci = read(".ci/run");
    assert!(ci.contains("from_readme 1") && ci.contains("from_readme 2"), ".ci/run runs both blocks of the README");
    assert!(Path::new(&root().join(".github/workflows/ci.yml")).exists());
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}
