//! The command line, made from the table of settings.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command as Cli, value_parser};
use clap_complete::Shell;

use crate::app::Exit;
use crate::app::operator::Question;
use crate::config::{Command, Environment, Fallback, Id, Kind, NOT_BUILT, SETTINGS, Setting, Values};

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    Dev(Values),
    Run(Values),
    Gateway(Values),
    ConfigCheck {
        values: Values,
        online: bool,
    },
    ConfigShow(Values),
    Version {
        json: bool,
    },
    /// A question to a running daemon, and the settings by which it is found.
    Ask {
        values: Values,
        question: Question,
        json: bool,
    },
    Completions(Shell),
    Man,
    /// A command that the contract names and this version lacks.
    NotBuilt(&'static str),
    /// The user has been told already: help, or what is wrong with the command line.
    Told(Exit),
}

/// Parses the arguments of a process, its own name first.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> Invocation {
    let matches = match cli().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Help goes to stdout and ends well, mistakes go to stderr; whoever closed them does not want either.
            let _ = error.print();
            return Invocation::Told(if error.exit_code() == 0 { Exit::Clean } else { Exit::Usage });
        }
    };
    let values = |commands: &[Command], matches: &ArgMatches| Values::collect(commands, flags(matches), environment);
    match matches.subcommand() {
        Some(("dev", matches)) => Invocation::Dev(values(&[Command::Dev], matches)),
        Some(("run", matches)) => Invocation::Run(values(&[Command::Run], matches)),
        Some(("gateway", matches)) => Invocation::Gateway(values(&[Command::Gateway], matches)),
        Some(("config", matches)) => match matches.subcommand() {
            Some(("show", matches)) => Invocation::ConfigShow(values(&Command::ALL, matches)),
            Some((_, matches)) => {
                Invocation::ConfigCheck { values: values(&Command::ALL, matches), online: matches.get_flag("online") }
            }
            None => Invocation::Told(Exit::Usage),
        },
        Some(("version", matches)) => Invocation::Version { json: matches.get_flag("json") },
        Some(("completions", matches)) => {
            let shell = matches.get_one::<Shell>("shell").copied();
            shell.map_or(Invocation::Told(Exit::Usage), Invocation::Completions)
        }
        Some(("man", _)) => Invocation::Man,
        Some((name, matches)) if let Some(question) = question(name, matches) => {
            let matches = matches.subcommand().map_or(matches, |(_, inner)| inner);
            let json = matches.get_flag("json");
            Invocation::Ask { values: values(&[Command::Run], matches), question, json }
        }
        Some((name, _)) => {
            let command = LATER.iter().find(|command| **command == name);
            command.map_or(Invocation::Told(Exit::Usage), |command| Invocation::NotBuilt(command))
        }
        None => Invocation::Told(Exit::Usage),
    }
}

/// What is asked of a running daemon, when this command asks one.
fn question(command: &str, matches: &ArgMatches) -> Option<Question> {
    let text = |matches: &ArgMatches, name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    Some(match (command, matches.subcommand()) {
        ("status", _) => Question::Status,
        ("drain", _) => Question::Drain { wait: !matches.get_flag("no-wait") },
        ("actors", None) => Question::Actors { all: matches.get_flag("all") },
        ("actors", Some(("list", matches))) => Question::Actors { all: matches.get_flag("all") },
        ("actors", Some(("show", matches))) => Question::Actor { id: text(matches, "id") },
        ("actors", Some(("explain", matches))) => Question::Explain { id: text(matches, "id") },
        ("actors", Some(("sleep", matches))) => Question::Sleep { id: text(matches, "id") },
        ("actors", Some(("stop", matches))) => Question::Stop { id: text(matches, "id") },
        ("actors", Some(("logs", matches))) => Question::Logs {
            id: text(matches, "id"),
            lines: text(matches, "lines"),
            follow: matches.get_flag("follow"),
        },
        ("log", Some(("show", _))) => Question::Log,
        ("log", Some(("set", matches))) => {
            Question::SetLog { filter: text(matches, "filter"), during: matches.get_one::<String>("for").cloned() }
        }
        _ => return None,
    })
}

pub(super) fn cli() -> Cli {
    let online = Arg::new("online")
        .long("online")
        .action(ArgAction::SetTrue)
        .help("Also connect to the gateway and leave again; exit 69 when it refuses or cannot be reached");
    let config = Cli::new("config")
        .about("Look at settings without starting anything")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_settings(Cli::new("check").about("Check all settings; tell every mistake at once"), &Command::ALL)
                .arg(online),
        )
        .subcommand(with_settings(
            Cli::new("show").about("Show all settings with their sources; secrets are not shown"),
            &Command::ALL,
        ));
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("As a JSON object");
    let cli = Cli::new("greenroom")
        .about("Runs stateful actors on machines you control")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(120)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Every flag has a variable: --runner-name is GREENROOM_RUNNER_NAME. A flag wins over a variable.\n\
             Exit codes: 0 clean stop, 1 no answer from a running daemon, 64 usage, 69 refused by the gateway, 70 internal, 78 bad configuration.",
        )
        .subcommand(with_settings(
            Cli::new("dev").about("Run a gateway and a runner in one process; without actors, demo actors"),
            &[Command::Dev],
        ))
        .subcommand(with_settings(Cli::new("run").about("Run the runner daemon"), &[Command::Run]))
        .subcommand(with_settings(Cli::new("gateway").about("Run the gateway alone"), &[Command::Gateway]))
        .subcommand(asking(Cli::new("status").about("Ask a running daemon how it does")))
        .subcommand(actors())
        .subcommand(asking(
            Cli::new("drain")
                .about("Stop a running daemon politely, and watch it until it has stopped")
                .arg(switch("wait", "Wait until it has stopped; so it does unless told otherwise"))
                .arg(switch("no-wait", "Return at once").conflicts_with("wait")),
        ))
        .subcommand(log())
        .subcommand(config)
        .subcommand(
            Cli::new("completions").about("Print the completions of a shell").arg(
                Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)),
            ),
        )
        .subcommand(Cli::new("man").about("Print the manual page, in roff"))
        .subcommand(Cli::new("version").about("Print the version").arg(json));
    LATER.iter().fold(cli, |cli, name| cli.subcommand(later(name)))
}

fn actors() -> Cli {
    let id =
        || Arg::new("id").value_name("ID").required(true).help("An actor's id, a prefix of it, or its key or name");
    let one = |name: &'static str, about: &'static str| asking(Cli::new(name).about(about).arg(id()));
    let all = || switch("all", "Also the last actors that ended");
    asking(Cli::new("actors").about("Ask a running daemon about its actors").arg(all()))
        .args_conflicts_with_subcommands(true)
        .subcommand(asking(Cli::new("list").about("List the actors that are awake").arg(all())))
        .subcommand(one("show", "Show all that is known of an actor"))
        .subcommand(one("explain", "Say why an actor is awake, why it stopped last, and what it waits for"))
        .subcommand(one("sleep", "Ask for an actor's sleep"))
        .subcommand(one("stop", "Stop an actor with an error; its crash policy says what follows"))
        .subcommand(
            one("logs", "Print the last lines that an actor's process wrote")
                .arg(switch("follow", "Go on with the lines that come").short('f'))
                .arg(
                    Arg::new("lines")
                        .long("lines")
                        .short('n')
                        .value_name("N")
                        .default_value("100")
                        .help("How many of the last lines"),
                ),
        )
}

fn log() -> Cli {
    let filter = Arg::new("filter").value_name("FILTER").required(true);
    let during =
        Arg::new("for").long("for").value_name("DURATION").help("Go back to the configured filter after this time");
    Cli::new("log")
        .about("Look at or change what a running daemon logs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(asking(Cli::new("show").about("Show the log filter that holds")))
        .subcommand(asking(
            Cli::new("set")
                .about("Change the log filter, like info or info,greenroom::session=debug")
                .arg(filter.help("A level, or levels by target"))
                .arg(during),
        ))
}

/// A command that asks a running daemon, with the settings by which it is found.
fn asking(cli: Cli) -> Cli {
    let settings = [Id::Admin, Id::AdminWriteTokenFile, Id::RuntimeDir, Id::DataDir];
    let cli = cli.arg(switch("json", "As JSON"));
    settings.into_iter().filter_map(|id| argument(id.setting())).fold(cli, |cli, argument| {
        let help = match argument.get_id().as_str() {
            "admin" => {
                "Where the daemon is, and nowhere else: ADDRESS or unix:PATH [default: its socket in the runtime \
                        directory, then the address of GREENROOM_ADMIN]"
            }
            "admin-write-token-file" => {
                "A file with the token for changes over an address [env: \
                                         GREENROOM_ADMIN_WRITE_TOKEN_FILE]"
            }
            "runtime-dir" => "The daemon's runtime directory [env: GREENROOM_RUNTIME_DIR]",
            _ => "The daemon's data directory [env: GREENROOM_DATA_DIR]",
        };
        cli.arg(argument.help(help))
    })
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// A command that takes anything and does nothing but say so. Not in the help.
fn later(name: &'static str) -> Cli {
    let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Cli::new(name).about(NOT_BUILT).hide(true).disable_help_flag(true).arg(rest)
}

fn with_settings(cli: Cli, commands: &[Command]) -> Cli {
    let wanted = |setting: &&Setting| commands.iter().any(|command| setting.applies_to(*command));
    SETTINGS.iter().filter(wanted).filter_map(argument).fold(cli, Cli::arg)
}

fn argument(setting: &'static Setting) -> Option<Arg> {
    let flag = setting.flag?;
    let mut help = setting.help.replace('`', "");
    if let Some(variable) = setting.variable {
        help.push_str(&format!(" [env: {variable}]"));
    }
    if let (Fallback::Text(default), false) = (setting.default, setting.kind == Kind::Switch) {
        help.push_str(&format!(" [default: {default}]"));
    }
    if let (Fallback::Words(default), true) = (setting.default, setting.default.text().len() > 3) {
        help.push_str(&format!(" [default: {}]", default.replace('`', "")));
    }
    let action = match setting.kind {
        Kind::Switch => ArgAction::SetTrue,
        Kind::Actor => ArgAction::Append,
        _ => ArgAction::Set,
    };
    let argument = Arg::new(flag).long(flag).action(action).help(help).hide(!setting.built);
    Some(match setting.kind {
        Kind::Switch => argument,
        // So that a count below zero is told as a wrong count.
        Kind::Count { .. } => argument.value_name(setting.kind.placeholder()).allow_negative_numbers(true),
        _ => argument.value_name(setting.kind.placeholder()),
    })
}

fn flags(matches: &ArgMatches) -> BTreeMap<Id, Vec<String>> {
    let given = |setting: &Setting| {
        let flag = setting.flag.filter(|flag| matches.try_contains_id(flag).unwrap_or(false))?;
        let texts: Vec<String> = match setting.kind {
            Kind::Switch => matches.get_flag(flag).then(|| "true".to_owned()).into_iter().collect(),
            _ => matches.get_many::<String>(flag)?.cloned().collect(),
        };
        (!texts.is_empty()).then_some((setting.id, texts))
    };
    SETTINGS.iter().filter_map(given).collect()
}

/// Commands of the contract that are not built. A command that gets built leaves this list.
const LATER: &[&str] = &["workflows", "jobs"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        cli().debug_assert();
    }

    #[test]
    fn flags_reach_their_settings() {
        let Invocation::Dev(values) = invoke("dev --slots -1 --actor a=b --actor c=d --insecure") else { panic!() };
        let texts = |id| values.given(id).iter().map(|value| value.text.as_str()).collect::<Vec<_>>();
        assert_eq!(texts(Id::Slots), ["-1"]);
        assert_eq!(texts(Id::Actor), ["a=b", "c=d"]);
        assert_eq!(texts(Id::Insecure), ["true"]);
        assert!(texts(Id::Listen).is_empty());
    }

    #[test]
    fn what_is_not_built_is_not_in_the_help() {
        let mut cli = cli();
        let help = cli.render_long_help().to_string();
        for name in LATER {
            assert!(!help.contains(&format!("\n  {name}")), "{name}");
            assert!(matches!(invoke(&format!("{name} --some thing")), Invocation::NotBuilt(told) if told == *name));
        }
        let run = cli.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        assert!(run.contains("--otlp-endpoint"));
        assert!(run.contains("[env: GREENROOM_SLOTS]") && run.contains("[default: 1000]"), "{run}");
    }

    fn invoke(line: &str) -> Invocation {
        let environment = Environment { variables: BTreeMap::new(), current_dir: "/".into() };
        parse(["greenroom"].into_iter().chain(line.split(' ')).map(OsString::from), environment)
    }
}
