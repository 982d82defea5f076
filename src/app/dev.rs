//! `greenroom dev`: a gateway and a runner in one process, to try things out.

use std::fmt::Write;
use std::net::SocketAddr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::error;

use crate::app::signals::Signals;
use crate::app::{Exit, actors, demo, run};
use crate::config::{DevSettings, Endpoint};

/// An actor that `dev` made at its start, for the user to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Started {
    /// Its name.
    pub name: String,
    /// Its id at the gateway.
    pub id: String,
}

/// Runs until it is told to stop.
pub(super) async fn run(settings: DevSettings, _signals: Signals) -> Exit {
    run::warn_of(&settings.run);
    let _hosts = if settings.run.actors.is_empty() { demo::hosts() } else { actors::hosts(&settings.run) };
    let _ = welcome(settings.gateway.listen, &settings.run.namespace, &settings.run.runner_name, &[]);
    error!("dev is not wired yet");
    Exit::Internal
}

/// What `dev` prints when it is ready: lines that can be pasted into a shell.
pub(super) fn welcome(listen: SocketAddr, namespace: &str, runner_name: &str, actors: &[Started]) -> String {
    let endpoint = Endpoint::of_listener(listen);
    let authority = endpoint.authority();
    let mut text = format!("greenroom is ready at {endpoint}\n");
    // Writing to a string cannot fail, here and below.
    for Started { name, id } in actors {
        let _ = write!(text, "\n  {name}\n    curl {endpoint}/gateway/{id}/\n    ws://{authority}/gateway/{id}/ws\n");
    }
    if let Some(Started { name, .. }) = actors.first() {
        let body = serde_json::json!({
            "name": name,
            "key": "mine",
            "runner_name_selector": runner_name,
            "crash_policy": "sleep",
        });
        let body = body.to_string().replace('\'', "'\\''");
        let namespace = utf8_percent_encode(namespace, NON_ALPHANUMERIC);
        let _ = write!(
            text,
            "\nAnother one, by a key of yours:\n  curl -X PUT '{endpoint}/actors?namespace={namespace}' \
             -H 'content-type: application/json' -d '{body}'\n",
        );
    }
    text.push_str("\nStop with Ctrl-C.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_can_be_pasted_into_a_shell() {
        let counter = Started { name: "counter".to_owned(), id: "abc".to_owned() };
        let text = welcome("0.0.0.0:6420".parse().unwrap(), "default", "pool", &[counter]);
        assert!(text.contains("\n    curl http://127.0.0.1:6420/gateway/abc/\n"), "{text}");
        assert!(text.contains("ws://127.0.0.1:6420/gateway/abc/ws"), "{text}");
        assert!(text.contains("curl -X PUT 'http://127.0.0.1:6420/actors?namespace=default'"), "{text}");
        assert!(text.contains(r#""runner_name_selector":"pool""#), "{text}");
    }
}
