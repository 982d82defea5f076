//! A counter that outlives its process: an actor in plain Rust, standard library only.
//!
//! - `GET /` counts one up and answers with the count
//! - `POST /reset` goes back to 0
//! - `GET /sleep` asks to sleep; the next request wakes the actor, in a new process, with the same count
//!
//! SIGTERM ends it as it ends any process: each count is on disk at the gateway before its answer leaves, so there is
//! nothing to save.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

fn main() -> Result<(), Box<dyn Error>> {
    let api = Api {
        socket: env::var("ACTOR_API_SOCKET")?,
        token: fs::read_to_string(env::var("ACTOR_TOKEN_FILE")?)?.trim().to_owned(),
    };
    let count = api.call("GET", "/v1/kv/count", "")?.map_or(Ok(0), |text| text.parse())?;
    let counter = Arc::new(Mutex::new(Counter { api, count }));
    // Ready as soon as the socket accepts.
    let listener = UnixListener::bind(env::var("ACTOR_SOCKET")?)?;
    for connection in listener.incoming() {
        let (connection, counter) = (connection?, Arc::clone(&counter));
        thread::spawn(move || {
            if let Err(error) = serve(connection, &counter) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

/// Answers one request and closes the connection.
fn serve(mut connection: UnixStream, counter: &Mutex<Counter>) -> io::Result<()> {
    let mut head = BufReader::new(connection.try_clone()?.take(64 * 1024)).lines();
    let Some(request) = head.next().transpose()? else {
        // Somebody only wanted to see whether the socket accepts.
        return Ok(());
    };
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}

    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    // One request at a time; a request that panicked has left the count as it was.
    let mut counter = counter.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let answer = match (method, path) {
        ("GET", "/") => counter.change(|count| count + 1).map(|count| (200, count.to_string())),
        ("POST", "/reset") => counter.change(|_| 0).map(|count| (200, count.to_string())),
        ("GET", "/sleep") => counter.api.call("POST", "/v1/sleep", "").map(|_| (202, "going to sleep".to_owned())),
        _ => Ok((404, "there is /, /reset (POST) and /sleep".to_owned())),
    };
    let (status, text) = answer.unwrap_or_else(|error| (503, error.to_string()));
    let length = text.len() + 1;
    write!(
        connection,
        "HTTP/1.1 {status} -\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}\n",
    )
}

/// The count, as stored.
struct Counter {
    api: Api,
    count: u64,
}

impl Counter {
    fn change(&mut self, compute: impl FnOnce(u64) -> u64) -> io::Result<u64> {
        let count = compute(self.count);
        self.api.call("PUT", "/v1/kv/count", &count.to_string())?;
        self.count = count;
        Ok(count)
    }
}

/// The actor API.
struct Api {
    socket: String,
    token: String,
}

impl Api {
    /// A status of 400 or more is an error, but 404 means that there is nothing.
    fn call(&self, method: &str, path: &str, body: &str) -> io::Result<Option<String>> {
        let mut connection = UnixStream::connect(&self.socket)?;
        // With HTTP/1.0 the answer simply ends with the connection.
        write!(
            connection,
            "{method} {path} HTTP/1.0\r\nhost: actor-api\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len(),
        )?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, content) = answer.split_once("\r\n\r\n").unwrap_or_default();
        match head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()) {
            Some(404) => Ok(None),
            Some(status) if status < 400 => Ok(Some(content.to_owned())),
            _ => Err(io::Error::other(format!("{method} {path}: {answer}"))),
        }
    }
}
