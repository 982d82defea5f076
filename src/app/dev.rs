//! `greenroom dev`: a gateway and a runner in one process, to try things out.

use std::fmt::Write;
use std::time::Duration;

use tracing::error;

use crate::app::actors::Hosts;
use crate::app::reload::Reloaded;
use crate::app::signals::Signals;
use crate::app::{Exit, actors, demo, gateway, run, say};
use crate::config::{DevSettings, Endpoint, RunSettings, Values};
use crate::gateway::{CreateActor, GatewayError, GatewayHandle};
use crate::store::CrashPolicy;
use crate::telemetry::fields;

/// An actor for the user to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Started {
    name: String,
    id: String,
}

/// Runs until it is told to stop: the gateway first, then the runner, then an actor of each kind.
pub(super) async fn run(settings: DevSettings, values: Values, mut signals: Signals) -> Exit {
    let DevSettings { gateway: gateway_settings, run: mut settings } = settings;
    let mut gateway = match gateway::start(&gateway_settings).await {
        Ok(gateway) => gateway,
        Err(exit) => return exit,
    };
    settings.endpoint = Endpoint::of_listener(gateway.local_addr());
    let hosts =
        if settings.actors.is_empty() { Ok(Hosts::in_process(demo::hosts())) } else { actors::hosts(&settings).await };
    let started = match hosts {
        Ok(hosts) => run::serve(&settings, &hosts).await.map(|started| (started, hosts)),
        Err(exit) => Err(exit),
    };
    let (started, hosts) = match started {
        Ok(started) => started,
        Err(exit) => {
            // The first failure is the one that counts.
            let _ = gateway::stop(gateway, None, &mut signals).await;
            return exit;
        }
    };
    let handle = gateway.handle().clone();
    let names: Vec<String> = hosts.by_name.iter().map(|(name, _)| name.clone()).collect();
    let runner = started.runner.clone();
    let greet = async {
        if runner.connected().await {
            let actors = make(&handle, &settings.runner_name, &names).await;
            say(welcome(&settings, gateway_settings.admin_token.is_some(), &actors));
        }
        // The greeting is no reason to stop.
        std::future::pending().await
    };
    let reloaded = Reloaded::new(settings.clone(), hosts, move || Ok(DevSettings::new(&values)?.run));
    let (exit, failure) = tokio::select! {
        exit = started.until_stopped(reloaded, &mut signals) => (exit, None),
        failure = gateway.failed() => (Exit::Internal, Some(failure)),
        () = greet => (Exit::Internal, None),
    };
    if failure.is_some() {
        runner.stop_now().await;
        let _ = runner.wait().await;
    }
    match (exit, gateway::stop(gateway, failure, &mut signals).await) {
        (Exit::Clean, stopped) => stopped,
        (exit, _) => exit,
    }
}

/// Makes an actor of each name, or finds the one of an earlier run. The pool may take a moment to be known after the
/// runner has connected.
async fn make(gateway: &GatewayHandle, pool: &str, names: &[String]) -> Vec<Started> {
    let mut started = Vec::new();
    let mut again = tokio::time::interval(Duration::from_millis(50));
    for name in names {
        let actor = CreateActor {
            namespace: "default".into(),
            name: name.as_str().into(),
            key: Some(KEY.into()),
            pool: pool.into(),
            crash_policy: CrashPolicy::Sleep,
            input: None,
        };
        let mut tries = 0;
        let made = loop {
            again.tick().await;
            tries += 1;
            match gateway.get_or_create_actor(actor.clone()).await {
                Err(GatewayError::NoRunnerConfig { .. }) if tries < TRIES => {}
                made => break made,
            }
        };
        match made {
            Ok((record, _)) => started.push(Started { name: name.clone(), id: record.id.to_string() }),
            Err(error) => error!(%error, { fields::ACTOR_NAME } = name, "the actor could not be made"),
        }
    }
    started
}

/// What `dev` prints when it is ready: lines that can be pasted into a shell.
fn welcome(settings: &RunSettings, guarded: bool, actors: &[Started]) -> String {
    let endpoint = &settings.endpoint;
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
            "runner_name_selector": settings.runner_name,
            "crash_policy": "sleep",
        });
        let body = body.to_string().replace('\'', "'\\''");
        let token = if guarded { " -H 'authorization: Bearer TOKEN'" } else { "" };
        let _ = write!(
            text,
            "\nMake another, with a key of yours:\n  curl -X PUT '{endpoint}/actors?namespace=default'{token} \
             -H 'content-type: application/json' -d '{body}'\n",
        );
    }
    text.push_str("\nStop with Ctrl-C.");
    text
}

/// The key of the actors that `dev` makes: a second run finds them again.
const KEY: &str = "dev";

/// About five seconds.
const TRIES: u32 = 100;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Command, Environment, Values};

    #[test]
    fn the_welcome_can_be_pasted_into_a_shell() {
        let environment = Environment { variables: BTreeMap::new(), current_dir: "/".into() };
        let values = Values::collect(&[Command::Dev], BTreeMap::new(), environment);
        let mut settings = DevSettings::new(&values).unwrap().run;
        settings.runner_name = "it's".to_owned();
        let counter = Started { name: "counter".to_owned(), id: "abc".to_owned() };
        let text = welcome(&settings, true, &[counter]);
        assert!(text.contains("\n    curl http://127.0.0.1:6420/gateway/abc/\n"), "{text}");
        assert!(text.contains("ws://127.0.0.1:6420/gateway/abc/ws"), "{text}");
        assert!(text.contains("curl -X PUT 'http://127.0.0.1:6420/actors?namespace=default' -H 'auth"), "{text}");
        assert!(text.contains(r#""runner_name_selector":"it'\''s""#), "{text}");
    }
}
