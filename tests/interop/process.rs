//! A program under test: its output is kept line by line, and it never outlives the value that stands for it.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A running program with everything it has written so far.
pub struct Process {
    name: String,
    child: Child,
    lines: Lines,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Process {
    /// Starts `command` with both outputs captured; no setting of ours leaks in from the environment of the test.
    pub fn start(name: impl Into<String>, mut command: Command) -> Self {
        let name = name.into();
        for (key, _) in std::env::vars_os() {
            let key = key.to_string_lossy();
            if key.starts_with("GREENROOM_") || key == "RUST_LOG" {
                command.env_remove(&*key);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        let lines = Lines::default();
        collect(child.stdout.take().expect("stdout is piped above"), lines.clone());
        collect(child.stderr.take().expect("stderr is piped above"), lines.clone());
        Self { name, child, lines }
    }

    pub fn signal(&self, signal: Signal) {
        // The child is not reaped before `wait` or drop, so the number still means this process.
        let _ = kill_process(self.pid(), signal);
    }

    /// The exit status, when it comes before the deadline.
    pub async fn exit_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                _ if Instant::now() > deadline => return None,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything written so far, both outputs mixed in order of arrival.
    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The end of the output under a heading, for the report of a failed test.
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lines.lock().unwrap();
        let shown = &lines[lines.len().saturating_sub(count)..];
        let shown: Vec<_> = shown.iter().map(|line| line.chars().take(400).collect::<String>()).collect();
        format!(
            "---- {} (pid {}, last {} of {} lines)\n{}\n",
            self.name,
            self.child.id(),
            shown.len(),
            lines.len(),
            shown.join("\n")
        )
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.child.id())
    }
}

impl Drop for Process {
    /// Asks first, so that a runner ends its own children; then ends it.
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.is_running() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn collect(output: impl Read + Send + 'static, lines: Lines) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            lines.lock().unwrap().push(line);
        }
    });
}

/// Asks `check` until it has a value; `None` once the deadline is over.
pub async fn poll<T, F: Future<Output = Option<T>>>(limit: Duration, mut check: impl FnMut() -> F) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = check().await {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A port nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
