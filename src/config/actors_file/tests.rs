use super::*;

#[test]
fn an_actor_needs_only_a_command() {
    let actors = read("[actors.counter]\ncommand = [\"node\", \"counter.mjs\"]\n").unwrap();
    let expected = ActorDefinition {
        name: "counter".to_owned(),
        command: vec!["node".to_owned(), "counter.mjs".to_owned()],
        process: ProcessPer::Actor,
        upstream: vec![],
        health: None,
        cwd: directory(),
        env: BTreeMap::new(),
        env_file: None,
        listen: Listen::Unix,
        proxy_sockets: false,
        concurrency: None,
        sleep_after: None,
        start_timeout: None,
        stop_grace: None,
        sandbox: true,
        read_paths: vec![],
        write_paths: vec![],
        user: None,
        memory_max: None,
        pids_max: None,
        egress: vec![],
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
        concurrency = 1000
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
    assert!(actors[0].proxy_sockets);
    assert_eq!(actors[0].concurrency, Some(1000));
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
            "actors.toml:4: actors.a.listen = \"unx\": expected one of unix, port, fd, pull (did you mean unix?)",
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
websocket = "events"
concurrency = 1
sleep_after = "60s"
jobs = true
"#;
    check(text, &["actors.toml:7: actors.a.jobs = true: not built yet in this version; what works is \"false\""]);
}

#[test]
fn a_user_is_one_of_this_system_and_not_root() {
    let actors = read("[actors.a]\ncommand = [\"x\"]\nuser = \"daemon\"\n").unwrap();
    let user = actors[0].user.as_ref().unwrap();
    assert!(user.name == "daemon" && user.uid != 0 && user.groups.contains(&user.gid), "{user:?}");
    check(
        "[actors.a]\ncommand = [\"x\"]\nuser = \"root\"\n[actors.b]\ncommand = [\"x\"]\nuser = \"no such one\"\n",
        &[
            "actors.toml:3: actors.a.user = \"root\": expected a user without the rights of root",
            "actors.toml:6: actors.b.user = \"no such one\": expected the name of a user of this system; there is none \
             with this one",
        ],
    );
}

#[test]
fn limits_of_memory_and_processes_have_units_and_bounds() {
    let actors = read("[actors.a]\ncommand = [\"x\"]\nmemory_max = \"256MiB\"\npids_max = 64\n").unwrap();
    assert_eq!((actors[0].memory_max, actors[0].pids_max), (Some(256 << 20), Some(64)));
    check(
        "[actors.a]\ncommand = [\"x\"]\nmemory_max = \"4KiB\"\npids_max = 0\n",
        &[
            "actors.toml:3: actors.a.memory_max = \"4KiB\": expected at least 1MiB",
            "actors.toml:4: actors.a.pids_max = 0: expected a count from 1 to 4194304",
        ],
    );
    check(
        "[actors.a]\nupstream = [\"http://127.0.0.1:9\"]\npids_max = 9\n",
        &["actors.toml:3: actors.a.pids_max = 9: this is for a process that greenroom starts, and upstreams are not"],
    );
}

#[test]
fn one_process_for_all_and_servers_elsewhere() {
    let actors = read("[actors.a]\ncommand = [\"x\"]\nprocess = \"per-name\"\n").unwrap();
    assert_eq!(actors[0].process, ProcessPer::Name);
    let text = "[actors.a]\nupstream = [\"http://127.0.0.1:9000\", \"unix:/run/a.sock\"]\nhealth = \"/health\"\n";
    let actors = read(text).unwrap();
    let urls: Vec<_> = actors[0].upstream.iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["http://127.0.0.1:9000", "unix:/run/a.sock"]);
    assert_eq!((actors[0].command.len(), actors[0].health.as_deref()), (0, Some("/health")));
}

#[test]
fn every_mistake_about_upstreams_is_told() {
    let text = r#"
[actors.a]
upstream = ["ftp://x", "http://a:1", "http://a:1"]
health = "health"
env = {}
listen = "port"
[actors.b]
upstream = []
command = ["x"]
[actors.c]
command = ["x"]
health = "/health"
process = "per-nam"
[actors.d]
command = ["x"]
process = "per-name"
listen = "pull"
"#;
    check(
        text,
        &[
            "actors.toml:3: actors.a.upstream: \"ftp://x\": expected http://host:port, https://host or unix:",
            "actors.toml:3: actors.a.upstream: http://a:1 is there twice",
            "actors.toml:4: actors.a.health = \"health\": expected a path",
            "actors.toml:5: actors.a.env: this is for a process that greenroom starts",
            "actors.toml:6: actors.a.listen = \"port\": this is for a process that greenroom starts",
            "actors.toml:8: actors.b.upstream: expected only one of command and upstream",
            "actors.toml:8: actors.b.upstream: expected 1 to 64 URLs",
            "actors.toml:12: actors.c.health = \"/health\": only upstreams have a health check",
            "actors.toml:13: actors.c.process = \"per-nam\": expected one of per-actor, per-name (did you mean per-name?)",
            "actors.toml:17: actors.d.listen = \"pull\": expected unix, port or fd",
        ],
    );
}

#[test]
fn an_egress_has_defaults_and_is_used_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let credential = dir.path().join("llm");
    std::fs::write(&credential, "canary").unwrap();
    std::fs::set_permissions(&credential, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        "[actors.a]\ncommand = [\"x\"]\negress = [\"llm\"]\n[egress.llm]\nurl = \"https://llm/v1/\"\n\
         credential_file = {credential:?}\npreferred_backend_header = \"X-Preferred\"\nmax_body = \"1MiB\"\n\
         timeout = \"5s\"\nmax_in_flight = 3\n[egress.other]\nurl = \"http://127.0.0.1:1\"\nallow_link_local = true\n"
    );
    let mut mistakes = Mistakes::default();
    let file = parse(&text, "actors.toml", &directory(), Duration::from_secs(12), &mut mistakes);
    assert!(mistakes.is_empty(), "{mistakes}");
    assert_eq!(file.actors[0].egress, ["llm"]);
    let [llm, other] = &file.egress[..] else { panic!("{:?}", file.egress) };
    assert_eq!((llm.url.to_string(), llm.max_body), ("https://llm:443/v1".to_owned(), 1 << 20));
    assert_eq!((llm.timeout, llm.max_in_flight), (Duration::from_secs(5), 3));
    assert_eq!(llm.preferred_backend_header.as_ref().unwrap(), "x-preferred");
    assert!(llm.credential.is_some() && !format!("{llm:?}").contains("canary"));
    assert!(other.allow_link_local && other.credential.is_none() && !llm.allow_link_local);
    assert_eq!(other.timeout, Duration::from_secs(120));
}

#[test]
fn every_mistake_in_an_egress_is_told_with_its_line() {
    let text = r#"
[actors.a]
command = ["x"]
egress = ["lmm"]
[egress.llm]
ulr = "https://llm"
[egress."a/b"]
url = "wss://llm"
credential_file = "missing"
cache_key_header = "a b"
allow_link_local = "yes"
timeout = "0s"
max_body = "5"
max_in_flight = 0
"#;
    check(
        text,
        &[
            "actors.toml:4: actors.a.egress: there is no [egress.lmm]",
            "actors.toml:5: egress.llm: expected a url, like url = \"https://llm.internal/v1\"",
            "actors.toml:6: egress.llm.ulr: unknown key (did you mean url?)",
            "actors.toml:7: egress.a/b: expected a name of 1 to 64 letters, digits, - and _: it is part of a path",
            "actors.toml:8: egress.a/b.url = \"wss://llm\": expected a URL that begins with http or https",
            "actors.toml:9: egress.a/b.credential_file = \"missing\": cannot be read",
            "actors.toml:10: egress.a/b.cache_key_header = \"a b\": expected the name of a header",
            "actors.toml:11: egress.a/b.allow_link_local = \"yes\": expected true or false",
            "actors.toml:12: egress.a/b.timeout = \"0s\": expected more than 0s",
            "actors.toml:13: egress.a/b.max_body = \"5\": expected a unit",
            "actors.toml:14: egress.a/b.max_in_flight = 0: expected a count from 1 to 100000",
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
    let file = parse(text, "actors.toml", &directory(), Duration::from_secs(5), &mut mistakes);
    assert_eq!(file.actors[0].stop_grace, Some(Duration::from_secs(4)));
}

#[test]
fn a_sandbox_is_on_unless_it_is_off_and_its_paths_are_relative_to_the_file() {
    let text = "[actors.a]\ncommand = [\"x\"]\nread_paths = [\"models\"]\nwrite_paths = [\"/srv/x\"]\n";
    let actors = read(text).unwrap();
    assert!(actors[0].sandbox);
    assert_eq!(actors[0].read_paths, [directory().join("models")]);
    assert_eq!(actors[0].write_paths, [PathBuf::from("/srv/x")]);
    assert!(!read("[actors.a]\ncommand = [\"x\"]\nsandbox = \"off\"\n").unwrap()[0].sandbox);
    check(
        "[actors.a]\ncommand = [\"x\"]\nsandbox = \"off\"\nread_paths = [\"/a\"]\nwrite_paths = 3\n",
        &[
            "actors.toml:4: actors.a.read_paths: without a sandbox",
            "actors.toml:5: actors.a.write_paths = 3: expected a list of paths",
        ],
    );
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
    let file = parse(text, "actors.toml", &directory(), Duration::from_secs(12), &mut mistakes);
    mistakes.unless_any(file.actors)
}

fn directory() -> PathBuf {
    PathBuf::from("/tmp")
}
