//! What is special to child processes: their environment, their hooks, their end, and what must not reach them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenroom::actor::{Outcome, StopReason};
use greenroom::host::Body;
use greenroom::host::child_process::{ChildProcess, Listen, Settings};

use crate::stage::{Kind, Stage, Stream, actor, app, app_with, in_time, runs, shell, until};

#[tokio::test]
async fn the_environment_is_the_contracts_the_files_and_little_else() {
    let directory = tempfile::tempdir().unwrap();
    let env_file = directory.path().join("env");
    std::fs::write(&env_file, "FROM_FILE=1\nBOTH=file\nACTOR_ID=spoofed\n").unwrap();
    let settings = Settings { env_file: Some(env_file), ..app_with(&[("BOTH", "env"), ("TMPDIR", "/")]) };
    let mut stage = Stage::child(settings);
    stage.running().await;
    let environment = environment(&stage).await;

    let value = |name: &str| environment.get(name).map(String::as_str);
    assert_eq!(value("ACTOR_ID"), Some("a1"));
    assert_eq!(value("ACTOR_NAME"), Some("suite"));
    assert_eq!(value("ACTOR_KEY"), Some("key/with ü"));
    assert_eq!(value("ACTOR_GENERATION"), Some("1"));
    assert_eq!(value("ACTOR_START_REASON"), Some("create"));
    assert_eq!(value("ACTOR_API"), Some("http://127.0.0.1:9"));
    assert_eq!(value("FROM_FILE"), Some("1"));
    assert_eq!(value("BOTH"), Some("env"));
    let known = [
        "ACTOR_API",
        "ACTOR_API_SOCKET",
        "ACTOR_GENERATION",
        "ACTOR_ID",
        "ACTOR_KEY",
        "ACTOR_NAME",
        "ACTOR_SOCKET",
        "ACTOR_START_REASON",
        "ACTOR_STATE_DIR",
        "ACTOR_TOKEN_FILE",
        "BOTH",
        "FROM_FILE",
        "HOME",
        "LANG",
        "PATH",
        "TMPDIR",
        "TZ",
    ];
    // Added by the interpreter and by a shell in front of it.
    let added = ["LC_CTYPE", "PWD", "OLDPWD", "SHLVL", "_"];
    let others: Vec<_> = environment
        .keys()
        .filter(|name| !known.contains(&name.as_str()) && !added.contains(&name.as_str()) && !name.contains("PYENV"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    for directory in ["ACTOR_STATE_DIR", "TMPDIR"] {
        assert_eq!(mode(Path::new(&environment[directory])), 0o700, "{directory}");
    }
}

#[tokio::test]
async fn the_token_is_in_a_private_file_while_the_life_lasts() {
    let mut stage = Kind::Unix.stage().await;
    let environment = environment(&stage).await;
    let file = PathBuf::from(&environment["ACTOR_TOKEN_FILE"]);
    assert_eq!(mode(&file), 0o400);
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(stage.tokens.live.lock().unwrap().contains_key(&token));

    stage.stop(StopReason::Sleep).await;
    assert!(!file.exists());
    assert!(!Path::new(&environment["ACTOR_SOCKET"]).exists());
    assert!(!Path::new(&environment["TMPDIR"]).exists());
    assert!(stage.tokens.live.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_state_directory_lasts_until_the_actor_asked_to_be_destroyed() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let start = |generation| {
        Stage::with(directory.clone(), actor("a1", generation), |roots, doors| {
            Arc::new(ChildProcess::new(app(), roots, doors))
        })
    };
    let mut stage = start(1);
    stage.running().await;
    let kept = Path::new(&environment(&stage).await["ACTOR_STATE_DIR"]).join("kept");
    std::fs::write(&kept, "1").unwrap();
    stage.stop(StopReason::Sleep).await;
    assert!(kept.exists());

    let mut stage = start(2);
    stage.running().await;
    assert!(kept.exists());
    stage.stop(StopReason::Destroy).await;
    assert!(!kept.exists());
}

#[tokio::test]
async fn hostile_names_and_keys_stay_out_of_paths() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut start = actor("../../../escaped", 1);
    start.actor_key = Some("../../etc/passwd\n\r\u{1b}".into());
    let mut stage = Stage::with(directory, start, |roots, doors| Arc::new(ChildProcess::new(app(), roots, doors)));
    stage.running().await;
    let environment = environment(&stage).await;
    for name in ["ACTOR_STATE_DIR", "TMPDIR", "ACTOR_TOKEN_FILE", "ACTOR_SOCKET"] {
        assert!(Path::new(&environment[name]).starts_with(stage.directory.path()), "{name}");
        assert!(!environment[name].contains(".."), "{name}");
    }
    let headers = headers(&stage, &[]).await;
    assert_eq!(headers["actor-key"], ["../../etc/passwd%0A%0D%1B"]);
}

#[tokio::test]
async fn clients_cannot_pose_as_the_runner_and_ours_are_added() {
    let stage = Kind::Unix.stage().await;
    let headers = headers(
        &stage,
        &[
            ("actor-event", "stop"),
            ("Actor-Id", "spoofed"),
            ("ACTOR-KEY", "spoofed"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "100"),
            ("x-kept", "1"),
            ("host", "client.example"),
        ],
    )
    .await;
    assert_eq!(headers["actor-id"], ["a1"]);
    assert_eq!(headers["actor-name"], ["suite"]);
    assert_eq!(headers["actor-key"], ["key/with %C3%BC"]);
    assert_eq!(headers["actor-generation"], ["1"]);
    assert_eq!(headers["actor-request-id"][0].len(), 16);
    assert_eq!(headers["traceparent"][0].split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
    assert_eq!(headers["x-kept"], ["1"]);
    assert_eq!(headers["host"], ["client.example"]);
    for gone in ["actor-event", "x-hop", "transfer-encoding", "content-length", "connection"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    let traced = super::child_process::headers(&stage, &[("traceparent", TRACE)]).await;
    assert_eq!(traced["traceparent"], [TRACE]);
}

#[tokio::test]
async fn the_hook_path_is_not_there_for_clients() {
    let directory = tempfile::tempdir().unwrap();
    let hooks = directory.path().join("hooks");
    let mut stage = Stage::child(app_with(&[("HOOKS", hooks.to_str().unwrap())]));
    stage.running().await;
    let before = std::fs::read_to_string(&hooks).unwrap();
    for path in ["/_actor", "/_actor/", "/_actor?x=1", "/%5Factor", "/./_actor", "/x/../_actor", "//_actor", "/_Actor"]
    {
        for method in ["GET", "POST"] {
            let answer = stage.send(method, path, &[("actor-event", "stop")], whole("")).answer().await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
    }
    assert_eq!(std::fs::read_to_string(&hooks).unwrap(), before);
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused() {
    let stage = Kind::Unix.stage().await;
    for (method, path, headers) in [
        ("GET", "no-slash", &[][..]),
        ("GET", "http://elsewhere/", &[]),
        ("GET", "/a b HTTP/1.1\r\nx: y", &[]),
        ("GET", "", &[]),
        ("G ET", "/ping", &[]),
        ("GET\r\n", "/ping", &[]),
        ("GET", "/ping", &[("x", "a\r\nactor-event: stop")]),
        ("GET", "/ping", &[("x\r\ny", "a")]),
    ] {
        let answer = stage.send(method, path, headers, whole("")).answer().await;
        assert_eq!(answer.status, 400, "{method:?} {path:?} {headers:?}");
    }
    assert_eq!(stage.send("CONNECT", "/ping", &[], whole("")).answer().await.status, 501);
}

#[tokio::test]
async fn a_body_is_framed_by_its_own_length_whatever_the_client_declared() {
    let stage = Kind::Unix.stage().await;
    for length in ["1", "100", "x", "+5"] {
        let headers = [("content-length", length), ("transfer-encoding", "chunked")];
        assert_eq!(stage.send("POST", "/length", &headers, whole("12345")).answer().await.text(), "5", "{length}");
    }
    // In pieces, a body that is shorter than declared is a client that went away, and what is too much is left out.
    for (pieces, expected) in [(1, None), (2, Some("20")), (3, Some("20"))] {
        let (sender, body) = Body::pieces(4);
        let mut stream = stage.send("POST", "/length", &[("content-length", "20")], body);
        for _ in 0..pieces {
            in_time(sender.send(Ok(Bytes::from_static(b"1234567890")))).await.unwrap();
        }
        drop(sender);
        assert_eq!(stream.try_answer().await.as_ref().map(|answer| answer.text()), expected, "{pieces}");
    }
    assert_eq!(stage.text("/ping").await, "pong");
}

#[tokio::test]
async fn a_response_that_is_shorter_than_it_says_is_aborted() {
    let stage = Kind::Unix.stage().await;
    let mut stream = stage.send("GET", "/wrong/length", &[], whole(""));
    assert!(stream.try_answer().await.is_none());
    let answer = stage.send("HEAD", "/ping", &[], whole("")).answer().await;
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("1234"), 0));
    assert_eq!(stage.get("/bytes?5").await.header("content-length"), Some("5"));
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_stale_one_is_not() {
    let stage = Kind::Unix.stage().await;
    for _ in 0..3 {
        assert_eq!(stage.text("/ping").await, "pong");
    }
    // Closes its connection without saying so; whoever comes next must not meet it.
    assert_eq!(stage.get("/silent").await.status, 502);
    for _ in 0..3 {
        assert_eq!(stage.text("/ping").await, "pong");
    }
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_a_bad_gateway_that_names_the_actor() {
    let stage = Kind::Unix.stage().await;
    let socket = environment(&stage).await["ACTOR_SOCKET"].clone();
    for path in ["/silent", "/nonsense"] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, 502, "{path}");
        assert!(answer.text().contains("suite (a1@1)"), "{}", answer.text());
    }
    // The last answers have cost their connections, so the next request needs a new one.
    std::fs::remove_file(socket).unwrap();
    let answer = stage.get("/ping").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("cannot be reached"), "{}", answer.text());
}

#[tokio::test]
async fn a_crash_aborts_its_requests_and_tells_code_and_last_words() {
    let mut stage = Kind::Unix.stage().await;
    let mut stream = stage.send("GET", "/crash", &[], whole(""));
    assert!(stream.try_answer().await.is_none());
    let reason = stage.failed().await;
    assert!(reason.contains("`python3 app.py` exited with code 3"), "{reason}");
    assert!(reason.contains("line 29\n") && !reason.contains("line 10\n"), "{reason}");
    assert!(reason.ends_with("\\u{1b}[31mgoodbye\\u{7}"), "{reason}");
}

#[tokio::test]
async fn a_death_by_signal_tells_which() {
    let mut stage = Kind::Unix.stage().await;
    stage.send("GET", "/suicide", &[], whole(""));
    let reason = stage.failed().await;
    assert!(reason.contains("signal 9 (SIGKILL)") && reason.contains("memory"), "{reason}");
}

#[tokio::test]
async fn an_exit_that_nobody_asked_for_is_a_failure() {
    let mut stage = Kind::Unix.stage().await;
    stage.send("GET", "/leave", &[], whole(""));
    let reason = stage.failed().await;
    assert!(reason.contains("exited with code 0, without being asked"), "{reason}");
}

#[tokio::test]
async fn hooks_are_told_of_start_and_stop() {
    let directory = tempfile::tempdir().unwrap();
    let hooks = directory.path().join("hooks");
    let mut stage = Stage::child(app_with(&[("HOOKS", hooks.to_str().unwrap())]));
    stage.running().await;
    stage.stop(StopReason::Drain).await;
    let hooks: Vec<BTreeMap<String, String>> =
        std::fs::read_to_string(&hooks).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |n: usize, name: &str| hooks[n].get(name).map(String::as_str);
    assert_eq!(hooks.len(), 2);
    assert_eq!((told(0, "actor-event"), told(0, "actor-reason")), (Some("start"), Some("create")));
    assert_eq!((told(1, "actor-event"), told(1, "actor-reason")), (Some("stop"), Some("drain")));
    assert_eq!(told(1, "actor-id"), Some("a1"));
    assert!(told(1, "actor-deadline-ms").unwrap().parse::<u64>().unwrap() <= 10_000);
}

#[tokio::test]
async fn a_start_hook_can_refuse_and_says_why() {
    let hooks = tempfile::NamedTempFile::new().unwrap();
    let mut stage = Stage::child(app_with(&[("HOOKS", hooks.path().to_str().unwrap()), ("START", "refuse")]));
    let reason = stage.failed().await;
    assert!(reason.contains("start event with 500: the license has expired"), "{reason}");
}

#[tokio::test]
async fn a_start_hook_that_hangs_meets_the_deadline() {
    let hooks = tempfile::NamedTempFile::new().unwrap();
    let settings = app_with(&[("HOOKS", hooks.path().to_str().unwrap()), ("START", "hang")]);
    let mut stage = Stage::child(Settings { listen: Listen::Fd, start_timeout: Duration::from_secs(2), ..settings });
    let reason = stage.failed().await;
    assert!(reason.contains("did not answer the start event within 2s (start_timeout)"), "{reason}");
}

#[tokio::test]
async fn an_app_that_ignores_the_term_signal_is_killed_with_all_it_started() {
    let mut stage =
        Stage::child(Settings { stop_grace: Duration::from_millis(600), ..app_with(&[("ON_TERM", "ignore")]) });
    stage.running().await;
    let (pid, grandchild) = (stage.text("/pid").await, stage.text("/grandchild").await);
    assert!(runs(&pid) && runs(&grandchild));
    stage.stop(StopReason::Stop).await;
    assert!(!runs(&pid) && !runs(&grandchild));
}

#[tokio::test]
async fn a_crash_takes_along_what_the_process_had_started() {
    let mut stage = Kind::Unix.stage().await;
    let grandchild = stage.text("/grandchild").await;
    stage.send("GET", "/suicide", &[], whole(""));
    stage.failed().await;
    assert!(!runs(&grandchild));
}

#[tokio::test]
async fn an_app_behind_a_shell_has_its_grace_too() {
    let mut settings = app_with(&[("ON_TERM", "linger")]);
    settings.command = ["sh", "-c", "python3 app.py; true"].map(str::to_owned).to_vec();
    let mut stage = Stage::child(settings);
    stage.running().await;
    let slow = stage.send("GET", "/slow", &[], whole(""));
    assert_eq!(stage.text("/arrived").await, "yes");
    let pid = stage.text("/pid").await;
    let began = std::time::Instant::now();
    stage.handle.stop(StopReason::Sleep);
    // Released by the app itself, a moment after the signal that has ended the shell.
    assert_eq!(slow.answer().await.text(), "late");
    assert_eq!(stage.ended().await, Outcome::Wanted);
    assert!(!runs(&pid));
    assert!(began.elapsed() < Duration::from_secs(9), "the whole grace was not needed");
}

#[tokio::test]
async fn a_process_that_exits_at_once_says_so_without_waiting() {
    let mut stage = Stage::child(shell("echo no database >&2; exit 7"));
    let reason = stage.failed().await;
    assert!(
        reason.contains("exited with code 7 before it could listen on") && reason.contains("no database"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_process_that_never_listens_meets_the_deadline_and_the_message_names_it() {
    for (listen, place) in [(Listen::Unix, "ACTOR_SOCKET"), (Listen::Port, "HOST and PORT")] {
        let settings = Settings { start_timeout: Duration::from_millis(300), listen, ..shell("exec sleep 1000") };
        let reason = Stage::child(settings).failed().await;
        assert!(reason.contains("`sh -c \"exec sleep 1000\"` did not listen on"), "{reason}");
        assert!(reason.contains(place) && reason.contains("within 300ms (start_timeout)"), "{reason}");
    }
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named() {
    for (command, cwd, expected) in [
        ("no-such-command", "/", "`no-such-command` was not found in PATH"),
        ("./no-such-command", "/", "`./no-such-command` does not exist"),
        ("true", "/no/such/directory", "/no/such/directory (cwd) does not exist"),
        ("/etc/passwd", "/", "`/etc/passwd` may not be executed"),
    ] {
        let reason = Stage::child(Settings::new(vec![command.into()], cwd.into())).failed().await;
        assert!(reason.contains(expected), "{reason}");
    }
    let settings = Settings { env_file: Some("/no/such/file".into()), ..shell("true") };
    assert!(Stage::child(settings).failed().await.contains("/no/such/file (env_file)"));
}

#[tokio::test]
async fn a_stop_during_the_start_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let note = directory.path().join("pid");
    let mut stage = Stage::child(shell(&format!("echo $$ > {}; exec sleep 1000", note.display())));
    until(|| std::fs::read_to_string(&note).is_ok_and(|pid| pid.ends_with('\n'))).await;
    let pid = std::fs::read_to_string(&note).unwrap().trim().to_owned();
    stage.stop(StopReason::Destroy).await;
    until(|| !runs(&pid)).await;
    // Whoever sees the process end gives its token back, a moment after we may have seen it.
    until(|| stage.tokens.live.lock().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_detached_process_that_holds_the_outputs_does_not_hold_up_the_end() {
    let mut settings = app();
    settings.command = ["sh", "-c", "setsid sleep 5 & exec python3 app.py"].map(str::to_owned).to_vec();
    let mut stage = Stage::child(settings);
    stage.running().await;
    let began = std::time::Instant::now();
    stage.stop(StopReason::Sleep).await;
    assert!(began.elapsed() < Duration::from_secs(4));
}

fn whole(text: &'static str) -> Body {
    Body::Whole(Bytes::from_static(text.as_bytes()))
}

async fn environment(stage: &Stage) -> BTreeMap<String, String> {
    serde_json::from_str(&stage.text("/environment").await).unwrap()
}

/// What the app sees of a request with these headers; names in lower case.
async fn headers(stage: &Stage, headers: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let stream: Stream = stage.send("GET", "/headers", headers, whole(""));
    let pairs: Vec<(String, String)> = serde_json::from_slice(&stream.answer().await.body).unwrap();
    let mut map = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in pairs {
        map.entry(name.to_lowercase()).or_default().push(value);
    }
    map
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A trace context as a client sends it.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
