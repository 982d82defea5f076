//! `greenroom dev` with an actor that passes requests on to an egress.

use std::path::Path;

use bytes::Bytes;

use crate::http::request_text;
use crate::process::Daemon;

/// `greenroom dev` with an actor that passes requests on.
pub struct Stage {
    pub daemon: Daemon,
    pub url: String,
    pub admin: String,
}

impl Stage {
    /// Starts it with the actors file in this directory, and more arguments.
    pub async fn start(files: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        std::fs::write(files.join("caller.py"), CALLER).unwrap();
        let file = files.join("actors.toml").to_str().unwrap().to_owned();
        let own = ["dev", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--actors", &file];
        let arguments = [&own, arguments].concat();
        let mut daemon = Daemon::start_with(tempfile::tempdir().unwrap(), &arguments, variables);
        let admin = daemon.record("admin address serves").await["address"].as_str().unwrap().to_owned();
        let url = daemon.line("curl http").await.trim_start_matches("curl ").to_owned();
        Stage { daemon, url, admin }
    }

    /// Status and text of the actor's answer.
    pub async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        get(&format!("{}{}", self.url, path.trim_start_matches('/')), headers).await
    }
}

pub async fn get(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    request_text("GET", url, headers, Bytes::new()).await
}

/// Writes an actors file with the actor and these egresses.
pub fn write(dir: &Path, more: &str, egress: &str) {
    let actor = "[actors.caller]\ncommand = [\"python3\", \"caller.py\"]\nstart_timeout = \"29s\"\n";
    std::fs::write(dir.join("actors.toml"), format!("{actor}{more}\n{egress}")).unwrap();
}

/// An actor that passes every request on to its egress, and says its process id.
const CALLER: &str = r#"
import os, socketserver, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler

class Caller(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/pid":
            return self.answer(200, str(os.getpid()).encode())
        request = urllib.request.Request(os.environ["ACTOR_API"] + "/v1/egress/llm" + self.path)
        request.add_header("Authorization", "Bearer " + open(os.environ["ACTOR_TOKEN_FILE"]).read())
        for name in ("traceparent", "tracestate"):
            if name in self.headers:
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request) as answer:
                self.answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())
    def do_POST(self):
        self.answer(404, b"")
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return ""
    def log_message(self, *_):
        pass

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

Server(os.environ["ACTOR_SOCKET"], Caller).serve_forever()
"#;
