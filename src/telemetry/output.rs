//! The last lines that actors wrote, for whoever asks what an actor is doing.
//!
//! A ring per actor, bounded in lines and bytes, and all of them together; the rings of ended actors are kept until
//! newer ones need the room. Lines come in escaped already.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::telemetry::metrics::Source;

/// One line of an actor.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read.
    pub at: SystemTime,
    /// Which life of the actor wrote it.
    pub generation: u32,
    /// Where it wrote it.
    pub source: Source,
    /// Without control characters.
    pub text: Arc<str>,
}

/// Takes the lines of one life of an actor. While one exists, the actor's ring is kept.
#[derive(Debug)]
pub struct OutputWriter {
    output: &'static Output,
    id: Arc<str>,
    generation: u32,
    ring: Arc<Ring>,
}

/// Reads the lines of one actor, from some of the last ones on.
#[derive(Debug)]
pub struct OutputReader {
    ring: Arc<Ring>,
    next: u64,
}

/// The lines of an actor's life go in here.
#[must_use]
pub fn writer(actor_id: &Arc<str>, generation: u32) -> OutputWriter {
    OUTPUT.writer(actor_id, generation)
}

/// A reader of an actor's lines that begins with the last `lines` of them; nothing when none are known.
#[must_use]
pub fn reader(actor_id: &str, lines: usize) -> Option<OutputReader> {
    OUTPUT.reader(actor_id, lines)
}

/// The id under which the lines of a process go that serves all actors of this name.
#[must_use]
pub fn process_of(name: &str) -> String {
    format!("process of {name}")
}

impl OutputWriter {
    /// Adds a line.
    pub fn push(&self, source: Source, text: &str) {
        let line = Line { at: SystemTime::now(), generation: self.generation, source, text: text.into() };
        let mut lines = self.ring.lines();
        let mut total = self.output.bytes.fetch_add(size(&line), Ordering::Relaxed) + size(&line);
        lines.bytes += size(&line);
        lines.kept.push_back(line);
        while lines.kept.len() > 1
            && (lines.kept.len() > LINES_MAX || lines.bytes > RING_MAX || total > ALL_MAX)
            && let Some(oldest) = lines.kept.pop_front()
        {
            lines.first += 1;
            lines.bytes -= size(&oldest);
            total = self.output.bytes.fetch_sub(size(&oldest), Ordering::Relaxed) - size(&oldest);
        }
        drop(lines);
        self.ring.news.notify_waiters();
    }
}

impl Drop for OutputWriter {
    fn drop(&mut self) {
        self.output.writer_ends(&self.id, &self.ring);
    }
}

impl OutputReader {
    /// The next line that is there already.
    pub fn try_next(&mut self) -> Option<Line> {
        let lines = self.ring.lines();
        self.next = self.next.max(lines.first);
        let line = lines.kept.get(usize::try_from(self.next - lines.first).ok()?)?.clone();
        self.next += 1;
        Some(line)
    }

    /// The next line, when it comes; nothing when no more can come. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            let ring = self.ring.clone();
            let news = ring.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(line) = self.try_next() {
                return Some(line);
            }
            if ring.lines().forgotten {
                return None;
            }
            news.await;
        }
    }
}

#[derive(Debug, Default)]
struct Output {
    rings: Mutex<Rings>,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Rings {
    by_actor: HashMap<Arc<str>, Arc<Ring>>,
    /// Actors whose last writer ended, oldest first, each with the number of its end; an actor may have come back.
    ended: VecDeque<(Arc<str>, u64)>,
    ends: u64,
}

#[derive(Debug, Default)]
struct Ring {
    lines: Mutex<Lines>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Line>,
    /// The number of the first kept line.
    first: u64,
    bytes: usize,
    writers: usize,
    /// The number of the end that left no writer.
    ended: u64,
    forgotten: bool,
}

impl Output {
    fn writer(&'static self, actor_id: &Arc<str>, generation: u32) -> OutputWriter {
        let mut rings = self.rings();
        let ring = rings.by_actor.entry(actor_id.clone()).or_default().clone();
        ring.lines().writers += 1;
        OutputWriter { output: self, id: actor_id.clone(), generation, ring }
    }

    fn reader(&self, actor_id: &str, lines: usize) -> Option<OutputReader> {
        let ring = self.rings().by_actor.get(actor_id)?.clone();
        let next = {
            let kept = ring.lines();
            kept.first + kept.kept.len().saturating_sub(lines) as u64
        };
        Some(OutputReader { ring, next })
    }

    fn writer_ends(&self, id: &Arc<str>, ring: &Ring) {
        let mut rings = self.rings();
        rings.ends += 1;
        let end = rings.ends;
        let mut lines = ring.lines();
        lines.writers -= 1;
        lines.ended = end;
        let last = lines.writers == 0;
        drop(lines);
        if last {
            rings.ended.push_back((id.clone(), end));
        }
        while rings.ended.len() > ENDED_MAX
            && let Some((id, end)) = rings.ended.pop_front()
        {
            let Some(ring) = rings.by_actor.get(&id).cloned() else { continue };
            let mut lines = ring.lines();
            if lines.writers == 0 && lines.ended == end {
                self.bytes.fetch_sub(lines.bytes, Ordering::Relaxed);
                lines.forgotten = true;
                drop(lines);
                ring.news.notify_waiters();
                rings.by_actor.remove(&id);
            }
        }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(line: &Line) -> usize {
    line.text.len() + size_of::<Line>()
}

static OUTPUT: LazyLock<Output> = LazyLock::new(Output::default);

/// Lines kept of an actor: some screens.
const LINES_MAX: usize = 500;
/// Bytes kept of an actor.
const RING_MAX: usize = 64 * 1024;
/// Bytes kept of all actors; beyond it, an actor that writes keeps only its newest line.
const ALL_MAX: usize = 32 * 1024 * 1024;
/// Ended actors whose lines are kept.
const ENDED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_with_the_last_lines_and_goes_on() {
        let output = leaked();
        let writer = output.writer(&"a".into(), 1);
        (0..10).for_each(|number| writer.push(Source::Stdout, &number.to_string()));
        let mut reader = output.reader("a", 2).unwrap();
        assert_eq!(texts(&mut reader), ["8", "9"]);
        writer.push(Source::Stderr, "10");
        assert_eq!(texts(&mut reader), ["10"]);
        assert!(output.reader("b", 2).is_none());
    }

    #[test]
    fn a_ring_is_bounded_in_lines_and_bytes() {
        let output = leaked();
        let writer = output.writer(&"a".into(), 1);
        (0..2 * LINES_MAX).for_each(|number| writer.push(Source::Stdout, &number.to_string()));
        assert_eq!(texts(&mut output.reader("a", usize::MAX).unwrap()).len(), LINES_MAX);
        (0..100).for_each(|_| writer.push(Source::Stdout, &"x".repeat(8000)));
        assert!(output.bytes.load(Ordering::Relaxed) <= RING_MAX);
        let fit = RING_MAX / (8000 + size_of::<Line>());
        assert_eq!(texts(&mut output.reader("a", usize::MAX).unwrap()).len(), fit);
    }

    #[test]
    fn the_lines_of_ended_actors_are_kept_until_newer_ones_need_the_room() {
        let output = leaked();
        for number in 0..=ENDED_MAX {
            output.writer(&number.to_string().into(), 1).push(Source::Stdout, "last words");
        }
        assert!(output.reader("0", 1).is_none());
        let mut reader = output.reader("1", 1).unwrap();
        assert_eq!(texts(&mut reader), ["last words"]);
        // An actor that comes back is not forgotten with its first end.
        let back = output.writer(&"1".into(), 2);
        for number in 0..=ENDED_MAX {
            output.writer(&format!("other {number}").into(), 1).push(Source::Stdout, "last words");
        }
        assert!(output.reader("1", 1).is_some() && output.reader("2", 1).is_none());
        drop(back);
    }

    #[tokio::test]
    async fn who_follows_gets_lines_as_they_come_and_the_end() {
        let output = leaked();
        let writer = output.writer(&"a".into(), 1);
        let mut reader = output.reader("a", 10).unwrap();
        let following = tokio::spawn(async move { (reader.next().await.unwrap().text, reader.next().await.is_none()) });
        writer.push(Source::Stdout, "one");
        tokio::task::yield_now().await;
        drop(writer);
        (0..=ENDED_MAX).for_each(|number| drop(output.writer(&format!("other {number}").into(), 1)));
        assert_eq!(following.await.unwrap(), ("one".into(), true));
    }

    fn leaked() -> &'static Output {
        Box::leak(Box::default())
    }

    fn texts(reader: &mut OutputReader) -> Vec<String> {
        std::iter::from_fn(|| reader.try_next()).map(|line| line.text.to_string()).collect()
    }
}
