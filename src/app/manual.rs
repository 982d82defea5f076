//! What the command line says of itself to shells and to `man`.

use std::io;

use clap::Command as Cli;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::config::{SETTINGS, usage};

/// The completions of a shell.
pub(super) fn completions(mut cli: Cli, shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut cli, "greenroom", &mut out);
    out
}

/// The manual page, in roff: the commands, every setting, exit codes and signals.
pub(super) fn man(cli: Cli) -> io::Result<Vec<u8>> {
    let cli = cli.after_help(None::<&str>);
    let man = Man::new(cli).section("1").manual("Greenroom");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    man.render_subcommands_section(&mut out)?;
    settings().to_writer(&mut out)?;
    section("EXIT STATUS", EXIT_STATUS).to_writer(&mut out)?;
    section("SIGNALS", SIGNALS).to_writer(&mut out)?;
    Ok(out)
}

fn settings() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SETTINGS"]);
    roff.text([roman("A flag wins over its variable, a variable over the default.")]);
    for setting in SETTINGS.iter().filter(|setting| setting.built) {
        let flag = setting.flag.map(|flag| usage(flag, setting.kind));
        let names: Vec<String> = flag.into_iter().chain(setting.variable.map(str::to_owned)).collect();
        let commands: Vec<&str> = setting.commands.iter().map(|command| command.as_str()).collect();
        roff.control("TP", []);
        roff.text([bold(names.join(", "))]);
        let text = format!("{}. Default: {}. For: {}.", setting.help, setting.default.text(), commands.join(", "));
        roff.text([roman(text.replace('`', ""))]);
    }
    roff
}

fn section(name: &str, rows: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [name]);
    for (term, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
    roff
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done, or stopped cleanly."),
    ("1", "No running daemon answers, or it refuses what was asked of it."),
    ("64", "The command line is wrong."),
    ("69", "The gateway refuses this runner for good."),
    ("70", "Something broke that is not the user's doing."),
    ("78", "Settings are wrong."),
];

const SIGNALS: &[(&str, &str)] =
    &[("TERM, INT", "Drain, then stop; a second one stops at once."), ("USR1", "Write a status report to the log.")];
