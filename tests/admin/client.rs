//! A client of the admin address, and of everything else that speaks HTTP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::process::Daemon;

/// `greenroom dev` with its addresses.
pub struct Dev {
    pub daemon: Daemon,
    pub gateway: String,
    pub admin: String,
    pub socket: PathBuf,
}

/// An answer: status, head and body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Dev {
    /// Starts it with these arguments and waits until it is ready.
    pub async fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("data/run/admin.sock");
        let all = [&["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], arguments].concat();
        let mut daemon = Daemon::start(dir, &all);
        let admin = daemon.record("admin address serves").await["address"].as_str().unwrap().to_owned();
        let ready = daemon.line("greenroom is ready at").await;
        let gateway = ready.split("http://").nth(1).unwrap().to_owned();
        Dev { daemon, gateway, admin, socket }
    }

    /// The id of the actor that `dev` made under this name.
    pub async fn actor(&self, name: &str) -> String {
        let list = get(&self.gateway, &format!("/actors?namespace=default&name={name}&key=dev")).await.json();
        list["actors"][0]["actor_id"].as_str().unwrap().to_owned()
    }

    /// The admin server's answer over the Unix socket.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        unix(&self.socket, &request(method, path, "localhost", "", body)).await
    }

    /// Looks until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let answer = self.ask("GET", path, "").await;
                if answer.status == 200
                    && let Ok(answer) = serde_json::from_str(&answer.body)
                    && wanted(&answer)
                {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{path} is never as wanted"))
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }
}

pub async fn get(address: &str, path: &str) -> Answer {
    tcp(address, &request("GET", path, address, "", "")).await
}

pub fn request(method: &str, path: &str, host: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

pub async fn tcp(address: &str, request: &str) -> Answer {
    exchange(TcpStream::connect(address).await.unwrap(), request).await
}

async fn unix(path: &Path, request: &str) -> Answer {
    exchange(UnixStream::connect(path).await.unwrap(), request).await
}

async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("an answer comes").unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request:?}: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub const PATIENCE: Duration = Duration::from_secs(30);
