//! docs/PERFORMANCE.md: the measured part of it is written here, the rest by people.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::figures::{Figures, Part};
use crate::{floors, machine, picture};

/// What is measured, as text.
pub fn text(figures: &Figures, how: &str) -> String {
    let mut text = format!("{}\n\n{how}\n\n## Floors\n\n{}", machine::describe(), floors::table(figures));
    if !figures.failures.is_empty() {
        let _ = write!(text, "\nNot everything could be measured:\n\n- {}\n", figures.failures.join("\n- "));
    }
    for (part, title, about) in PARTS {
        if figures.of(*part).next().is_some() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n## {title}\n\n{about}\n\n{}", figures.table(*part));
        }
    }
    text
}

/// Puts it between the marks of the document, and the picture beside it.
pub fn write(figures: &Figures, how: &str) -> Result<(), String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let path = docs.join("PERFORMANCE.md");
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let old = fs::read_to_string(&path).map_err(said)?;
    let lost = || format!("{}: the marks {BEGIN} and {END} are not there", path.display());
    let (before, rest) = old.split_once(BEGIN).ok_or_else(lost)?;
    let (_, after) = rest.split_once(END).ok_or_else(lost)?;
    fs::write(&path, format!("{before}{BEGIN}\n\n{}\n{END}{after}", text(figures, how))).map_err(said)?;
    fs::write(docs.join("growth.svg"), picture::draw(figures)).map_err(said)?;
    eprintln!("written: {}", path.display());
    Ok(())
}

const BEGIN: &str = "<!-- measured: written by `cargo bench --bench load` -->";
const END: &str = "<!-- end of what is measured -->";

const PARTS: &[(Part, &str, &str)] = &[
    (
        Part::Tunnel,
        "Behind a load generator",
        "The generator plays the gateway for one runner after the other, with the same messages. Processor time is that of \
         the runner's process alone; the rate is bounded by the generator as well, which shares the machine. \"Actor \
         lives\" are starts and stops.",
    ),
    (
        Part::Door,
        "At the front door",
        "Clients talk HTTP to a gateway with a runner behind it: `greenroom gateway` with `examples/bench_app.rs`, the \
         Rivet engine with the TypeScript runner, and hyper behind hyper, which does nothing but pass on and is what two \
         hops cost at least. Processor time and memory are those of both processes together. Puts are durable before they \
         are answered; beside them stands how often the disk made 4 KiB durable in the same minute.",
    ),
    (
        Part::Codec,
        "The codec, and allocations",
        "The same frames in both codecs, in one thread. The last row counts what the whole runner asks the allocator for.",
    ),
    (
        Part::Growth,
        "Growth",
        "What a message costs the runner while there are ten and a hundred times as many actors, open requests or sockets: \
         a line that stays flat.\n\n![Processor time for each message](growth.svg)",
    ),
];
