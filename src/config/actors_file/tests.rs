use super::*;

#[test]
fn an_actor_needs_only_a_command() {
    let actors = read("[actors.counter]\ncommand = [\"node\", \"counter.mjs\"]\n").unwrap();
    let expected = ActorDefinition {
        name: "counter".to_owned(),
        command: vec!["node".to_owned(), "counter.mjs".to_owned()],
        cwd: directory(),
        env: BTreeMap::new(),
        env_file: None,
        listen: Listen::Unix,
        start_timeout: None,
        stop_grace: None,
    };
    assert_eq!(actors, [expected]);
}

#[test]
fn what_is_said_holds_and_paths_are_relative_to_the_file() {
    let text = r#"
        [actors."a.b"]
        command = ["./run"]
        process = "per-actor"
        cwd = "."
        env = { LOG = "debug" }
        listen = "port"
        websocket = "proxy"
        sleep_after = "never"
        jobs = false
        start_timeout = "5s"
        stop_grace = "250ms"
    "#;
    let actors = read(text).unwrap();
    assert_eq!(actors[0].name, "a.b");
    assert_eq!(actors[0].cwd, directory().join("."));
    assert_eq!(actors[0].env["LOG"], "debug");
    assert_eq!(actors[0].listen, Listen::Port);
    assert_eq!(actors[0].start_timeout, Some(Duration::from_secs(5)));
    assert_eq!(actors[0].stop_grace, Some(Duration::from_millis(250)));
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let text = r#"
[actors.a]
comand = ["node"]
listen = "unx"
start_timeout = 5
stop_grace = "12s"
cwd = "missing"
env_file = "missing.env"
env = { ACTOR_ID = "x", OK = "y", N = 3 }

[actors.b]
command = []

[actors]
c = 1

[actor.d]
"#;
    check(
        text,
        &[
            "actors.toml:17: actor: unknown key (did you mean actors?)",
            "actors.toml:2: actors.a: expected a command, like command = [\"node\", \"counter.mjs\"]",
            "actors.toml:3: actors.a.comand: unknown key (did you mean command?)",
            "actors.toml:4: actors.a.listen = \"unx\": expected one of unix, port, fd (did you mean unix?)",
            "actors.toml:5: actors.a.start_timeout = 5: expected a duration like \"250ms\", \"30s\" or \"5m\"",
            "actors.toml:6: actors.a.stop_grace = \"12s\": expected less than --drain-timeout (12s), or the actor is cut off",
            "actors.toml:7: actors.a.cwd = \"missing\": expected a directory",
            "actors.toml:8: actors.a.env_file = \"missing.env\": expected a file",
            "actors.toml:9: actors.a.env.ACTOR_ID: this variable is set by greenroom",
            "actors.toml:9: actors.a.env.N: expected text in quotes",
            "actors.toml:12: actors.b.command: expected a list of texts, the program first, like [\"node\", \"counter.mjs\"]",
            "actors.toml:15: actors.c: expected a table: [actors.c]",
        ],
    );
}

#[test]
fn what_is_not_built_is_refused_and_says_what_works() {
    let text = r#"
[actors.a]
command = ["x"]
process = "per-name"
websocket = "events"
sleep_after = "60s"
memory_max = "256MiB"
jobs = true
[egress.llm]
url = "https://llm"
"#;
    check(
        text,
        &[
            "actors.toml:4: actors.a.process = \"per-name\": not built yet in this version; what works is \"per-actor\"",
            "actors.toml:5: actors.a.websocket = \"events\": not built yet in this version; what works is \"proxy\"",
            "actors.toml:6: actors.a.sleep_after = \"60s\": not built yet in this version; what works is \"never\"",
            "actors.toml:7: actors.a.memory_max = \"256MiB\": not built yet in this version",
            "actors.toml:8: actors.a.jobs = true: not built yet in this version; what works is \"false\"",
            "actors.toml:9: egress: not built yet in this version",
        ],
    );
}

#[test]
fn a_file_that_is_no_toml_names_the_lines() {
    check("[actors.a]\ncommand = [\"x\"]\nlisten = unix\n", &["actors.toml:3: string values must be quoted"]);
    check("[actors.a]\ncommand = [\"x\"]\ncommand = [\"y\"]\n", &["actors.toml:3: duplicate key"]);
}

#[test]
fn an_actor_that_names_no_grace_gets_one_that_fits_the_drain() {
    let mut mistakes = Mistakes::default();
    let text = "[actors.a]\ncommand = [\"x\"]\n";
    let actors = parse(text, "actors.toml", &directory(), Duration::from_secs(5), &mut mistakes);
    assert_eq!(actors[0].stop_grace, Some(Duration::from_secs(4)));
}

#[test]
fn host_and_port_are_given_out_only_with_a_port() {
    assert!(read("[actors.a]\ncommand = [\"x\"]\nenv = { PORT = \"80\" }\n").is_ok());
    assert!(read("[actors.a]\ncommand = [\"x\"]\nlisten = \"port\"\nenv = { PORT = \"80\" }\n").is_err());
}

/// Each expected text is the beginning of a mistake, and there are no others.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let mistakes = read(text).unwrap_err();
    let mut lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    for text in expected {
        let index = lines.iter().position(|line| line.starts_with(text));
        lines.remove(index.unwrap_or_else(|| panic!("missing {text}\nin {lines:#?}")));
    }
    assert!(lines.is_empty(), "unexpected {lines:#?}");
}

fn read(text: &str) -> Result<Vec<ActorDefinition>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let actors = parse(text, "actors.toml", &directory(), Duration::from_secs(12), &mut mistakes);
    mistakes.unless_any(actors)
}

fn directory() -> PathBuf {
    PathBuf::from("/tmp")
}
