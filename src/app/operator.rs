//! The operator's commands: `status`, `actors`, `drain` and `log`, answered by a running daemon.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::app::ask::{AskError, Daemon};
use crate::app::{Exit, complain, misconfigured, say};
use crate::config::{AskSettings, Values};

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// How does it do?
    Status,
    /// Which actors are there?
    Actors { all: bool },
    /// One actor.
    Actor { id: String },
    /// Why is it awake, why did it stop?
    Explain { id: String },
    /// Put it to sleep.
    Sleep { id: String },
    /// Stop it.
    Stop { id: String },
    /// What did it write?
    Logs { id: String, lines: String, follow: bool },
    /// Stop the daemon politely.
    Drain { wait: bool },
    /// What is logged?
    Log,
    /// Log something else.
    SetLog { filter: String, during: Option<String> },
}

/// Asks and prints the answer, for people or as JSON.
pub(super) fn run(values: &Values, question: &Question, json: bool) -> Exit {
    let settings = match AskSettings::new(values) {
        Ok(settings) => settings,
        Err(mistakes) => return misconfigured(&mistakes),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("no runtime could be started: {error}"));
            return Exit::Internal;
        }
    };
    match runtime.block_on(answer(&settings, question, json)) {
        Ok(exit) => exit,
        Err(error) => {
            complain(error);
            Exit::Unanswered
        }
    }
}

async fn answer(settings: &AskSettings, question: &Question, json: bool) -> Result<Exit, AskError> {
    let daemon = Daemon::find(settings).await?;
    let path = |id: &str, rest: &str| format!("/actors/{}{rest}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    let (answer, text): (Value, fn(&Value) -> String) = match question {
        Question::Status => (daemon.get("/status").await?, status),
        Question::Actors { all } => (daemon.get(if *all { "/actors?all=true" } else { "/actors" }).await?, table),
        Question::Actor { id } => (daemon.get(&path(id, "")).await?, actor),
        Question::Explain { id } => (daemon.get(&path(id, "/explain")).await?, explanation),
        Question::Sleep { id } => (daemon.ask(Method::POST, &path(id, "/sleep"), String::new()).await?, accepted),
        Question::Stop { id } => (daemon.ask(Method::POST, &path(id, "/stop"), String::new()).await?, accepted),
        Question::Logs { id, lines, follow } => {
            let format = if json { "json" } else { "text" };
            let lines = utf8_percent_encode(lines, NON_ALPHANUMERIC);
            let path = path(id, &format!("/logs?lines={lines}&follow={follow}&format={format}"));
            let mut out = io::stdout();
            daemon.stream(&path, |piece| out.write_all(piece).and_then(|()| out.flush())).await?;
            return Ok(Exit::Clean);
        }
        Question::Drain { wait } => return drain(&daemon, *wait, json).await,
        Question::Log => (daemon.get("/log").await?, log),
        Question::SetLog { filter, during } => {
            let query =
                during.as_deref().map(|during| format!("?for={}", utf8_percent_encode(during, NON_ALPHANUMERIC)));
            let path = format!("/log{}", query.unwrap_or_default());
            (daemon.ask(Method::PUT, &path, filter.clone()).await?, log)
        }
    };
    if json {
        say(answer)
    } else {
        say(text(&answer).trim_end())
    }
    Ok(Exit::Clean)
}

/// Asks for a drain and watches it, until the daemon is gone.
async fn drain(daemon: &Daemon, wait: bool, json: bool) -> Result<Exit, AskError> {
    let begun = daemon.ask(Method::POST, "/drain", String::new()).await?;
    if json {
        say(&begun);
    } else {
        let within = begun["within_ms"].as_f64().unwrap_or_default() / 1000.0;
        say(format_args!("draining {} at {}, within {within} s", actors_text(&begun["actors"]), daemon.place()));
    }
    if !wait {
        return Ok(Exit::Clean);
    }
    let patience = Duration::from_millis(begun["within_ms"].as_u64().unwrap_or_default()) + AFTER_DRAIN;
    let deadline = Instant::now() + patience;
    let mut left = begun["actors"].clone();
    while Instant::now() < deadline {
        // It is gone when it does not answer any more.
        let Ok(status) = daemon.get("/status").await else {
            if !json {
                say("stopped");
            }
            return Ok(Exit::Clean);
        };
        let now = &status["slots"]["used"];
        if *now != left && !json {
            say(format_args!("{} left", actors_text(now)));
        }
        left = now.clone();
        sleep(LOOK_AGAIN).await;
    }
    complain(format_args!("the daemon at {} has not stopped after {} s", daemon.place(), patience.as_secs()));
    Ok(Exit::Unanswered)
}

fn status(answer: &Value) -> String {
    let text = |value: &Value| plain(value.as_str().unwrap_or("–"));
    let (gateway, runner, slots) = (&answer["gateway"], &answer["runner"], &answer["slots"]);
    let mut out = format!(
        "greenroom {} (pid {}) is {}, up {}\n",
        text(&answer["version"]),
        answer["pid"],
        text(&answer["state"]),
        age(&answer["uptime_s"])
    );
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {name:<11}{value}");
    };
    row("gateway", format!("{}, namespace {}", text(&gateway["endpoint"]), text(&gateway["namespace"])));
    let reason = gateway["reason"].as_str().map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
    row("link", format!("{} since {}{reason}", text(&gateway["link"]), text(&gateway["since"])));
    row("pool", format!("{}, key {}, version {}", text(&runner["pool"]), text(&runner["key"]), runner["version"]));
    row("runner id", text(&runner["id"]));
    row("slots", format!("{} of {} used", slots["used"], slots["total"]));
    for (name, counts) in answer["actors"].as_object().into_iter().flatten() {
        let counts: Vec<String> = ["running", "starting", "stopping"]
            .iter()
            .filter(|state| counts[**state].as_u64().unwrap_or_default() > 0)
            .map(|state| format!("{} {state}", counts[*state]))
            .collect();
        row(
            "actors",
            format!("{}: {}", plain(name), if counts.is_empty() { "none".into() } else { counts.join(", ") }),
        );
    }
    if let Some(error) = answer["last_error"]["error"].as_str() {
        row("last error", format!("{} ({})", plain(error), text(&answer["last_error"]["at"])));
    }
    if let Some(trouble) = answer["trouble"].as_str() {
        row("trouble", plain(trouble));
    }
    out
}

fn table(answer: &Value) -> String {
    let rows = answer["actors"].as_array().into_iter().chain(answer["ended"].as_array()).flatten();
    let head = ["ID", "NAME", "KEY", "GEN", "STATE", "FOR", "REQUESTS", "SOCKETS"].map(str::to_owned);
    let mut cells = vec![head];
    for actor in rows {
        let text = |field: &str| plain(actor[field].as_str().unwrap_or("–"));
        let number = |field: &str| actor[field].to_string();
        cells.push([
            text("id"),
            text("name"),
            text("key"),
            number("generation"),
            text("state"),
            age(&actor["for_s"]),
            number("requests"),
            number("sockets"),
        ]);
    }
    if cells.len() == 1 {
        return "no actor is awake here".to_owned();
    }
    let mut out = String::new();
    let widths: [usize; 8] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    for row in &cells {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out += line.join("  ").trim_end();
        out.push('\n');
    }
    out
}

fn actor(answer: &Value) -> String {
    let mut out = String::new();
    for (name, value) in answer.as_object().into_iter().flatten() {
        let value = match value {
            // For programs; people read since when.
            _ if name == "for_s" => continue,
            Value::Null | Value::Object(_) | Value::Array(_) => continue,
            Value::String(text) => plain(text),
            other => other.to_string(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<18}{value}", name.replace('_', " "));
    }
    out.push('\n');
    out + &explanation(answer)
}

fn explanation(answer: &Value) -> String {
    let sentences = answer["explanation"].as_array().into_iter().flatten().filter_map(Value::as_str);
    sentences.map(|sentence| sentence.lines().map(plain).collect::<Vec<_>>().join("\n  ") + "\n").collect()
}

fn accepted(answer: &Value) -> String {
    let text = |field: &str| plain(answer[field].as_str().unwrap_or_default());
    format!("{} {}", text("id"), text("message"))
}

fn log(answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().map(plain);
    let filter = text("filter").unwrap_or_default();
    match (text("until"), text("configured")) {
        (Some(until), Some(configured)) => format!("{filter} (until {until}, then {configured})"),
        (None, Some(configured)) if configured != filter => format!("{filter} (configured: {configured})"),
        (_, _) => filter,
    }
}

fn actors_text(count: &Value) -> String {
    match count.as_u64() {
        Some(1) => "1 actor".to_owned(),
        _ => format!("{count} actors"),
    }
}

/// Seconds in the two largest units.
fn age(seconds: &Value) -> String {
    let seconds = seconds.as_u64().unwrap_or_default();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        86_400.. => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Text that peers chose, so that no terminal takes it for anything but text.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                plain.extend(character.escape_unicode());
            }
            control if control.is_control() => plain.extend(control.escape_default()),
            character => plain.push(character),
        }
    }
    plain
}

/// How often a drain is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What a daemon may take to end after its drain.
const AFTER_DRAIN: Duration = Duration::from_secs(10);
