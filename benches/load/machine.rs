//! What everything was measured on.

use std::fs;
use std::process::Command;

/// One paragraph.
pub fn describe() -> String {
    let cpus = read("/proc/cpuinfo");
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_matches([' ', '\t', ':']);
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read("/proc/meminfo").lines().find_map(|line| {
        let kib: f64 = line.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse().ok()?;
        Some(format!("{:.0} GiB", kib / 1024.0 / 1024.0))
    });
    let memory = memory.unwrap_or_default();
    let system = read("/proc/sys/kernel/osrelease");
    let node = said("node", &["--version"]);
    let commit = said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]);
    let date = said("date", &["-u", "+%F"]);
    format!(
        "Measured on {date} at commit {commit}: {model}, {count} processors shared by everything that takes part, {memory} \
         of memory, Linux {}, Node {node}, `@rivetkit/engine-runner` 2.2.1, Rivet engine 2.3.19.",
        system.trim()
    )
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output.ok().filter(|output| output.status.success());
    said.map_or_else(|| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
