//! A daemon with two actors that do what a test tells them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dev::request;
use crate::process::Daemon;

/// Two actors, `a` and `b`, that evaluate what they are sent: as hostile as it gets.
pub struct Stage {
    pub daemon: Daemon,
    /// By actor.
    pub urls: [String; 2],
    pub admin: String,
    dir: tempfile::TempDir,
}

/// How a stage is set up.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// Lines in the definition of `a`.
    pub a: &'a str,
    /// Lines in the definition of `b`.
    pub b: &'a str,
    /// The daemon's variables.
    pub variables: &'a [(&'a str, &'a str)],
    /// The cgroup that the daemon starts in.
    pub cgroup: Option<&'a Path>,
    /// Makes what the actors find in the directory of the actors file.
    pub prepare: fn(&Path),
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan { a: "", b: "", variables: &[], cgroup: None, prepare: |_| {} }
    }
}

impl Stage {
    /// With these lines in the definitions of `a` and of `b`.
    pub async fn start(a: &str, b: &str) -> Self {
        Self::of(Plan { a, b, ..Plan::default() }).await
    }

    pub async fn of(plan: Plan<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("evaluate.py"), EVALUATE).unwrap();
        std::fs::write(dir.path().join("secret"), "canary").unwrap();
        let file = dir.path().join("actors.toml");
        let actor = |name: &str, more: &str| {
            format!("[actors.{name}]\ncommand = [\"python3\", \"evaluate.py\"]\nstart_timeout = \"29s\"\n{more}\n")
        };
        let credential = dir.path().join("credential");
        std::fs::write(&credential, "canary").unwrap();
        std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o600)).unwrap();
        let egress = "[egress.llm]\nurl = \"http://127.0.0.1:9\"\ncredential_file = \"credential\"\n";
        (plan.prepare)(dir.path());
        std::fs::write(&file, actor("a", plan.a) + &actor("b", plan.b) + egress).unwrap();
        // The data lies in the working directory of the actors, as it does in a first try.
        let inner = tempfile::tempdir_in(dir.path()).unwrap();
        std::os::unix::fs::symlink(inner.path().join("data"), dir.path().join("data")).unwrap();
        for passage in [dir.path(), inner.path()] {
            std::fs::set_permissions(passage, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let arguments = ["dev", "--listen=127.0.0.1:0", "--admin", &free, "--actors", file.to_str().unwrap()];
        let enter =
            plan.cgroup.map(|cgroup| format!("echo 0 > {}/cgroup.procs && exec \"$0\" \"$@\"", cgroup.display()));
        let starter = enter.as_ref().map(|enter| ["sh", "-c", enter]);
        let starter = starter.as_ref().map_or(&[][..], |starter| starter);
        let mut daemon = Daemon::start_by(starter, inner, &arguments, plan.variables);
        let admin = format!("http://{free}");
        let mut urls = [String::new(), String::new()];
        for url in &mut urls {
            *url = daemon.line("curl http").await.trim_start_matches("curl ").to_owned();
        }
        Stage { daemon, urls, admin, dir }
    }

    /// The address of another actor of this name.
    pub async fn another(&self, name: &str, key: &str) -> String {
        let (gateway, _) = self.urls[0].split_once("/gateway/").unwrap();
        let body = serde_json::json!({
            "name": name, "key": key, "runner_name_selector": "default", "crash_policy": "sleep",
        });
        let (status, answer) = request("PUT", &format!("{gateway}/actors?namespace=default"), &body.to_string()).await;
        assert_eq!(status, 200, "{key:?}: {answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        format!("{gateway}/gateway/{}/", answer["actor"]["actor_id"].as_str().unwrap())
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// What the gateway says to a request that nobody has looked over; `rest` is what follows the first header.
    pub async fn raw(&self, who: &str, method: &str, path: &str, rest: &str) -> String {
        let url = self.urls[usize::from(who == "b")].trim_start_matches("http://");
        let (authority, prefix) = url.split_once('/').unwrap();
        let mut stream = tokio::net::TcpStream::connect(authority).await.unwrap();
        let request = format!("{method} /{prefix}{path} HTTP/1.1\r\nHost: {authority}\r\n{rest}");
        let mut answer = Vec::new();
        // A gateway that has had enough closes at once; one that waits for more has said all it will say.
        let _ = stream.write_all(request.as_bytes()).await;
        let silence = if rest.contains("Connection: close") { Duration::from_secs(30) } else { Duration::from_secs(1) };
        while let Ok(Ok(1..)) = tokio::time::timeout(silence, stream.read_buf(&mut answer)).await {}
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What an expression is for this actor.
    pub async fn eval(&self, who: &str, expression: &str) -> String {
        eval(&self.urls[usize::from(who == "b")], expression).await
    }
}

/// What an expression is for the actor at this address.
pub async fn eval(url: &str, expression: &str) -> String {
    let (status, answer) = request("POST", url, expression).await;
    assert_eq!(status, 200, "{expression}: {answer}");
    answer
}

/// What an actor says of what it may not do.
pub const DENIED: &str = "denied";

const EVALUATE: &str = r#"
import os, socket, socketserver, subprocess, sys, threading, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler

SEEN = []
NOW = threading.local()

def token():
    return NOW.token or open(os.environ["ACTOR_TOKEN_FILE"]).read()

def api(method, path, bearer=None, body=None):
    headers = {"Authorization": "Bearer " + (bearer or token())}
    asked = urllib.request.Request(os.environ["ACTOR_API"] + path, method=method, data=body, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def body(self):
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole
    def do_GET(self):
        self.do_POST()
    def do_POST(self):
        text = self.body().decode()
        NOW.token = self.headers.get("actor-token")
        SEEN.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
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
