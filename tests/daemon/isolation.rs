//! What an actor's process is kept from: the machine, the daemon, and other actors. The rows of the threat table in
//! docs/OPERATIONS.md.

mod cgroups;
mod packages;
mod sharing;
mod stage;
mod tokens;
mod users;

use std::path::Path;

use serde_json::Value;

use crate::dev::request;
use crate::process::Daemon;
use stage::{DENIED, Plan, Stage, eval};

#[tokio::test]
async fn an_actor_reaches_its_own_files_and_those_of_nobody_else() {
    let stage = Stage::start("", "").await;
    let open = async |who: &str, path: &str| stage.eval(who, &format!("len(open({path:?}).read())")).await;
    let own = async |who: &str, name: &str| stage.eval(who, &format!("os.environ[{name:?}]")).await;

    for (variable, write) in [("ACTOR_STATE_DIR", true), ("TMPDIR", true), ("ACTOR_TOKEN_FILE", false)] {
        let of_other = own("b", variable).await;
        let file = if write { format!("{of_other}/kept") } else { of_other.clone() };
        if write {
            assert_eq!(stage.eval("b", &format!("open({file:?}, 'w').write('canary')")).await, "6", "{file}");
        }
        assert_ne!(open("b", &file).await, DENIED, "its own {file}");
        assert_eq!(open("a", &file).await, DENIED, "another's {file}");
        assert_eq!(stage.eval("a", &format!("open({:?} + 'x', 'w')", file)).await, DENIED);
    }
    let data = stage.path("data");
    for path in
        [stage.path("actors.toml"), stage.path("credential"), format!("{data}/runner-key"), stage.path("secret")]
    {
        assert!(Path::new(&path).exists(), "{path}");
        let outcome = open("a", &path).await;
        assert_eq!(outcome, if path.ends_with("secret") { "6" } else { DENIED }, "{path}");
    }
    // What it may read it may not change, and nothing can be made outside its own places.
    assert_eq!(stage.eval("a", "open('secret', 'w')").await, DENIED);
    assert_eq!(stage.eval("a", "open('made', 'w')").await, DENIED);
    assert_eq!(stage.eval("a", "open('/tmp/greenroom-made', 'w')").await, DENIED);
    assert_eq!(stage.eval("a", "os.listdir('/root')").await, DENIED);
    assert_eq!(stage.eval("a", "open('/dev/null', 'w').write('x')").await, "1");
    assert_eq!(stage.eval("a", "open(os.environ['ACTOR_STATE_DIR'] + '/../../x', 'w')").await, DENIED);
    // So it is for what it starts, too.
    let command = format!("subprocess.run(['cat', {:?}]).returncode", stage.path("actors.toml"));
    assert_eq!(stage.eval("a", &command).await, "1");
    stage.daemon.stop().await;
}

#[tokio::test]
async fn an_actor_cannot_look_into_or_signal_the_process_of_another_or_of_the_daemon() {
    let stage = Stage::start("", "").await;
    let other = stage.eval("b", "os.getpid()").await;
    let daemon = stage.eval("b", "os.getppid()").await;
    for pid in [other, daemon] {
        assert_eq!(stage.eval("a", &format!("os.kill({pid}, 0)")).await, DENIED);
        for file in ["environ", "mem", "maps"] {
            let outcome = stage.eval("a", &format!("open('/proc/{pid}/{file}', 'rb').read(1)")).await;
            assert_eq!(outcome, DENIED, "{file}");
        }
    }
    assert_eq!(stage.eval("a", "len(open('/proc/self/environ').read()) > 0").await, "True");
    assert!(stage.eval("a", "open('/proc/self/status').read()").await.contains("NoNewPrivs:\t1"));
    stage.daemon.stop().await;
}

#[tokio::test]
async fn what_the_file_opens_is_open_and_off_is_off() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().to_str().unwrap();
    let stage = Stage::start(&format!("read_paths = [{path:?}]\nwrite_paths = [{path:?}]"), "sandbox = \"off\"").await;
    assert_eq!(stage.eval("a", &format!("open('{path}/one', 'w').write('x')")).await, "1");
    assert_eq!(stage.eval("b", &format!("open('{path}/two', 'w').write('x')")).await, "1");
    assert_ne!(stage.eval("b", "len(open('actors.toml').read())").await, DENIED);
    assert_eq!(stage.eval("a", "len(open('actors.toml').read())").await, DENIED);
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_socket_that_is_handed_over_and_a_port_work_in_a_sandbox() {
    let stage = Stage::start("listen = \"fd\"", "").await;
    assert_eq!(stage.eval("a", "os.environ['LISTEN_FDS']").await, "1");
    assert_eq!(stage.eval("a", "os.getpgid(0) == os.getpid()").await, "True");
    stage.daemon.stop().await;
    let stage = Stage::start("listen = \"port\"", "").await;
    assert_eq!(stage.eval("a", "os.environ['HOST']").await, "127.0.0.1");
    stage.daemon.stop().await;
}

#[tokio::test]
async fn secrets_are_in_no_environment_argument_log_or_metric() {
    const CANARY: &str = "canary-5f1c";
    let stage = Stage::of(Plan {
        a: "env_file = \"more.env\"",
        variables: &[("AWS_SECRET", CANARY)],
        prepare: |dir| std::fs::write(dir.join("more.env"), format!("A_KEY={CANARY}-a")).unwrap(),
        ..Plan::default()
    })
    .await;
    // What its own file gives it, it has.
    assert_eq!(stage.eval("a", "os.environ.pop('A_KEY')").await, format!("{CANARY}-a"));
    let token = stage.eval("b", "open(os.environ['ACTOR_TOKEN_FILE']).read()").await;
    for who in ["a", "b"] {
        let seen = "[dict(os.environ), sys.argv, open('/proc/self/cmdline').read(), api('GET', '/v1/actor')]";
        let seen = stage.eval(who, seen).await;
        assert!(!seen.contains(CANARY) && !seen.contains(&token), "{seen}");
        // The launcher's own words are gone with it.
        assert!(!seen.contains("exec-actor"), "{seen}");
    }
    let id = stage.urls[0].trim_end_matches('/').rsplit('/').next().unwrap();
    for path in ["/metrics", "/status", "/actors", &format!("/actors/{id}"), &format!("/actors/{id}/logs")] {
        let (status, told) = crate::dev::get(&format!("{}{path}", stage.admin)).await;
        assert_eq!(status, 200, "{path}");
        assert!(!told.contains(&token) && !told.contains(CANARY), "{path}: {told}");
    }
    let daemon = stage.eval("b", "os.getppid()").await;
    let arguments = std::fs::read_to_string(format!("/proc/{daemon}/cmdline")).unwrap();
    assert!(!arguments.contains(&token) && !arguments.contains(CANARY), "{arguments}");
    // A report of everything, and then no time to tidy up.
    stage.daemon.signal(rustix::process::Signal::USR1);
    stage.eval("a", "1").await;
    stage.daemon.signal(rustix::process::Signal::KILL);
    let (log, _) = stage.daemon.killed().await;
    let log = Value::from(log).to_string();
    assert!(!log.contains(&token) && !log.contains(CANARY), "{log}");
}

#[tokio::test]
async fn of_a_request_with_two_lengths_the_process_sees_one_request_at_most() {
    const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let stage = Stage::start("", "").await;
    let chunk = format!("{:x}\r\n{INNER}\r\n0\r\n\r\n", INNER.len());
    let length = INNER.len();
    let corpus = [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}"),
        format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\n{chunk}"),
        format!("Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n{chunk}"),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{chunk}"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{INNER}"),
        format!("Content-Length: +{length}\r\n\r\n{INNER}"),
        format!("X-Folded: a\r\n Transfer-Encoding: chunked\r\n\r\n{INNER}"),
        format!("X-Return: a\rTransfer-Encoding: chunked\r\n\r\n{INNER}"),
        format!("X-Zero: a\0b\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0;a=\rb\r\n\r\n{INNER}"),
        format!("Host: other\r\nContent-Length: {length}\r\n\r\n{INNER}"),
    ];
    for hostile in corpus {
        stage.eval("a", "SEEN.clear()").await;
        stage.raw("a", "POST", "hostile", &hostile).await;
        // The question itself comes last.
        let seen = stage.eval("a", "[path for path, _ in SEEN[:-1]]").await;
        assert!(seen == "[]" || seen == "['/hostile']", "{hostile:?}: {seen}");
        let both = "sum('content-length' in names and 'transfer-encoding' in names for _, names in SEEN)";
        assert_eq!(stage.eval("a", both).await, "0", "{hostile:?}");
    }
    stage.daemon.stop().await;
}

#[tokio::test]
async fn what_only_the_daemon_may_say_is_not_taken_from_outside() {
    let stage = Stage::start("", "").await;
    stage.eval("a", "SEEN.clear()").await;
    for path in ["_actor", "_actor/", "_actor?x=1", "%5Factor", "./_actor", "x/../_actor"] {
        for method in ["GET", "POST"] {
            let event = "Actor-Event: stop\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let answer = stage.raw("a", method, path, event).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{method} {path}: {answer}");
        }
    }
    let spoofed =
        "Actor-Id: evil\r\naCTOR-event: stop\r\nActor-Token: evil\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(stage.raw("a", "POST", "spoofed", spoofed).await.starts_with("HTTP/1.1 200"));
    assert_eq!(stage.eval("a", "[path for path, _ in SEEN[:-1]]").await, "['/spoofed']");
    let names = stage.eval("a", "SEEN[0][1]").await;
    assert!(!names.contains("evil") && !names.contains("actor-event") && !names.contains("actor-token"), "{names}");
    assert!(names.contains("actor-id"), "{names}");
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_hostile_key_is_a_variable_and_never_a_part_of_a_path() {
    let stage = Stage::start("", "").await;
    let (gateway, _) = stage.urls[0].split_once("/gateway/").unwrap();
    for key in ["../../x", "/etc/passwd", "a\u{1b}[2J\nb", "~", "%2e%2e%2f"] {
        let url = stage.another("a", key).await;
        let ask = async |what: &str| eval(&url, what).await;
        assert_eq!(
            ask(&format!("os.environ['ACTOR_KEY'] == {key:?}").replace("\\u{1b}", "\\x1b")).await,
            "True",
            "{key:?}"
        );
        let places = "[os.environ[name] for name in ('ACTOR_STATE_DIR', 'TMPDIR', 'ACTOR_TOKEN_FILE', 'ACTOR_SOCKET')]";
        let places = ask(places).await;
        assert!(!places.contains("..") && !places.contains("passwd") && !places.contains('~'), "{places}");
    }
    for key in ["k".repeat(4096), "a\0b".to_owned()] {
        let body = serde_json::json!({
            "name": "a", "key": key, "runner_name_selector": "default", "crash_policy": "sleep",
        });
        // Refused or not: nothing comes of it, and the daemon lives.
        request("PUT", &format!("{gateway}/actors?namespace=default"), &body.to_string()).await;
        assert_eq!(stage.eval("b", "1 + 1").await, "2");
    }
    stage.daemon.stop().await;
}

#[tokio::test]
async fn the_daemon_writes_no_dumps_and_cannot_be_looked_into() {
    let stage = Stage::start("", "sandbox = \"off\"").await;
    let daemon = stage.eval("b", "os.getppid()").await;
    let limits = std::fs::read_to_string(format!("/proc/{daemon}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // What is not dumpable belongs to root, whoever runs it.
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{daemon}/environ")).unwrap());
    assert_eq!(owner, 0);
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_runner_that_is_root_does_not_run_actors_unless_it_is_told_to() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["run", "--endpoint", "http://127.0.0.1:1", "--admin", "off", "--actor", "a=true"];
    let mut refused = Daemon::start(dir, &arguments);
    let record = refused.find("actors do not run as root").await;
    assert!(record["message"].as_str().unwrap().contains("--allow-root (GREENROOM_ALLOW_ROOT=true)"), "{record}");
    assert_eq!(refused.exit_code().await, 78);

    let dir = tempfile::tempdir().unwrap();
    let mut allowed = Daemon::start_with(dir, &arguments, &[("GREENROOM_ALLOW_ROOT", "true")]);
    allowed.find("actors run as root").await;
    allowed.record("not connected to the gateway").await;
    allowed.stop().await;
}
