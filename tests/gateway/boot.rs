//! What a gateway that starts finds in its store, for every test that drives a core by hand.

use greenroom::gateway::core::Boot;
use greenroom::store::{Found, MemoryStore, Query, Store};

pub fn boot(store: &mut MemoryStore) -> Boot {
    let mut boot = Boot::default();
    let mut read = |query| store.read(&query).expect("memory can be read");
    if let Found::Namespaces(namespaces) = read(Query::Namespaces) {
        boot.namespaces = namespaces;
    }
    for namespace in &boot.namespaces {
        let namespace_id = namespace.id.clone();
        if let Found::RunnerConfigs(configs) = read(Query::RunnerConfigs { namespace_id: namespace_id.clone() }) {
            boot.runner_configs.extend(configs);
        }
        if let Found::ActorNames(names) = read(Query::ActorNames { namespace_id, after: None, limit: usize::MAX }) {
            boot.actor_names.extend(names);
        }
    }
    if let Found::Runners(runners) = read(Query::Runners) {
        boot.runners = runners;
    }
    if let Found::Actors(actors) = read(Query::AwakeActors) {
        boot.actors = actors;
    }
    if let Found::Alarm(alarm) = read(Query::NextAlarm) {
        boot.next_alarm = alarm;
    }
    boot
}
