use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::ExposeSecret;

use super::*;
use crate::config::{Command, Environment};

#[test]
fn without_anything_said_the_defaults_hold() {
    let settings = RunSettings::new(&run(&[], &[])).unwrap();
    assert_eq!(settings.endpoint.to_string(), "http://127.0.0.1:6420");
    assert_eq!(settings.namespace, "default");
    assert!(settings.token.is_none());
    assert_eq!(settings.runner_name, "default");
    assert_eq!(settings.runner_key, None);
    assert_eq!(settings.slots, 1000);
    assert_eq!(settings.protocol_version, Version::V7);
    assert_eq!(settings.data_dir, Path::new("/nowhere/.greenroom"));
    assert_eq!(settings.runtime_dir, Path::new("/nowhere/.greenroom/run"));
    assert_eq!(settings.admin.address, Some("127.0.0.1:6490".parse().unwrap()));
    assert_eq!(settings.drain_timeout, Duration::from_secs(12));
    assert!(settings.actors.is_empty());
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_default() {
    let environment = &[("GREENROOM_SLOTS", "5"), ("GREENROOM_NAMESPACE", "stage")];
    let settings = RunSettings::new(&run(&[(Id::Slots, "6")], environment)).unwrap();
    assert_eq!(settings.slots, 6);
    assert_eq!(settings.namespace, "stage");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(RunSettings::new(&run(&[], &[("GREENROOM_SLOTS", "")])).unwrap().slots, 1000);
}

#[test]
fn a_variable_of_another_command_is_left_alone() {
    assert!(RunSettings::new(&run(&[], &[("GREENROOM_LISTEN", "nonsense")])).is_ok());
}

#[test]
fn a_service_manager_that_kills_before_the_drain_is_over_is_a_mistake() {
    let check = |stop, drain| RunSettings::new(&run(&[(Id::DrainTimeout, drain)], &[("GREENROOM_STOP_TIMEOUT", stop)]));
    assert!(check("16s", "12s").is_ok());
    let mistakes = check("15s", "12s").unwrap_err().to_string();
    assert!(
        mistakes.contains("GREENROOM_STOP_TIMEOUT=\"15s\": the service manager kills the daemon after 15s"),
        "{mistakes}"
    );
}

#[test]
fn an_empty_credential_is_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let environment = &[("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())];
    file(dir.path(), "token", "\n", 0o440);
    assert!(RunSettings::new(&run(&[], environment)).unwrap().token.is_none());
    file(dir.path(), "token", "secret\n", 0o440);
    assert!(RunSettings::new(&run(&[], environment)).unwrap().token.is_some());
}

#[test]
fn ten_kinds_of_mistakes_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let token = file(dir.path(), "token", "secret", 0o644);
    let actors = file(dir.path(), "actors.toml", "[actors.a]\ncommand = 3\n", 0o600);
    let flags = &[
        (Id::Endpoint, "ftp://host"),
        (Id::Slots, "-1"),
        (Id::ProtocolVersion, "8"),
        (Id::DrainTimeout, "12"),
        (Id::TokenFile, &token),
        (Id::Actors, &actors),
        (Id::Actor, "nameless"),
        (Id::RunnerName, ""),
        (Id::Api, "0.0.0.0:0"),
        (Id::LogFormat, "jsno"),
        (Id::ReportUrl, "ws://control"),
    ];
    let environment = &[("GREENROOM_ENDPONT", "x"), ("GREENROOM_LOG", "inof"), ("GREENROOM_ADMIN", "6490")];
    let mistakes = RunSettings::new(&run(flags, environment)).unwrap_err();
    let lines: Vec<String> = mistakes.to_string().lines().map(str::to_owned).collect();
    for expected in [
        "GREENROOM_ENDPONT: unknown variable (did you mean GREENROOM_ENDPOINT?)",
        "--endpoint=\"ftp://host\": expected a URL that begins with http, https, ws or wss",
        "--slots=\"-1\": expected a count from 1 to 4000000",
        "--protocol-version=\"8\": expected a count from 4 to 7",
        "--drain-timeout=\"12\": expected a unit: 12ms, 12s, 12m or 12h",
        &format!("--token-file={token:?}: others can read this file (mode 0644): run `chmod 600 {token}`"),
        &format!(
            "{actors}:2: actors.a.command = 3: expected a list of texts, the program first, like [\"node\", \"counter.mjs\"]"
        ),
        "--actor=\"nameless\": expected NAME=COMMAND, like counter='node counter.mjs'",
        "--runner-name=\"\": expected a name of 1 to 256 bytes without control characters",
        "--api=\"0.0.0.0:0\": expected a loopback address: only actors on this machine use it",
        "--log-format=\"jsno\": expected one of text, json, auto (did you mean json?)",
        "--report-url=\"ws://control\": expected a URL that begins with http or https",
        "GREENROOM_LOG=\"inof\": \"inof\" is no level (did you mean info?)",
        "GREENROOM_ADMIN=\"6490\": expected an IP address and a port, like 127.0.0.1:6490, or off",
    ] {
        assert!(lines.iter().any(|line| line == expected), "missing {expected}\nin {lines:#?}");
    }
    assert_eq!(lines.len(), 14, "{lines:#?}");
}

#[test]
fn a_mistake_in_a_token_does_not_show_it() {
    let mistakes = RunSettings::new(&run(&[], &[("GREENROOM_TOKEN", "canary with spaces")])).unwrap_err();
    assert!(mistakes.to_string().starts_with("GREENROOM_TOKEN: expected a token without spaces"), "{mistakes}");
    assert!(!mistakes.to_string().contains("canary"));
    let settings = RunSettings::new(&run(&[], &[("GREENROOM_TOKEN", "canary")])).unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
}

#[test]
fn a_token_comes_from_a_flag_a_variable_or_the_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let token_file = file(dir.path(), "by-flag", "by-flag\n", 0o600);
    let credentials = dir.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    // The service manager shares credentials by access control lists, which look like group access.
    file(&credentials, "token", "by-credential", 0o440);
    let credentials = credentials.to_str().unwrap();

    let token = |flags: &[(Id, &str)], environment: &[(&str, &str)]| {
        let settings = RunSettings::new(&run(flags, environment)).unwrap();
        settings.token.map(|token| token.expose_secret().to_owned())
    };
    let by_credential = ("CREDENTIALS_DIRECTORY", credentials);
    let by_variable = ("GREENROOM_TOKEN", "by-variable");
    assert_eq!(token(&[], &[by_credential]).unwrap(), "by-credential");
    assert_eq!(token(&[], &[by_credential, by_variable]).unwrap(), "by-variable");
    assert_eq!(token(&[(Id::TokenFile, &token_file)], &[by_credential, by_variable]).unwrap(), "by-flag");
    let named = format!("{credentials}/token");
    assert_eq!(token(&[], &[by_credential, ("GREENROOM_TOKEN_FILE", &named)]).unwrap(), "by-credential");

    let both = run(&[], &[by_variable, ("GREENROOM_TOKEN_FILE", &token_file)]);
    let mistakes = RunSettings::new(&both).unwrap_err().to_string();
    assert_eq!(mistakes, "GREENROOM_TOKEN: expected only one of this and GREENROOM_TOKEN_FILE");
}

#[test]
fn the_service_manager_names_the_directories() {
    let environment = &[("STATE_DIRECTORY", "/var/lib/greenroom:/other"), ("RUNTIME_DIRECTORY", "/run/greenroom")];
    let settings = RunSettings::new(&run(&[], environment)).unwrap();
    assert_eq!(settings.data_dir, Path::new("/var/lib/greenroom"));
    assert_eq!(settings.runtime_dir, Path::new("/run/greenroom"));
    let settings = RunSettings::new(&run(&[(Id::DataDir, "./here")], environment)).unwrap();
    assert_eq!(settings.data_dir, Path::new("/nowhere/here"));
}

#[test]
fn a_runtime_directory_too_long_for_sockets_is_told_before_any_actor_fails() {
    let long = format!("/{}", "x".repeat(80));
    let mistakes = RunSettings::new(&run(&[(Id::DataDir, &long)], &[])).unwrap_err().to_string();
    assert!(mistakes.starts_with("--runtime-dir: /xxx") && mistakes.ends_with("give a shorter one"), "{mistakes}");
    assert!(RunSettings::new(&run(&[(Id::DataDir, &long), (Id::RuntimeDir, "/run/greenroom")], &[])).is_ok());
}

#[test]
fn the_admin_address_can_be_off() {
    assert_eq!(RunSettings::new(&run(&[(Id::Admin, "off")], &[])).unwrap().admin.address, None);
}

#[test]
fn a_limit_that_is_given_counts_on_loopback_too() {
    let gateway = |flags: &[(Id, &str)]| GatewaySettings::new(&values(&[Command::Gateway], flags, &[]));
    let per_minute = |count| Some(Rate { count, per: Duration::from_secs(60) });
    let settings = gateway(&[]).unwrap();
    assert_eq!((settings.rate_limit, settings.rate_limit_on_loopback), (per_minute(10_000), false));
    let settings = gateway(&[(Id::RateLimit, "5/1m")]).unwrap();
    assert_eq!((settings.rate_limit, settings.rate_limit_on_loopback), (per_minute(5), true));
    assert_eq!(gateway(&[(Id::RateLimit, "off")]).unwrap().rate_limit, None);
    let mistakes = gateway(&[(Id::RateLimit, "fast")]).unwrap_err().to_string();
    assert!(mistakes.contains("--rate-limit=\"fast\": expected a number of requests in a time"), "{mistakes}");
}

#[test]
fn allowed_hosts_are_names_without_anything_else() {
    let gateway = |hosts: &str| GatewaySettings::new(&values(&[Command::Gateway], &[(Id::AllowedHosts, hosts)], &[]));
    assert_eq!(gateway("A.test, b.test").unwrap().allowed_hosts, ["a.test", "b.test"]);
    assert_eq!(gateway("*").unwrap().allowed_hosts, ["*"]);
    for wrong in ["", "a,,b", "http://a.test", "a@b", "a b"] {
        assert!(gateway(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_gateway_beyond_loopback_wants_a_token_or_insistence() {
    let dir = tempfile::tempdir().unwrap();
    let token = file(dir.path(), "token", "secret", 0o600);
    let gateway = |flags: &[(Id, &str)]| GatewaySettings::new(&values(&[Command::Gateway], flags, &[]));
    let mistakes = gateway(&[(Id::Listen, "0.0.0.0:6420")]).unwrap_err().to_string();
    assert!(mistakes.contains("--listen=\"0.0.0.0:6420\": beyond loopback anyone could use the gateway"), "{mistakes}");
    assert!(mistakes.contains("--admin-token-file") && mistakes.contains("--insecure"), "{mistakes}");
    assert!(gateway(&[(Id::Listen, "0.0.0.0:6420"), (Id::Insecure, "true")]).is_ok());
    assert!(gateway(&[(Id::Listen, "[::1]:6420")]).is_ok());
    let settings = gateway(&[(Id::Listen, "[::]:6420"), (Id::AdminTokenFile, &token)]).unwrap();
    assert_eq!(settings.admin_token.unwrap().expose_secret(), "secret");
    // An unreadable token file is one mistake, not two.
    let mistakes = gateway(&[(Id::Listen, "0.0.0.0:1"), (Id::AdminTokenFile, "/missing")]).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes}");
}

#[test]
fn dev_joins_its_runner_to_its_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let token = file(dir.path(), "token", "secret", 0o600);
    let flags = &[(Id::Listen, "127.0.0.1:7001"), (Id::AdminTokenFile, token.as_str())];
    let settings =
        DevSettings::new(&values(&[Command::Dev], flags, &[("GREENROOM_ENDPOINT", "https://else")])).unwrap();
    assert_eq!(settings.run.endpoint.to_string(), "http://127.0.0.1:7001");
    assert_eq!(settings.run.token.unwrap().expose_secret(), "secret");
}

#[test]
fn a_mistake_that_two_commands_share_is_told_once() {
    let mistakes = check(&values(&Command::ALL, &[(Id::Log, "inof")], &[])).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes}");
}

#[test]
fn a_short_form_actor_is_run_by_a_shell() {
    let settings = RunSettings::new(&run(&[(Id::Actor, "counter=node 'my counter.mjs'")], &[])).unwrap();
    assert_eq!(settings.actors[0].name, "counter");
    assert_eq!(settings.actors[0].command, ["sh", "-c", "node 'my counter.mjs'"]);
    assert_eq!(settings.actors[0].cwd, Path::new("/nowhere"));
}

#[test]
fn two_actors_of_one_name_are_a_mistake() {
    let mistakes = RunSettings::new(&run(&[(Id::Actor, "a=true"), (Id::Actor, "a=false")], &[])).unwrap_err();
    assert_eq!(mistakes.to_string(), "--actor=\"a=false\": there is another actor of this name");
}

#[test]
fn a_variable_that_is_not_named_after_us_is_not_refused() {
    assert!(RunSettings::new(&run(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")])).is_ok());
    let said = RunSettings::new(&run(&[(Id::OtlpEndpoint, "http://collector:4317")], &[]));
    if cfg!(feature = "otlp") {
        let traces = said.unwrap().log.traces.unwrap();
        assert_eq!((traces.endpoint.port, &*traces.service_name), (4317, "greenroom"));
    } else {
        assert!(said.unwrap_err().to_string().contains("--features otlp"));
    }
}

#[test]
fn log_filters_take_levels_and_targets() {
    for filter in ["info", "INFO", "off", "info,greenroom::session=debug", "tokio=warn,hyper", "[span{id=1}]=trace"] {
        assert!(LogSettings::filter_of(filter).is_ok(), "{filter}");
    }
    for filter in ["", " ", "debgu", "info,wran", "greenroom=loud", "a=b=c", "nonsense", "all,most"] {
        assert!(LogSettings::filter_of(filter).is_err(), "{filter}");
    }
}

fn run(flags: &[(Id, &str)], variables: &[(&str, &str)]) -> Values {
    values(&[Command::Run], flags, variables)
}

fn values(commands: &[Command], flags: &[(Id, &str)], variables: &[(&str, &str)]) -> Values {
    let mut given: BTreeMap<Id, Vec<String>> = BTreeMap::new();
    for (id, text) in flags {
        given.entry(*id).or_default().push((*text).to_owned());
    }
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
    Values::collect(commands, given, Environment { variables, current_dir: PathBuf::from("/nowhere") })
}

fn file(directory: &Path, name: &str, content: &str, mode: u32) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}
