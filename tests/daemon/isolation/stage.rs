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

impl Stage {
    /// With these lines in the definitions of `a` and of `b`.
    pub async fn start(a: &str, b: &str) -> Self {
        Self::start_with(a, b, &[]).await
    }

    /// In this cgroup.
    pub async fn start_in(cgroup: &Path, a: &str, b: &str) -> Self {
        let enter = format!("echo 0 > {}/cgroup.procs && exec \"$0\" \"$@\"", cgroup.display());
        Self::start_by(&["sh", "-c", &enter], a, b, &[]).await
    }

    pub async fn start_with(a: &str, b: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_by(&[], a, b, variables).await
    }

    async fn start_by(starter: &[&str], a: &str, b: &str, variables: &[(&str, &str)]) -> Self {
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
        std::fs::write(&file, actor("a", a) + &actor("b", b) + egress).unwrap();
        // The data lies in the working directory of the actors, as it does in a first try.
        let inner = tempfile::tempdir_in(dir.path()).unwrap();
        std::os::unix::fs::symlink(inner.path().join("data"), dir.path().join("data")).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let arguments = ["dev", "--listen=127.0.0.1:0", "--admin", &free, "--actors", file.to_str().unwrap()];
        let mut daemon = Daemon::start_by(starter, inner, &arguments, variables);
        let admin = format!("http://{free}");
        let mut urls = [String::new(), String::new()];
        for url in &mut urls {
            *url = daemon.line("curl http").await.trim_start_matches("curl ").to_owned();
        }
        Stage { daemon, urls, admin, dir }
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
        let (status, answer) = request("POST", &self.urls[usize::from(who == "b")], expression).await;
        assert_eq!(status, 200, "{expression}: {answer}");
        answer
    }
}

/// What an actor says of what it may not do.
pub const DENIED: &str = "denied";

const EVALUATE: &str = r#"
import os, socket, socketserver, subprocess, sys
from http.server import BaseHTTPRequestHandler

SEEN = []

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
