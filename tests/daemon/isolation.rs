//! What an actor's process is kept from: the machine, the daemon, and other actors. The rows of the threat table in
//! docs/OPERATIONS.md.

use std::path::Path;

use serde_json::Value;

use crate::dev::request;
use crate::process::Daemon;

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
    for path in [stage.path("actors.toml"), format!("{data}/runner-key"), stage.path("secret")] {
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
    let stage = Stage::start_with("", "", &[("AWS_SECRET", CANARY)]).await;
    let token = stage.eval("b", "open(os.environ['ACTOR_TOKEN_FILE']).read()").await;
    for who in ["a", "b"] {
        let seen = stage.eval(who, "[dict(os.environ), sys.argv, open('/proc/self/cmdline').read()]").await;
        assert!(!seen.contains(CANARY) && !seen.contains(&token), "{seen}");
        // The launcher's own words are gone with it.
        assert!(!seen.contains("exec-actor"), "{seen}");
    }
    let (_, metrics) = crate::dev::get(&format!("{}/metrics", stage.admin)).await;
    let (_, status) = crate::dev::get(&format!("{}/v1/status", stage.admin)).await;
    assert!(!metrics.contains(&token) && !status.contains(&token) && !metrics.contains(CANARY));
    stage.daemon.signal(rustix::process::Signal::KILL);
    let (log, _) = stage.daemon.killed().await;
    let log = Value::from(log).to_string();
    assert!(!log.contains(&token) && !log.contains(CANARY), "{log}");
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

/// Two actors, `a` and `b`, that evaluate what they are sent: as hostile as it gets.
struct Stage {
    daemon: Daemon,
    /// By actor.
    urls: [String; 2],
    admin: String,
    dir: tempfile::TempDir,
}

impl Stage {
    /// With these lines in the definitions of `a` and of `b`.
    async fn start(a: &str, b: &str) -> Self {
        Self::start_with(a, b, &[]).await
    }

    async fn start_with(a: &str, b: &str, variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("evaluate.py"), EVALUATE).unwrap();
        std::fs::write(dir.path().join("secret"), "canary").unwrap();
        let file = dir.path().join("actors.toml");
        let actor = |name: &str, more: &str| {
            format!("[actors.{name}]\ncommand = [\"python3\", \"evaluate.py\"]\nstart_timeout = \"29s\"\n{more}\n")
        };
        std::fs::write(&file, actor("a", a) + &actor("b", b)).unwrap();
        // The data lies in the working directory of the actors, as it does in a first try.
        let inner = tempfile::tempdir_in(dir.path()).unwrap();
        std::os::unix::fs::symlink(inner.path().join("data"), dir.path().join("data")).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let arguments = ["dev", "--listen=127.0.0.1:0", "--admin", &free, "--actors", file.to_str().unwrap()];
        let mut daemon = Daemon::start_with(inner, &arguments, variables);
        let admin = format!("http://{free}");
        let mut urls = [String::new(), String::new()];
        for url in &mut urls {
            *url = daemon.line("curl http").await.trim_start_matches("curl ").to_owned();
        }
        Stage { daemon, urls, admin, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// What an expression is for this actor.
    async fn eval(&self, who: &str, expression: &str) -> String {
        let (status, answer) = request("POST", &self.urls[usize::from(who == "b")], expression).await;
        assert_eq!(status, 200, "{expression}: {answer}");
        answer
    }
}

/// What an actor says of what it may not do.
const DENIED: &str = "denied";

const EVALUATE: &str = r#"
import os, socket, socketserver, subprocess, sys
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        try:
            answer = str(eval(text)) if "actor-event" not in self.headers else ""
        except PermissionError:
            answer = "denied"
        except Exception as error:
            answer = repr(error)
        self.send_response(200)
        self.send_header("content-length", str(len(answer.encode())))
        self.end_headers()
        self.wfile.write(answer.encode())
    def address_string(self):
        return ""
    def log_message(self, *_):
        pass

if "LISTEN_FDS" in os.environ:
    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        def __init__(self):
            socketserver.BaseServer.__init__(self, None, Handler)
            self.socket = socket.socket(fileno=3)
    server = Server()
elif "PORT" in os.environ:
    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer): pass
    server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)
else:
    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass
    server = Server(os.environ["ACTOR_SOCKET"], Handler)
server.serve_forever()
"#;
