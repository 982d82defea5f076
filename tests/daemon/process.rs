//! The command as a process.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// A running command, its log and its output.
pub struct Daemon {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    output: Lines<BufReader<ChildStdout>>,
    pub dir: TempDir,
}

impl Daemon {
    /// Starts `greenroom run` without actors.
    pub fn run(endpoint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start(dir, &["run", "--endpoint", endpoint, "--admin", "off"])
    }

    /// Starts a command that keeps its data in this directory.
    pub fn start(dir: TempDir, arguments: &[&str]) -> Self {
        Self::start_with(dir, arguments, &[])
    }

    /// Starts a command with these variables on top of the few that every one gets.
    pub fn start_with(dir: TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_by(&[], dir, arguments, variables)
    }

    /// Starts a command by another one, which becomes what its arguments name.
    pub fn start_by(starter: &[&str], dir: TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut words = starter.iter().copied().chain([env!("CARGO_BIN_EXE_greenroom")]);
        let program = words.next().expect("there is always one");
        let mut child = Command::new(program)
            .args(words)
            .args(arguments)
            .args(["--log-format", "json", "--data-dir"])
            .arg(dir.path().join("data"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Daemon { child, log, output, dir }
    }

    /// The next line on stdout that contains this.
    pub async fn line(&mut self, part: &str) -> String {
        let find = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                if line.contains(part) {
                    return line.trim().to_owned();
                }
            }
            panic!("the output ended without {part:?}");
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no line has {part:?}"))
    }

    /// The next record with this message.
    pub async fn record(&mut self, message: &str) -> Value {
        let find = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                let record: Value = serde_json::from_str(&line).unwrap();
                if record["message"] == message {
                    return record;
                }
            }
            panic!("the log ended without {message:?}");
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no record says {message:?}"))
    }

    /// The next record with each of these messages, which may come in any order.
    pub async fn records<const N: usize>(&mut self, messages: [&str; N]) -> [Value; N] {
        let mut found = [const { None }; N];
        let find = async {
            while found.iter().any(Option::is_none) {
                let line = self.log.next_line().await.unwrap().expect("the log goes on");
                let record: Value = serde_json::from_str(&line).unwrap();
                if let Some(place) = messages.iter().position(|message| record["message"] == *message) {
                    found[place].get_or_insert(record);
                }
            }
        };
        let found_all = tokio::time::timeout(PATIENCE, find).await;
        found_all.unwrap_or_else(|_| panic!("of {messages:?} only {found:?}"));
        found.map(|record| record.expect("found"))
    }

    /// The next record whose message has this in it.
    pub async fn find(&mut self, part: &str) -> Value {
        let find = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                let record: Value = serde_json::from_str(&line).unwrap();
                if record["message"].as_str().is_some_and(|message| message.contains(part)) {
                    return record;
                }
            }
            panic!("the log ended without {part:?}");
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no record has {part:?}"))
    }

    /// All records up to the one with this message, and this one.
    pub async fn records_until(&mut self, message: &str, patience: Duration) -> Vec<Value> {
        let mut records: Vec<Value> = Vec::new();
        let read = async {
            while records.last().is_none_or(|record| record["message"] != message) {
                let line =
                    self.log.next_line().await.unwrap().unwrap_or_else(|| panic!("no {message:?}: {records:#?}"));
                records.push(serde_json::from_str(&line).unwrap());
            }
        };
        let read = tokio::time::timeout(patience, read).await;
        assert!(read.is_ok(), "no record says {message:?}: {records:#?}");
        records
    }

    /// The processor time it has used so far, its threads included and its children not.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id().unwrap())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// The most memory it has held so far, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub async fn exit_code(&mut self) -> i32 {
        let exit = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        exit.expect("the daemon ends in time").unwrap().code().expect("the daemon is not killed by a signal")
    }

    /// Waits for the end of a command that was killed. Answers with the rest of its log and the data for another start.
    pub async fn killed(mut self) -> (Vec<Value>, TempDir) {
        let exit = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        exit.expect("the daemon ends in time").unwrap();
        let mut rest = Vec::new();
        while let Some(line) = self.log.next_line().await.unwrap() {
            // The last line may be cut off.
            rest.extend(serde_json::from_str(&line).ok());
        }
        (rest, self.dir)
    }

    /// Stops politely, and expects an end without a complaint. Answers with the data for another start.
    pub async fn stop(mut self) -> TempDir {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code().await, 0);
        while let Some(line) = self.log.next_line().await.unwrap() {
            let record: Value = serde_json::from_str(&line).unwrap();
            assert!(record["level"] != "ERROR", "{record}");
        }
        self.dir
    }
}

/// Far more than any of this takes; a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(30);
