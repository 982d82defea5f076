//! What a process writes to its standard output and error: log records with the actor's identity, and the last lines
//! of the error output for the reason of its end.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::info;

use crate::host::StartActor;
use crate::telemetry::metrics::{self, Source};
use crate::telemetry::output;

/// The last lines of a process's standard error. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(clip(line, TAIL_LINE_MAX).to_owned());
    }

    /// The lines, newest last, at most [`TAIL_MAX`] bytes of them.
    pub(super) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = TAIL_MAX;
        let fit = lines.iter().rev().take_while(|line| {
            room = room.saturating_sub(line.len() + 1);
            room > 0
        });
        let first = lines.len() - fit.count();
        lines.iter().skip(first).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Reads a stream of lines to its end; each line becomes a record.
pub(super) async fn follow(
    mut output: impl AsyncRead + Unpin,
    stream: &'static str,
    start: Arc<StartActor>,
    tail: Option<Tail>,
) {
    let source = if tail.is_some() { Source::Stderr } else { Source::Stdout };
    let (recent, counts) = (output::writer(&start.key.id, start.key.generation), metrics::runner().actor(&start.name));
    let record = |line: &[u8], cut: usize| {
        let line = escaped(line, cut);
        let (key, name) = (&start.key, &*start.name);
        info!(target: "greenroom::actor", actor_id = %key.id, generation = key.generation, name, stream, "{line}");
        recent.push(source, &line);
        counts.log_line(source);
        if let Some(tail) = &tail {
            tail.push(&line);
        }
    };
    let mut lines = Lines::default();
    let mut buffer = vec![0; READ_SIZE];
    // An error is an end like any other: the pipe is gone.
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        lines.feed(&buffer[..count], record);
    }
    lines.finish(record);
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    cut: usize,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut record: impl FnMut(&[u8], usize)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = LINE_MAX - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.cut += text.len().saturating_sub(room);
            if ends {
                record(&self.line, self.cut);
                self.line.clear();
                self.cut = 0;
            }
        }
    }

    fn finish(self, mut record: impl FnMut(&[u8], usize)) {
        if !self.line.is_empty() {
            record(&self.line, self.cut);
        }
    }
}

/// A line that no terminal and no log reader takes for anything but text.
fn escaped(line: &[u8], cut: usize) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => escaped.push('\t'),
            control if control.is_control() || is_format(control) => escaped.extend(control.escape_default()),
            plain => escaped.push(plain),
        }
    }
    if cut > 0 {
        // Writing to a string does not fail.
        let _ = write!(escaped, "… ({cut} bytes more)");
    }
    escaped
}

/// Characters that break a line or reorder text without being control characters.
fn is_format(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn clip(line: &str, most: usize) -> &str {
    &line[..line.floor_char_boundary(most)]
}

/// The longest line that is recorded, in bytes; the rest of a longer one is counted and left out.
const LINE_MAX: usize = 8 * 1024;

/// How many lines of standard error a reason carries.
const TAIL_LINES: usize = 20;

/// How much of one of them, in bytes.
const TAIL_LINE_MAX: usize = 1024;

/// How much of all of them, in bytes: the reason travels to the gateway in every stop event.
const TAIL_MAX: usize = 4 * 1024;

const READ_SIZE: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_newlines_wherever_the_reads_fall() {
        for size in 1..8 {
            let mut seen = Vec::new();
            let mut lines = Lines::default();
            for chunk in b"one\ntwo\r\n\nthree".chunks(size) {
                lines.feed(chunk, |line, cut| seen.push(escaped(line, cut)));
            }
            lines.finish(|line, cut| seen.push(escaped(line, cut)));
            assert_eq!(seen, ["one", "two", "", "three"], "reads of {size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory_and_says_what_is_missing() {
        let mut lines = Lines::default();
        for _ in 0..10 {
            lines.feed(&[b'x'; LINE_MAX], |_, _| panic!("no line yet"));
        }
        assert_eq!(lines.line.len(), LINE_MAX);
        let mut seen = Vec::new();
        lines.feed(b"\nnext\n", |line, cut| seen.push(escaped(line, cut)));
        assert!(seen[0].ends_with(&format!("… ({} bytes more)", 9 * LINE_MAX)));
        assert_eq!(seen[1], "next");
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(escaped(b"\x1b[31mred\x07\ta\rb\0", 0), "\\u{1b}[31mred\\u{7}\ta\\rb\\u{0}");
        assert_eq!(escaped("a\u{2028}b\u{202e}c\u{9b}d".as_bytes(), 0), "a\\u{2028}b\\u{202e}c\\u{9b}d");
        assert_eq!(escaped(b"\xff\xfe", 0), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_tail_keeps_the_last_lines_within_its_size() {
        let tail = Tail::default();
        assert_eq!(tail.text(), "");
        for line in 0..30 {
            tail.push(&format!("line {line}"));
        }
        assert_eq!(tail.text().lines().count(), TAIL_LINES);
        assert!(tail.text().starts_with("line 10\n") && tail.text().ends_with("line 29"));
        for _ in 0..30 {
            tail.push(&"é".repeat(5000));
        }
        assert!(tail.text().len() <= TAIL_MAX && tail.text().lines().count() == 3);
    }
}
