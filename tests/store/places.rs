//! Records and the questions about them, on both stores.

use std::sync::Arc;

use greenroom::store::{
    ActorError, ActorName, ActorRecord, Change, CrashPolicy, Found, MemoryStore, NamespaceRecord, Phase, Query,
    RunnerConfigRecord, RunnerRecord, SqliteStore, Store,
};

use super::records::{actor, runner};

macro_rules! on_both_stores {
    ($($case:ident)*) => {
        mod in_memory {
            use super::*;
            $(#[test] fn $case() { super::$case(&mut MemoryStore::new()) })*
        }
        mod in_sqlite {
            use super::*;
            $(#[test] fn $case() {
                let dir = tempfile::tempdir().unwrap();
                super::$case(&mut SqliteStore::open(dir.path()).unwrap())
            })*
        }
    };
}

on_both_stores! {
    an_actor_comes_back_as_it_was_stored
    an_actor_replaces_the_one_with_its_id
    a_key_belongs_to_one_living_actor_of_its_name
    actors_are_listed_newest_first_and_page_by_page
    awake_actors_are_neither_asleep_nor_destroyed
    alarms_count_only_for_sleeping_actors
    at_most_a_thousand_alarms_are_due_at_once
    runners_are_listed_newest_first_and_without_stopped_ones
    namespaces_have_unique_names
    actor_names_are_listed_in_name_order_after_the_given_one
    pool_settings_are_replaced_and_removed
    rolled_back_records_are_as_before
}

fn an_actor_comes_back_as_it_was_stored(store: &mut dyn Store) {
    let phases = [
        Phase::Pending,
        Phase::Starting,
        Phase::Running,
        Phase::StoppingToSleep,
        Phase::StoppingToDestroy,
        Phase::StoppingToMove,
        Phase::Backoff,
        Phase::Sleeping,
        Phase::Destroyed,
    ];
    let errors = [
        None,
        Some(ActorError::NoCapacity),
        Some(ActorError::Crashed { message: None }),
        Some(ActorError::Crashed { message: Some("exit code 1\nlast words: \u{1f3ad}".into()) }),
        Some(ActorError::RunnerNoResponse { runner_id: "r1".into() }),
        Some(ActorError::RunnerConnectionLost { runner_id: "r2".into() }),
        Some(ActorError::RunnerDrainingTimeout { runner_id: "r3".into() }),
    ];
    let policies = [CrashPolicy::Restart, CrashPolicy::Sleep, CrashPolicy::Destroy];
    let mut records = vec![bare("bare")];
    records.extend(phases.map(|phase| ActorRecord { phase, ..actor(&format!("{phase:?}")) }));
    records
        .extend(errors.into_iter().map(|error| ActorRecord { error: error.clone(), ..actor(&format!("{error:?}")) }));
    records.extend(policies.map(|crash_policy| ActorRecord { crash_policy, ..actor(&format!("{crash_policy:?}")) }));
    records.push(ActorRecord {
        generation: u32::MAX,
        last_event: Some(i64::MIN),
        create_ts: i64::MAX,
        ..actor("high")
    });
    records.push(ActorRecord { key: Some("".into()), name: "a\0b".into(), input: Some("".into()), ..actor("odd") });
    for record in &records {
        apply(store, &[Change::Actor(Box::new(record.clone()))]);
    }
    for record in records {
        let found = store.read(&Query::Actor(record.id.clone())).unwrap();
        assert_eq!(found, Found::Actor(Some(Box::new(record))));
    }
    assert_eq!(store.read(&Query::Actor("nobody".into())), Ok(Found::Actor(None)));
}

fn an_actor_replaces_the_one_with_its_id(store: &mut dyn Store) {
    let full = ActorRecord { key: Some("k".into()), error: Some(ActorError::NoCapacity), ..actor("a") };
    for record in [full.clone(), bare("a"), full] {
        apply(store, &[Change::Actor(Box::new(record.clone()))]);
        assert_eq!(store.read(&Query::Actor("a".into())), Ok(Found::Actor(Some(Box::new(record)))));
    }
}

fn a_key_belongs_to_one_living_actor_of_its_name(store: &mut dyn Store) {
    let holder = |store: &mut dyn Store, name: &str| {
        let query = Query::ActorByKey { namespace_id: "ns".into(), name: name.into(), key: "k".into() };
        match store.read(&query).unwrap() {
            Found::Actor(found) => found.map(|actor| actor.id.to_string()),
            found => panic!("not an actor: {found:?}"),
        }
    };
    let keyed = |id: &str| ActorRecord { key: Some("k".into()), ..actor(id) };
    apply(store, &[Change::Actor(Box::new(keyed("first")))]);
    let elsewhere = ActorRecord { name: "other".into(), ..keyed("elsewhere") };
    let without_key = [actor("x"), actor("y")].map(|actor| Change::Actor(Box::new(actor)));
    apply(store, &[Change::Actor(Box::new(elsewhere))]);
    apply(store, &without_key);

    store.begin().unwrap();
    assert!(store.apply(&Change::Actor(Box::new(keyed("second")))).is_err());
    store.rollback();
    assert_eq!(holder(store, "counter").as_deref(), Some("first"));
    assert_eq!(holder(store, "other").as_deref(), Some("elsewhere"));
    assert_eq!(holder(store, "third"), None);

    apply(store, &[Change::Actor(Box::new(ActorRecord { phase: Phase::Destroyed, ..keyed("first") }))]);
    assert_eq!(holder(store, "counter"), None);
    apply(store, &[Change::Actor(Box::new(keyed("second")))]);
    assert_eq!(holder(store, "counter").as_deref(), Some("second"));
}

fn actors_are_listed_newest_first_and_page_by_page(store: &mut dyn Store) {
    let made = |id: &str, create_ts, key: Option<&str>, phase| {
        Change::Actor(Box::new(ActorRecord { create_ts, key: key.map(Arc::from), phase, ..actor(id) }))
    };
    apply(
        store,
        &[
            made("b", 20, Some("k"), Phase::Destroyed),
            made("a", 10, None, Phase::Running),
            made("d", 30, Some("k"), Phase::Sleeping),
            made("c", 20, Some("l"), Phase::Running),
            Change::Actor(Box::new(ActorRecord { namespace_id: "elsewhere".into(), ..actor("x") })),
            Change::Actor(Box::new(ActorRecord { name: "other".into(), ..actor("y") })),
        ],
    );
    // A change of state does not make an actor newer.
    apply(store, &[made("a", 10, None, Phase::Sleeping)]);
    let mut list = |key: Option<&str>, include_destroyed, created_before, limit| {
        let query = Query::Actors {
            namespace_id: "ns".into(),
            name: "counter".into(),
            key: key.map(Arc::from),
            include_destroyed,
            created_before,
            limit,
        };
        ids(store.read(&query).unwrap())
    };
    assert_eq!(list(None, true, None, 100), ["d", "c", "b", "a"]);
    assert_eq!(list(None, false, None, 100), ["d", "c", "a"]);
    assert_eq!(list(None, false, None, 2), ["d", "c"]);
    assert_eq!(list(None, false, Some(20), 2), ["a"]);
    assert_eq!(list(None, true, Some(30), usize::MAX), ["c", "b", "a"]);
    assert_eq!(list(Some("k"), true, None, 100), ["d", "b"]);
    assert_eq!(list(Some("k"), false, None, 100), ["d"]);
    assert_eq!(list(Some("nobody's"), true, None, 100), [""; 0]);
    assert_eq!(list(None, true, None, 0), [""; 0]);
}

fn awake_actors_are_neither_asleep_nor_destroyed(store: &mut dyn Store) {
    for (create_ts, phase) in [Phase::Pending, Phase::Sleeping, Phase::Backoff, Phase::Destroyed, Phase::StoppingToMove]
        .into_iter()
        .enumerate()
    {
        let create_ts = i64::try_from(create_ts).unwrap();
        apply(store, &[Change::Actor(Box::new(ActorRecord { phase, create_ts, ..actor(&format!("{phase:?}")) }))]);
    }
    assert_eq!(ids(store.read(&Query::AwakeActors).unwrap()), ["StoppingToMove", "Backoff", "Pending"]);
}

fn alarms_count_only_for_sleeping_actors(store: &mut dyn Store) {
    let made = |id: &str, phase, alarm_at| Change::Actor(Box::new(ActorRecord { phase, alarm_at, ..actor(id) }));
    assert_eq!(store.read(&Query::NextAlarm), Ok(Found::Alarm(None)));
    apply(
        store,
        &[
            made("awake", Phase::Running, Some(1)),
            made("gone", Phase::Destroyed, Some(2)),
            made("none", Phase::Sleeping, None),
            made("late", Phase::Sleeping, Some(30)),
            made("soon", Phase::Sleeping, Some(10)),
            made("also soon", Phase::Sleeping, Some(10)),
        ],
    );
    assert_eq!(store.read(&Query::NextAlarm), Ok(Found::Alarm(Some(10))));
    assert_eq!(ids(store.read(&Query::DueAlarms(9)).unwrap()), [""; 0]);
    assert_eq!(ids(store.read(&Query::DueAlarms(10)).unwrap()), ["soon", "also soon"]);
    assert_eq!(ids(store.read(&Query::DueAlarms(30)).unwrap()), ["soon", "also soon", "late"]);
    apply(store, &[made("soon", Phase::Starting, Some(10)), made("also soon", Phase::Sleeping, None)]);
    assert_eq!(store.read(&Query::NextAlarm), Ok(Found::Alarm(Some(30))));
}

fn at_most_a_thousand_alarms_are_due_at_once(store: &mut dyn Store) {
    let sleeping: Vec<_> = (0..1001)
        .map(|n| ActorRecord { phase: Phase::Sleeping, alarm_at: Some(2000 - n), ..actor(&n.to_string()) })
        .map(|actor| Change::Actor(Box::new(actor)))
        .collect();
    apply(store, &sleeping);
    let due = ids(store.read(&Query::DueAlarms(5000)).unwrap());
    assert_eq!((due.len(), due[0].as_str(), due[999].as_str()), (1000, "1000", "1"));
}

fn runners_are_listed_newest_first_and_without_stopped_ones(store: &mut dyn Store) {
    let made = |id: &str, create_ts, pool: &str, stop_ts| {
        Change::Runner(RunnerRecord { create_ts, pool: pool.into(), stop_ts, ..runner(id) })
    };
    apply(
        store,
        &[
            made("b", 20, "p", Some(50)),
            made("a", 10, "p", None),
            made("d", 30, "q", None),
            made("c", 20, "p", None),
            Change::Runner(RunnerRecord { namespace_id: "elsewhere".into(), create_ts: 1, ..runner("x") }),
        ],
    );
    assert_eq!(runner_ids(store.read(&Query::Runners).unwrap()), ["d", "c", "a", "x"]);
    let mut list = |pool: Option<&str>, include_stopped, created_before, limit| {
        let query = Query::RunnersOf {
            namespace_id: "ns".into(),
            pool: pool.map(Arc::from),
            include_stopped,
            limit,
            created_before,
        };
        runner_ids(store.read(&query).unwrap())
    };
    assert_eq!(list(None, false, None, 100), ["d", "c", "a"]);
    assert_eq!(list(None, true, None, 3), ["d", "c", "b"]);
    assert_eq!(list(Some("p"), true, Some(20), 100), ["a"]);
    assert_eq!(list(Some("p"), false, None, 1), ["c"]);

    let changed =
        RunnerRecord { version: u32::MAX, total_slots: 1, drain_ts: Some(9), stop_ts: Some(10), ..runner("a") };
    apply(store, &[Change::Runner(changed.clone())]);
    let Found::Runners(found) = store
        .read(&Query::RunnersOf {
            namespace_id: "ns".into(),
            pool: Some(changed.pool.clone()),
            include_stopped: true,
            limit: 100,
            created_before: None,
        })
        .unwrap()
    else {
        panic!("not runners")
    };
    assert_eq!(found, [changed]);
}

fn namespaces_have_unique_names(store: &mut dyn Store) {
    let made = |id: &str, name: &str, create_ts| NamespaceRecord {
        id: id.into(),
        name: name.into(),
        display_name: format!("Display {name}"),
        create_ts,
    };
    apply(store, &[Change::Namespace(made("1", "one", 5)), Change::Namespace(made("2", "two", 6))]);
    store.begin().unwrap();
    assert!(store.apply(&Change::Namespace(made("3", "two", 7))).is_err());
    store.rollback();
    apply(store, &[Change::Namespace(made("1", "uno", 5))]);
    let found = store.read(&Query::Namespaces).unwrap();
    assert_eq!(found, Found::Namespaces(vec![made("2", "two", 6), made("1", "uno", 5)]));
}

fn actor_names_are_listed_in_name_order_after_the_given_one(store: &mut dyn Store) {
    let made = |namespace: &str, name: &str, metadata: &str| ActorName {
        namespace_id: namespace.into(),
        name: name.into(),
        metadata: metadata.into(),
    };
    for name in ["b", "c", "a", "\u{e4}"] {
        apply(store, &[Change::ActorName(made("ns", name, "{}"))]);
    }
    apply(
        store,
        &[Change::ActorName(made("elsewhere", "x", "{}")), Change::ActorName(made("ns", "b", r#"{"new":1}"#))],
    );
    let mut list = |after: Option<&str>, limit| {
        let after = after.map(Arc::from);
        match store.read(&Query::ActorNames { namespace_id: "ns".into(), after, limit }).unwrap() {
            Found::ActorNames(names) => names,
            found => panic!("not names: {found:?}"),
        }
    };
    let names = |names: Vec<ActorName>| names.into_iter().map(|name| name.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(list(None, 100)), ["a", "b", "c", "\u{e4}"]);
    assert_eq!(names(list(None, 2)), ["a", "b"]);
    assert_eq!(names(list(Some("b"), 1)), ["c"]);
    assert_eq!(list(Some("a"), 1), [made("ns", "b", r#"{"new":1}"#)]);
}

fn pool_settings_are_replaced_and_removed(store: &mut dyn Store) {
    let made = |pool: &str, drain, metadata: Option<&str>| RunnerConfigRecord {
        namespace_id: "ns".into(),
        pool: pool.into(),
        drain_on_version_upgrade: drain,
        metadata: metadata.map(String::from),
    };
    let configs = |store: &mut dyn Store| store.read(&Query::RunnerConfigs { namespace_id: "ns".into() }).unwrap();
    for config in [made("q", false, None), made("p", false, None), made("p", true, Some("{}"))] {
        apply(store, &[Change::RunnerConfig(config)]);
    }
    assert_eq!(configs(store), Found::RunnerConfigs(vec![made("p", true, Some("{}")), made("q", false, None)]));
    let drop = |pool: &str| Change::DropRunnerConfig("ns".into(), pool.into());
    apply(store, &[drop("p"), drop("never was")]);
    assert_eq!(configs(store), Found::RunnerConfigs(vec![made("q", false, None)]));
}

fn rolled_back_records_are_as_before(store: &mut dyn Store) {
    apply(store, &[Change::Actor(Box::new(actor("a"))), Change::Runner(runner("r"))]);
    store.begin().unwrap();
    for change in [
        Change::Actor(Box::new(bare("a"))),
        Change::Actor(Box::new(actor("b"))),
        Change::Actor(Box::new(ActorRecord { phase: Phase::Destroyed, ..actor("a") })),
        Change::Runner(RunnerRecord { stop_ts: Some(1), ..runner("r") }),
    ] {
        store.apply(&change).unwrap();
    }
    assert_eq!(ids(store.read(&Query::AwakeActors).unwrap()), ["b"]);
    store.rollback();
    assert_eq!(store.read(&Query::Actor("a".into())), Ok(Found::Actor(Some(Box::new(actor("a"))))));
    assert_eq!(store.read(&Query::Actor("b".into())), Ok(Found::Actor(None)));
    assert_eq!(store.read(&Query::Runners), Ok(Found::Runners(vec![runner("r")])));
}

fn apply(store: &mut dyn Store, changes: &[Change]) {
    store.begin().unwrap();
    for change in changes {
        store.apply(change).unwrap();
    }
    store.commit().unwrap();
}

/// An actor with nothing filled in that can be left out.
fn bare(id: &str) -> ActorRecord {
    ActorRecord {
        key: None,
        input: None,
        runner_id: None,
        command_acknowledged: false,
        last_event: None,
        wake_after_stop: false,
        start_ts: None,
        pending_allocation_ts: None,
        connectable_ts: None,
        ..actor(id)
    }
}

fn ids(found: Found) -> Vec<String> {
    match found {
        Found::Actors(actors) => actors.into_iter().map(|actor| actor.id.to_string()).collect(),
        found => panic!("not actors: {found:?}"),
    }
}

fn runner_ids(found: Found) -> Vec<String> {
    match found {
        Found::Runners(runners) => runners.into_iter().map(|runner| runner.id.to_string()).collect(),
        found => panic!("not runners: {found:?}"),
    }
}
