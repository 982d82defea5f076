//! What is promised about sockets, checked against what clients heard and actors put down.
//!
//! Three kinds of trouble are told apart. After a *gentle* one (an actor is put to sleep, or its runner told to stop) no
//! answer is lost and nothing is told again. After a *crash* (the process of an actor is killed) no answer is lost, and
//! the messages whose taking was not yet durable are told again, in order. After a *hard* one (runner or gateway killed,
//! or parted for long) answers may be lost, too: those that were on their way at that time. In no case is a message told
//! again whose answer the client has heard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::scene::{Happened, Trouble};
use super::talker::{End, LEFT, Transcript};

/// What the sockets went through, in numbers.
#[derive(Debug, Default)]
pub struct Counts {
    pub sockets: usize,
    pub said: u64,
    pub told: usize,
    pub told_again: usize,
    pub answers: usize,
    pub answers_lost: usize,
    /// Ends that the client did not want, by code and reason.
    pub ends: BTreeMap<String, usize>,
    /// Codes of the closes that actors were told.
    pub closes: BTreeMap<String, usize>,
    pub closes_told_again: usize,
    pub lives: usize,
}

pub struct Check<'a> {
    happened: &'a [Happened],
    /// What actors were told, by socket.
    told: BTreeMap<&'a str, Vec<Line<'a>>>,
    /// Sockets by the name of their client; more than one when an open was tried again.
    names: BTreeMap<&'a str, Vec<&'a str>>,
    pub counts: Counts,
    pub wrong: Vec<String>,
}

#[derive(Debug)]
struct Line<'a> {
    what: &'a str,
    at: i64,
    generation: u64,
    seq: Option<u64>,
    attempt: u64,
    value: &'a Value,
}

impl<'a> Check<'a> {
    pub fn new(ledger: &'a [Value], happened: &'a [Happened]) -> Self {
        let mut told: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut lives = 0;
        for value in ledger {
            let what = value["what"].as_str().expect("what it is");
            lives += usize::from(what == "start");
            let Some(ws) = value["ws"].as_str() else { continue };
            let number = |field: &str| value[field].as_u64();
            told.entry(ws).or_default().push(Line {
                what,
                at: value["at"].as_i64().expect("a time"),
                generation: number("generation").expect("a generation"),
                seq: number("seq"),
                attempt: number("attempt").expect("an attempt"),
                value,
            });
            let name = value["path"].as_str().and_then(|path| path.split_once("name="));
            if let Some((_, name)) = name {
                let sockets = names.entry(name).or_default();
                if !sockets.contains(&ws) {
                    sockets.push(ws);
                }
            }
        }
        let counts = Counts { lives, ..Counts::default() };
        Check { happened, told, names, counts, wrong: Vec::new() }
    }

    /// Whether the actor was told everything that the client of an open socket said.
    pub fn is_told_all(&self, transcript: &Transcript) -> bool {
        let newest = self.messages(transcript).filter_map(|line| line.seq).max();
        transcript.said == 0 || newest == Some(transcript.said - 1)
    }

    /// Whether the actor was told the end of every socket that it was told of, after its last message.
    pub fn is_told_closed(&self, transcript: &Transcript) -> bool {
        let sockets = self.names.get(&*transcript.name);
        sockets
            .into_iter()
            .flatten()
            .filter(|ws| self.matters(ws, transcript))
            .all(|ws| self.told.get(*ws).is_some_and(|lines| lines.iter().any(|line| line.what == "close")))
    }

    pub fn check(&mut self, transcript: &Transcript) {
        let mut wrong = Vec::new();
        self.check_heard(transcript, &mut wrong);
        self.check_told(transcript, &mut wrong);
        self.check_closes(transcript, &mut wrong);
        self.counts.sockets += 1;
        self.counts.said += transcript.said;
        self.counts.answers += transcript.answers.len();
        self.wrong.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", transcript.name)));
    }

    fn check_heard(&mut self, transcript: &Transcript, wrong: &mut Vec<String>) {
        wrong.extend(transcript.nonsense.iter().map(|text| format!("heard {text:?}")));
        if transcript.greeted > 1 {
            wrong.push(format!("greeted {} times", transcript.greeted));
        }
        for pair in transcript.answers.windows(2) {
            if pair[1].1 <= pair[0].1 {
                wrong.push(format!("heard the answer to {} after that to {}", pair[1].1, pair[0].1));
            }
        }
        let heard: BTreeMap<u64, i64> = transcript.answers.iter().map(|(at, seq)| (*seq, *at)).collect();
        let last: BTreeMap<u64, i64> =
            self.messages(transcript).filter_map(|line| Some((line.seq?, line.at))).collect();
        let mut lost = Vec::new();
        for (seq, at) in &last {
            match heard.get(seq) {
                Some(heard) if at > heard => wrong.push(format!("{seq} was told again after its answer was heard")),
                Some(_) => {}
                None => lost.push((*seq, *at)),
            }
        }
        // Nobody is there to hear the last answers.
        let gone = transcript.end.is_some();
        lost.retain(|(seq, _)| !gone || transcript.answers.last().is_some_and(|(_, newest)| newest > seq));
        self.counts.answers_lost += lost.len();
        for (seq, at) in lost {
            if !self.was_hard(at, at + ANSWER_MS) {
                wrong.push(format!("the answer to {seq}, which was told at {at}, was never heard"));
            }
        }
        match &transcript.end {
            None | Some(End::Left) => {}
            Some(End::Closed { at, code, reason }) => {
                *self.counts.ends.entry(format!("{code} {reason}")).or_default() += 1;
                if reason.is_empty() {
                    wrong.push(format!("closed at {at} with {code} and no reason"));
                }
            }
            Some(End::Broken { at, why }) => {
                *self.counts.ends.entry("broken".to_owned()).or_default() += 1;
                if !self.happened(&[Trouble::KillGateway], *at - 2_000, *at) {
                    wrong.push(format!("the connection broke at {at}: {why}"));
                }
            }
        }
    }

    fn check_told(&mut self, transcript: &Transcript, wrong: &mut Vec<String>) {
        let mut sockets = BTreeSet::new();
        let mut before: Option<(u64, &Line)> = None;
        let (mut newest, mut told, mut again) = (None, 0, 0);
        let lines: Vec<(&str, &Line)> = self.lines(transcript).filter(|(_, line)| line.seq.is_some()).collect();
        for (ws, line) in lines {
            let Some(seq) = line.seq else { continue };
            sockets.insert(ws);
            told += 1;
            if line.value["body"] != format!("{} {seq}", transcript.name) {
                wrong.push(format!("{} was told as {seq}", line.value["body"]));
            }
            if newest.map_or(seq != 0, |newest| seq > newest + 1) {
                wrong.push(format!("{seq} was told after {newest:?} at {}", line.at));
            }
            let first_attempt = match before {
                Some((earlier, last)) if seq <= earlier => {
                    again += 1;
                    let same_life = last.generation == line.generation;
                    if seq < earlier && same_life {
                        wrong.push(format!("{seq} was told again at {} after {earlier} in the same life", line.at));
                    }
                    let (from, until) = (last.at - 1_000, line.at);
                    if !same_life && !self.was_hard(from, until) && !self.was_killed(from, until) {
                        wrong.push(format!("{seq} was told again at {until} in a new life after a gentle end"));
                    }
                    if same_life && seq == earlier && line.attempt <= last.attempt {
                        wrong.push(format!("{seq} was told again at {} without saying so", line.at));
                    }
                    !same_life
                }
                Some(_) | None => true,
            };
            if first_attempt && line.attempt != 1 {
                wrong.push(format!("{seq} was first told as attempt {} at {}", line.attempt, line.at));
            }
            newest = newest.max(Some(seq));
            before = Some((seq, line));
        }
        if sockets.len() > 1 {
            wrong.push(format!("its messages were told on {} sockets", sockets.len()));
        }
        let all = newest.map_or(0, |newest| newest + 1);
        let complete = matches!(transcript.end, None | Some(End::Left));
        if all > transcript.said || complete && all < transcript.said {
            wrong.push(format!("said {} messages, the actor was told {all} ({:?})", transcript.said, transcript.end));
        }
        self.counts.told += told;
        self.counts.told_again += again;
    }

    fn check_closes(&mut self, transcript: &Transcript, wrong: &mut Vec<String>) {
        let sockets = self.names.get(&*transcript.name).cloned().unwrap_or_default();
        for ws in sockets {
            let lines = &self.told[ws];
            let closes: Vec<&Line> = lines.iter().filter(|line| line.what == "close").collect();
            let Some(first) = closes.first() else {
                if transcript.end.is_some() && self.matters(ws, transcript) {
                    wrong.push(format!("nobody told the actor of its end ({:?})", transcript.end));
                }
                continue;
            };
            let code = format!("{} {}", first.value["code"], first.value["reason"].as_str().unwrap_or_default());
            *self.counts.closes.entry(code).or_default() += 1;
            for (earlier, line) in closes.iter().zip(&closes[1..]) {
                self.counts.closes_told_again += 1;
                if line.attempt < 2 || earlier.generation == line.generation && line.attempt <= earlier.attempt {
                    wrong
                        .push(format!("its end was told at {} and again at {} without saying so", earlier.at, line.at));
                }
            }
            if lines.iter().any(|line| line.what == "message" && line.at > first.at) {
                wrong.push("a message was told after the end".to_owned());
            }
            if transcript.end.is_none() {
                wrong.push(format!("its end was told at {}, and it is open", first.at));
            }
            if transcript.end == Some(End::Left)
                && (first.value["code"] != LEFT.0 || first.value["reason"] != LEFT.1)
                && !self.happened(&[Trouble::KillGateway], transcript.opened, first.at)
            {
                wrong.push(format!("it left with {LEFT:?}, and the actor was told {}", first.value));
            }
        }
    }

    /// An actor need not hear of the end of a socket that it was asked about in vain: the open was tried again.
    fn matters(&self, ws: &str, transcript: &Transcript) -> bool {
        let messages = self.told.get(ws).is_some_and(|lines| lines.iter().any(|line| line.what == "message"));
        let only = self.names.get(&*transcript.name).is_some_and(|sockets| sockets.len() == 1);
        messages || only && transcript.greeted > 0
    }

    fn lines(&self, transcript: &Transcript) -> impl Iterator<Item = (&'a str, &Line<'a>)> {
        let sockets = self.names.get(&*transcript.name);
        sockets.into_iter().flatten().flat_map(|ws| self.told[ws].iter().map(|line| (*ws, line)))
    }

    fn messages(&self, transcript: &Transcript) -> impl Iterator<Item = &Line<'a>> {
        self.lines(transcript).map(|(_, line)| line).filter(|line| line.seq.is_some())
    }

    fn was_hard(&self, from: i64, until: i64) -> bool {
        use Trouble::{Cut, KillGateway, KillRunner, Pause, Silence};
        self.happened(&[KillRunner, KillGateway, Pause, Cut, Silence], from, until)
    }

    fn was_killed(&self, from: i64, until: i64) -> bool {
        self.happened(&[Trouble::KillActors], from, until)
    }

    fn happened(&self, which: &[Trouble], from: i64, until: i64) -> bool {
        self.happened.iter().any(|event| which.contains(&event.trouble) && event.from <= until && event.until >= from)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sockets, said, told, told_again, answers, answers_lost, lives, .. } = self;
        writeln!(
            f,
            "{sockets} sockets over {lives} lives: {said} messages said, told {told} times ({told_again} again),"
        )?;
        writeln!(f, "{answers} answers heard ({answers_lost} lost); unwanted ends {:?},", self.ends)?;
        write!(f, "closes told {:?} ({} again)", self.closes, self.closes_told_again)
    }
}

/// How long after a message was taken its answer may be lost to a trouble: it waits for the storage.
const ANSWER_MS: i64 = 10_000;
