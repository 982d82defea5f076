//! An actors file of any text: it is read whole, and every mistake names its line in one line of text.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use greenroom::config::Mistakes;
use greenroom::config::actors_file::parse;

pub fn actors_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let drain = Duration::from_secs(12);
    let mut mistakes = Mistakes::default();
    let file = parse(text, "actors.toml", Path::new("/"), drain, &mut mistakes);
    let lines = 1 + text.matches('\n').count();
    for mistake in mistakes.iter() {
        let told = mistake.to_string();
        assert!(!told.contains(char::is_control), "{told:?}");
        let at = told.strip_prefix("actors.toml:").unwrap_or_else(|| panic!("{told:?} names no file"));
        let (line, says) = at.split_once(": ").unwrap_or_else(|| panic!("{told:?} says nothing"));
        let line: usize = line.parse().unwrap_or_else(|_| panic!("{told:?} names no line"));
        assert!((1..=lines).contains(&line), "{told:?} of {lines} lines");
        assert!(!says.trim().is_empty(), "{told:?} says nothing");
    }
    let mut again = Mistakes::default();
    let same = parse(text, "actors.toml", Path::new("/"), drain, &mut again);
    assert_eq!((&same.actors, &again), (&file.actors, &mistakes));
    if mistakes.is_empty() {
        let mut names = BTreeSet::new();
        let egress: Vec<&str> = file.egress.iter().map(|egress| egress.name.as_str()).collect();
        for actor in &file.actors {
            assert!(!actor.name.is_empty() && names.insert(&actor.name), "{:?} twice", actor.name);
            assert_ne!(actor.command.is_empty(), actor.upstream.is_empty(), "{actor:?}");
            assert!(actor.cwd.is_absolute() && actor.stop_grace.is_none_or(|grace| grace < drain), "{actor:?}");
            assert!(actor.egress.iter().all(|used| egress.contains(&used.as_str())), "{actor:?}");
        }
    }
}
