//! An HTTP client that costs the machine as little as possible: blocking, one connection per thread.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(gateway: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(gateway).map_err(|error| format!("{gateway}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// The body of the answer to a request that must succeed.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Vec<u8>, String> {
        let (status, answer) = self.send(method, path, body).map_err(|error| format!("{method} {path}: {error}"))?;
        if status == 200 {
            return Ok(answer);
        }
        Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer)))
    }

    pub fn json(&mut self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        serde_json::from_slice(&self.ask(method, path, body)?).map_err(|error| error.to_string())
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Vec<u8>)> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }
}

/// Creates actors number `from..to`, by many connections at once; their ids, in no order.
pub fn create(gateway: SocketAddr, from: usize, to: usize, policy: &str) -> Result<Vec<String>, String> {
    let next = AtomicUsize::new(from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(gateway)?;
                    let mut ids = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= to {
                            return Ok::<_, String>(ids);
                        }
                        let body = format!(
                            r#"{{"name":"idle","key":"key-{number}","runner_name_selector":"scale","crash_policy":"{policy}"}}"#
                        );
                        let answer = client.json("POST", "/actors?namespace=default", &body)?;
                        ids.extend(answer["actor"]["actor_id"].as_str().map(str::to_owned));
                    }
                })
            })
            .collect();
        let mut ids = Vec::with_capacity(to - from);
        for thread in threads {
            ids.extend(thread.join().map_err(|_| "a client panicked".to_owned())??);
        }
        Ok(ids)
    })
}

/// Half and ninety-nine of a hundred calls were faster than these.
pub fn times(calls: usize, mut call: impl FnMut(usize) -> Result<(), String>) -> Result<String, String> {
    let mut times = Vec::with_capacity(calls);
    for number in 0..calls {
        let begin = Instant::now();
        call(number)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(format!("{} / {} ms", ms(times[calls / 2]), ms(times[calls * 99 / 100])))
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// So many wait for the disk together.
const CONNECTIONS: usize = 64;
