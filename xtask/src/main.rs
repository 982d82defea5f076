//! What is done with this project beside building and testing it: `cargo xtask sim --minutes 10`.

use std::env;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let task = Sim::parse(&words);
    match task.and_then(|task| task.run()) {
        Ok(code) => code,
        Err(mistake) => {
            eprintln!("{mistake}\n\n{USAGE}");
            ExitCode::from(64)
        }
    }
}

/// Runs seeds of the simulation that nobody has seen.
#[derive(Debug, PartialEq, Eq)]
struct Sim {
    minutes: u64,
    /// The first seed; by the clock when not given.
    from: Option<u64>,
    release: bool,
}

impl Sim {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut words = words.iter();
        match words.next().map(String::as_str) {
            Some("sim") => {}
            Some(other) => return Err(format!("there is no task `{other}`")),
            None => return Err("a task is missing".to_owned()),
        }
        let mut sim = Sim { minutes: 10, from: None, release: false };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--minutes" => sim.minutes = number("--minutes", words.next())?,
                "--from" => sim.from = Some(number("--from", words.next())?),
                "--release" => sim.release = true,
                other => return Err(format!("`{other}` is not known")),
            }
        }
        Ok(sim)
    }

    fn run(&self) -> Result<ExitCode, String> {
        let from = self.from.unwrap_or_else(by_the_clock);
        println!("seeds from {from} on, for {} minutes", self.minutes);
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg("test").args(self.release.then_some("--release")).args(["--package", "greenroom", "--test", "sim"]);
        cargo.args(["--", "--exact", "--nocapture", "seeds_that_nobody_has_seen"]);
        cargo.env("SIM_MINUTES", self.minutes.to_string()).env("SIM_FROM", from.to_string());
        let status = cargo.status().map_err(|error| format!("cargo cannot be run: {error}"))?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn number(name: &str, word: Option<&String>) -> Result<u64, String> {
    let word = word.ok_or_else(|| format!("{name} needs a number"))?;
    word.parse().map_err(|_| format!("{name}: `{word}` is not a number"))
}

/// A seed that no earlier run began with.
fn by_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() * 1_000)
}

const USAGE: &str = "\
cargo xtask sim [--minutes N] [--from SEED] [--release]

  Runs the simulation (tests/sim) with new seeds for N minutes, 10 by default. The first seed that breaks a law ends it,
  with the few steps that do and the command that runs it again.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_mistakes_are_named() {
        let parse = |words: &str| Sim::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let sim = Sim { minutes: 3, from: Some(7), release: true };
        assert_eq!(parse("sim --minutes 3 --from 7 --release"), Ok(sim));
        assert_eq!(parse("sim").map(|sim| sim.minutes), Ok(10));
        for (words, mistake) in [("tea", "tea"), ("sim --minutes", "--minutes"), ("sim --minutes x", "`x`")] {
            let said = parse(words).unwrap_err();
            assert!(said.contains(mistake), "{said}");
        }
    }
}
