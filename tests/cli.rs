//! The command from the outside: arguments and variables in, output and exit codes out.
#![cfg(feature = "daemon")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn version_is_told_to_people_and_programs() {
    let output = greenroom(&["version"], &[]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).starts_with(&format!("greenroom {}", env!("CARGO_PKG_VERSION"))));

    let output = greenroom(&["version", "--json"], &[]);
    assert_eq!(code(&output), 0);
    let version: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["protocol_versions"], serde_json::json!([4, 5, 6, 7]));

    assert_eq!(stdout(&greenroom(&["--version"], &[])).trim(), concat!("greenroom ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_mistakes_end_with_64_and_a_suggestion() {
    check(&["gatway"], 64, "gateway");
    check(&["run", "--slot", "5"], 64, "--slots");
    check(&["run", "--slots"], 64, "--slots");
    check(&["run", "--slots", "5", "--slots", "6"], 64, "--slots");
    check(&["run", "--token", "secret"], 64, "--token");
    check(&["gateway", "--slots", "5"], 64, "--slots");
    check(&[], 64, "Usage");
    check(&["config"], 64, "check");
}

#[test]
fn what_is_not_built_says_so() {
    for command in ["workflows", "jobs"] {
        check(&[command, "list", "--json"], 64, "not built yet in this version");
    }
}

#[test]
fn help_names_the_settings_of_each_command_and_their_variables() {
    let output = greenroom(&["run", "--help"], &[]);
    assert_eq!(code(&output), 0);
    let help = stdout(&output);
    assert!(help.contains("--endpoint") && help.contains("GREENROOM_ENDPOINT"), "{help}");
    assert!(!help.contains("--listen") && help.contains("--otlp-endpoint"), "{help}");
    let help = stdout(&greenroom(&["gateway", "--help"], &[]));
    assert!(help.contains("--listen") && !help.contains("--endpoint"), "{help}");
}

#[test]
fn ten_wrong_settings_are_told_in_one_run_with_exit_78() {
    let dir = tempfile::tempdir().unwrap();
    let actors = write(dir.path(), "actors.toml", "[actors.a]\ncomand = [\"x\"]\nlisten = \"unx\"\n");
    let variables = [
        ("GREENROOM_SLOT", "5"),
        ("GREENROOM_RUNNER_VERSION", "new"),
        ("GREENROOM_TOKEN", "canary token"),
        ("GREENROOM_LOG", "inof"),
    ];
    let arguments = [
        "run",
        "--endpoint=gateway:6420",
        "--slots=0",
        "--protocol-version=3",
        "--drain-timeout=soon",
        "--admin=nowhere",
        "--actor=counter",
        "--actors",
        &actors,
    ];
    let output = greenroom(&arguments, &variables);
    assert_eq!(code(&output), 78);
    let stderr = stderr(&output);
    let mut lines = stderr.lines();
    assert_eq!(lines.next(), Some("greenroom: 13 mistakes in the configuration"), "{stderr}");
    for place in [
        "GREENROOM_SLOT: unknown variable (did you mean GREENROOM_SLOTS?)",
        "GREENROOM_RUNNER_VERSION=\"new\": expected a count",
        "GREENROOM_TOKEN: expected a token without spaces",
        "GREENROOM_LOG=\"inof\"",
        "--endpoint=\"gateway:6420\": expected a URL",
        "--slots=\"0\": expected a count from 1 to 4000000",
        "--protocol-version=\"3\": expected a count from 4 to 7",
        "--drain-timeout=\"soon\": expected a duration like 250ms, 30s or 5m",
        "--admin=\"nowhere\": expected an IP address",
        "--actor=\"counter\": expected NAME=COMMAND",
        &format!("{actors}:1: actors.a: expected a command"),
        &format!("{actors}:2: actors.a.comand: unknown key (did you mean command?)"),
        &format!("{actors}:3: actors.a.listen = \"unx\": expected one of unix, port, fd"),
    ] {
        assert!(stderr.lines().any(|line| line.trim_start().starts_with(place)), "missing {place}\nin {stderr}");
    }
    assert!(!stderr.contains("canary"), "{stderr}");
}

#[test]
fn a_gateway_does_not_listen_beyond_loopback_without_a_token() {
    check(&["gateway", "--listen", "0.0.0.0:6420"], 78, "--admin-token-file");
    check(&["dev", "--listen", "0.0.0.0:6420"], 78, "--insecure");
}

#[test]
fn config_check_finds_the_mistakes_of_every_command_and_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let output = greenroom(&["config", "check", "--data-dir", data_dir], &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(!Path::new(data_dir).exists());
    check(&["config", "check", "--slots", "0", "--runner-lost-after", "x"], 78, "2 mistakes");
}

#[test]
fn config_show_names_sources_and_hides_secrets() {
    let variables = [("GREENROOM_TOKEN", "canary"), ("GREENROOM_SLOTS", "7")];
    let output = greenroom(&["config", "show", "--namespace", "stage", "--actor", "a=sleep 1"], &variables);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let lines: Vec<Vec<String>> =
        stdout(&output).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    for row in [
        ["slots", "7", "GREENROOM_SLOTS"],
        ["namespace", "stage", "--namespace"],
        ["endpoint", "http://127.0.0.1:6420", "default"],
    ] {
        assert!(lines.iter().any(|line| *line == row), "missing {row:?} in {lines:#?}");
    }
    assert!(stdout(&output).contains("/.greenroom/run"));
    assert!(stdout(&output).contains("(set, not shown)") && !stdout(&output).contains("canary"));
    assert!(stdout(&output).contains("[\"sh\", \"-c\", \"sleep 1\"]"));
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let table = greenroom::config::markdown();
    assert!(readme.contains(&table), "put this between the settings markers of README.md:\n\n{table}");
}

#[track_caller]
fn check(arguments: &[&str], expected: i32, says: &str) {
    let output = greenroom(arguments, &[]);
    assert_eq!(code(&output), expected, "{}", stderr(&output));
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
    assert!(stdout(&output).is_empty());
}

/// Runs the command with these variables and no others.
fn greenroom(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_greenroom"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn write(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
