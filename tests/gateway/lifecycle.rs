//! Actors from their creation to their end.

use std::time::Duration;

use greenroom::gateway::core::{Answer, CallRequest, Features};
use greenroom::gateway::{CreateActor, GatewayError, TunnelEvent};
use greenroom::protocol::{Checkpoint, Command, Event, ToServer, Version};
use greenroom::store::{ActorError, CrashPolicy, Phase};

use crate::world::{MILLI, OK, Peer, SECOND, World, actor, failed, init, response};

const POLICIES: [CrashPolicy; 3] = [CrashPolicy::Restart, CrashPolicy::Sleep, CrashPolicy::Destroy];

#[test]
fn an_actor_is_created_runs_sleeps_wakes_and_is_destroyed() {
    let mut world = World::new();
    let runner = world.connect("key");
    let created = world.create_with(actor()).expect("created");
    assert_eq!((created.phase, created.generation), (Phase::Starting, 0));

    let commands = world.commands(&runner);
    let life = commands[0].checkpoint.clone();
    assert_eq!(life, Checkpoint { actor_id: (*created.id).into(), generation: 0, index: 0 });
    let Command::Start { config, hibernating } = &commands[0].command else { panic!("{commands:?}") };
    assert_eq!((&*config.name, config.input.as_deref()), ("counter", Some(&b"input"[..])));
    assert_eq!((config.create_ts, hibernating.len()), (world.now.wall_ms, 0));
    assert_eq!(world.record(&created.id).connectable_ts, None);

    world.pass(MILLI);
    world.events(&runner, &life, 0, [Event::Running]);
    let record = world.record(&created.id);
    assert_eq!((record.phase, record.start_ts), (Phase::Running, Some(world.now.wall_ms)));
    assert_eq!(record.connectable_ts, record.start_ts);

    let request = world.open(&created.id);
    assert_eq!(world.opened, [request]);
    world.reply(&runner, request, response());
    assert!(matches!(world.got(request)[..], [TunnelEvent::Response { status: 200, more: false, .. }]));

    world.take_sent(runner.connection);
    world.events(&runner, &life, 1, [Event::SleepIntent]);
    assert_eq!(world.told_to_stop(&runner).index, 1);
    assert_eq!(world.record(&created.id).sleep_ts, Some(world.now.wall_ms));
    world.events(&runner, &life, 2, [OK]);
    let record = world.record(&created.id);
    assert_eq!((record.phase, record.runner_id, record.connectable_ts), (Phase::Sleeping, None, None));
    assert_eq!(world.core.health().awake_actors, 0, "sleeping actors cost no memory");

    let start_ts = record.start_ts;
    world.take_sent(runner.connection);
    let request = world.open(&created.id);
    let life = world.started(&runner);
    assert_eq!((life.generation, life.index), (1, 0));
    assert_eq!(world.record(&created.id).sleep_ts, None);
    assert!(!world.opened.contains(&request), "it does not serve yet");
    world.events(&runner, &life, 0, [Event::Running]);
    assert!(world.opened.contains(&request));
    assert_eq!(world.record(&created.id).start_ts, start_ts, "that it first ran does not change");

    let call = world.destroy(&created.id);
    assert_eq!(world.told_to_stop(&runner).index, 1);
    assert!(!world.answers.contains_key(&call));
    world.events(&runner, &life, 1, [OK]);
    assert_eq!(world.answer(call), Ok(Answer::Done));
    let record = world.record(&created.id);
    assert_eq!(record.phase, Phase::Destroyed);
    assert!(record.destroy_ts.is_some() && record.connectable_ts.is_some());
    assert_eq!(world.got(request), [TunnelEvent::Failed(GatewayError::ActorDestroyed)]);
    let late = world.open(&created.id);
    assert_eq!(world.refused[&late], GatewayError::ActorNotFound);
    let again = world.destroy(&created.id);
    assert_eq!(world.answer(again), Ok(Answer::Done));
}

#[test]
fn what_becomes_of_a_stopped_actor_is_up_to_its_policy_and_the_reason() {
    use Phase::{Destroyed, Sleeping, Starting};
    type End = fn(&mut World, &Peer, &Checkpoint);
    let table: [(&str, End, [Phase; 3]); 8] = [
        ("ok", |w, p, l| w.events(p, l, 1, [OK]), [Destroyed; 3]),
        ("stop intent, ok", |w, p, l| w.events(p, l, 1, [Event::StopIntent, OK]), [Destroyed; 3]),
        ("error", |w, p, l| w.events(p, l, 1, [failed("why")]), [Starting, Sleeping, Destroyed]),
        ("sleep intent, ok", |w, p, l| w.events(p, l, 1, [Event::SleepIntent, OK]), [Sleeping; 3]),
        ("sleep intent, error", |w, p, l| w.events(p, l, 1, [Event::SleepIntent, failed("why")]), [Sleeping; 3]),
        (
            "drain, ok",
            |w, p, l| {
                w.say(p, ToServer::Stopping);
                w.events(p, l, 1, [OK]);
            },
            [Starting, Sleeping, Destroyed],
        ),
        (
            "drain, error",
            |w, p, l| {
                w.say(p, ToServer::Stopping);
                w.events(p, l, 1, [failed("why")]);
            },
            [Starting, Sleeping, Destroyed],
        ),
        (
            "lost",
            |w, p, _| {
                w.disconnect(p);
                w.pass(15 * SECOND);
            },
            [Starting, Sleeping, Destroyed],
        ),
    ];
    for (name, end, phases) in table {
        for (policy, phase) in POLICIES.into_iter().zip(phases) {
            let mut world = World::new();
            let runner = world.connect("key");
            let life = world.running(&runner, policy);
            // Where it goes if it moves.
            let other = world.connect("other");
            let lives = [&other];
            world.live(&lives, SECOND);
            if name == "lost" {
                world.disconnect(&runner);
                world.live(&lives, 15 * SECOND);
            } else {
                end(&mut world, &runner, &life);
            }
            let record = world.record(&life.actor_id);
            assert_eq!(record.phase, phase, "{name} {policy:?}");
            let generation = u32::from(phase == Starting);
            assert_eq!(record.generation, generation, "{name} {policy:?}");
            let error = match (name, phase) {
                ("error", Starting | Sleeping | Destroyed) => {
                    Some(ActorError::Crashed { message: Some("why".to_owned()) })
                }
                ("lost", _) => Some(ActorError::RunnerConnectionLost { runner_id: (*runner.runner_id).into() }),
                _ => None,
            };
            assert_eq!(record.error, error, "{name} {policy:?}");
        }
    }
}

#[test]
fn restarts_come_at_once_and_then_ever_later_until_it_ran_well() {
    let mut world = World::new();
    let runner = world.connect("key");
    let mut life = world.running(&runner, CrashPolicy::Restart);
    world.events(&runner, &life, 1, [failed("first")]);
    life = world.started(&runner);
    for seconds in [2, 4, 8] {
        world.events(&runner, &life, 0, [failed("again")]);
        let record = world.record(&life.actor_id);
        assert_eq!(record.phase, Phase::Backoff);
        let delay = record.reschedule_ts.expect("set") - world.now.wall_ms;
        assert!((seconds * 1_000..seconds * 1_000 + 500).contains(&delay), "{delay}");
        world.live(&[&runner], Duration::from_millis(u64::try_from(delay).expect("positive") - 1));
        assert!(world.commands(&runner).is_empty());
        world.pass(MILLI);
        let next = world.started(&runner);
        assert_eq!(next.generation, life.generation + 1);
        life = next;
    }
    world.events(&runner, &life, 0, [Event::Running]);
    world.live(&[&runner], 600 * SECOND);
    world.commands(&runner);
    world.events(&runner, &life, 1, [failed("after ten minutes")]);
    assert_eq!(world.started(&runner).generation, life.generation + 1, "at once");
}

#[test]
fn a_clock_that_is_set_back_makes_no_restart_later_than_the_latest() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    world.events(&runner, &life, 1, [failed("first")]);
    let life = world.started(&runner);
    world.events(&runner, &life, 0, [failed("again")]);
    assert_eq!(world.phase(&life.actor_id), Phase::Backoff);
    world.now.wall_ms -= 3_600_000;
    let mut world = world.restart();
    let runner = world.connect("key");
    world.live(&[&runner], 513 * SECOND);
    assert_eq!(world.started(&runner).generation, life.generation + 1);
}

#[test]
fn an_actor_that_does_not_start_in_time_is_given_up_and_its_runner_told() {
    let mut world = World::new();
    let runner = world.connect_as("key", init(1), Features::default(), Version::V7);
    world.create(CrashPolicy::Restart);
    let life = world.started(&runner);
    world.live(&[&runner], 30 * SECOND - MILLI);
    assert!(world.commands(&runner).is_empty());
    world.live(&[&runner], MILLI);
    assert_eq!(world.told_to_stop(&runner), Checkpoint { index: 1, ..life.clone() });
    let record = world.record(&life.actor_id);
    assert_eq!(record.error, Some(ActorError::RunnerNoResponse { runner_id: (*runner.runner_id).into() }));
    assert_eq!(record.phase, Phase::Pending, "the only slot is taken until the runner says otherwise");
    world.events(&runner, &life, 0, [Event::Running]);
    assert_eq!(world.phase(&life.actor_id), Phase::Pending, "too late");
    world.take_sent(runner.connection);
    world.events(&runner, &life, 1, [OK]);
    let next = world.started(&runner);
    assert_eq!(next.generation, 1);
}

#[test]
fn an_actor_that_does_not_stop_in_time_is_given_up() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    world.events(&runner, &life, 1, [Event::StopIntent]);
    world.told_to_stop(&runner);
    world.live(&[&runner], 1_800 * SECOND);
    let record = world.record(&life.actor_id);
    assert_eq!((record.phase, record.generation), (Phase::Starting, 1));
}

#[test]
fn a_destroyed_actor_is_gone_after_a_grace_even_if_it_never_stops() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    let call = world.destroy(&life.actor_id);
    let request = world.open(&life.actor_id);
    assert_eq!(world.refused[&request], GatewayError::ActorNotFound);
    world.live(&[&runner], 5 * SECOND - MILLI);
    assert!(!world.answers.contains_key(&call));
    world.pass(MILLI);
    assert_eq!(world.answer(call), Ok(Answer::Done));
    assert_eq!(world.phase(&life.actor_id), Phase::Destroyed);
    assert_eq!(world.core.live_runners()[&*runner.runner_id].remaining_slots, 9, "it may still run");
    world.events(&runner, &life, 1, [failed("late")]);
    assert_eq!(world.core.live_runners()[&*runner.runner_id].remaining_slots, 10);
    assert_eq!(world.phase(&life.actor_id), Phase::Destroyed);
}

#[test]
fn a_sleeping_actor_is_destroyed_without_being_woken() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    let call = world.call(CallRequest::Destroy { namespace: "nowhere".into(), actor_id: (*life.actor_id).into() });
    assert_eq!(world.answer(call), Err(GatewayError::NamespaceNotFound));
    let call = world.destroy(&life.actor_id);
    assert_eq!(world.answer(call), Ok(Answer::Done));
    assert_eq!(world.phase(&life.actor_id), Phase::Destroyed);
    assert!(world.commands(&runner).is_empty());
    let call = world.destroy("1oe70n6l4jcqg4a8w8zsyhhwkqcl00");
    assert_eq!(world.answer(call), Err(GatewayError::ActorNotFound));
}

#[test]
fn without_room_an_actor_waits_or_sleeps_as_its_policy_says() {
    let mut world = World::new();
    let error = world.create_with(actor()).expect_err("no runner was ever here");
    assert_eq!(error, GatewayError::NoRunnerConfig { pool: "pool".into() });

    let runner = world.connect_as("key", init(1), Features::default(), Version::V7);
    let holder = world.running(&runner, CrashPolicy::Sleep);
    let sleeping = world.create_with(actor()).expect("created");
    assert_eq!((sleeping.phase, sleeping.error.clone()), (Phase::Sleeping, Some(ActorError::NoCapacity)));
    assert_eq!(world.record(&sleeping.id), sleeping);
    let first = world.create(CrashPolicy::Restart);
    world.pass(MILLI);
    let second = world.create(CrashPolicy::Destroy);
    let record = world.record(&first);
    assert_eq!((record.phase, record.error), (Phase::Pending, Some(ActorError::NoCapacity)));
    assert_eq!(record.pending_allocation_ts, Some(world.now.wall_ms - 1));

    world.events(&runner, &holder, 1, [OK]);
    let life = world.started(&runner);
    assert_eq!(*life.actor_id, *first, "who waits longer comes first");
    assert_eq!((world.record(&first).error, world.record(&first).pending_allocation_ts), (None, None));
    assert_eq!(world.phase(&second), Phase::Pending);
    world.connect("another");
    assert_eq!(world.phase(&second), Phase::Starting, "a new runner takes those who wait");
}

#[test]
fn a_request_queues_a_sleeping_actor_for_a_minute() {
    let mut world = World::new();
    let runner = world.connect_as("key", init(1), Features::default(), Version::V7);
    world.running(&runner, CrashPolicy::Sleep);
    let id = world.create(CrashPolicy::Sleep);
    let request = world.open(&id);
    assert_eq!(world.phase(&id), Phase::Pending);
    world.live(&[&runner], 30 * SECOND);
    assert_eq!(
        world.refused[&request],
        GatewayError::ActorReadyTimeout { error: Some(ActorError::NoCapacity) },
        "the client is told what it waited for"
    );
    assert_eq!(world.phase(&id), Phase::Pending);
    world.live(&[&runner], 30 * SECOND);
    assert_eq!(world.phase(&id), Phase::Sleeping);
}

#[test]
fn an_actor_asked_for_while_it_falls_asleep_wakes_right_after() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SleepIntent]);
    world.told_to_stop(&runner);
    let request = world.open(&life.actor_id);
    assert!(world.record(&life.actor_id).wake_after_stop);
    world.events(&runner, &life, 2, [OK]);
    let next = world.started(&runner);
    assert_eq!(next.generation, 1);
    world.events(&runner, &next, 0, [Event::Running]);
    assert_eq!(world.opened, [request]);
}

#[test]
fn an_actor_that_fails_to_start_twice_is_given_up_with_the_reason() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    let request = world.open(&life.actor_id);
    for _ in 0..2 {
        let life = world.started(&runner);
        world.events(&runner, &life, 0, [failed("no such file")]);
    }
    let crashed = ActorError::Crashed { message: Some("no such file".to_owned()) };
    assert_eq!(world.refused[&request], GatewayError::ActorReadyTimeout { error: Some(crashed) });
    assert_eq!(world.phase(&life.actor_id), Phase::Sleeping);
}

#[test]
fn an_alarm_rings_within_a_minute_of_its_time_when_the_clock_is_set_right() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let at = world.now.wall_ms + 120_000;
    world.now.wall_ms -= 3_600_000;
    world.events(&runner, &life, 1, [Event::SetAlarm { at: Some(at) }, Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    world.live(&[&runner], 70 * SECOND);
    assert!(world.commands(&runner).is_empty());
    world.now.wall_ms += 3_600_000;
    world.live(&[&runner], 49 * SECOND);
    assert!(world.commands(&runner).is_empty(), "never early");
    let late = (0..61).find(|_| {
        world.live(&[&runner], SECOND);
        world.phase(&life.actor_id) != Phase::Sleeping
    });
    assert!(late.is_some());
    assert_eq!(world.started(&runner).generation, life.generation + 1);
}

#[test]
fn an_alarm_wakes_a_sleeping_actor() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let at = world.now.wall_ms + 60_000;
    world.events(&runner, &life, 1, [Event::SetAlarm { at: Some(at) }, Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    world.live(&[&runner], 60 * SECOND - MILLI);
    assert!(world.commands(&runner).is_empty());
    world.pass(MILLI);
    let life = world.started(&runner);
    assert_eq!((life.generation, world.record(&life.actor_id).alarm_at), (1, None));

    // What passes while it is awake is its runner's business.
    world.events(&runner, &life, 0, [Event::Running, Event::SetAlarm { at: Some(world.now.wall_ms + 1_000) }]);
    world.live(&[&runner], 2 * SECOND);
    world.events(&runner, &life, 2, [Event::SleepIntent]);
    // What passes while it stops is not.
    world.events(&runner, &life, 3, [Event::SetAlarm { at: Some(world.now.wall_ms) }]);
    world.take_sent(runner.connection);
    world.events(&runner, &life, 4, [OK]);
    let life = world.started(&runner);
    world.events(&runner, &life, 0, [Event::Running, Event::SetAlarm { at: Some(world.now.wall_ms + 5_000) }]);
    world.events(&runner, &life, 2, [Event::SetAlarm { at: None }, Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    world.live(&[&runner], 10 * SECOND);
    assert!(world.commands(&runner).is_empty(), "a cleared alarm does nothing");
}

#[test]
fn keys_are_unique_among_the_living() {
    let mut world = World::new();
    let runner = world.connect("key");
    let keyed = || CreateActor { key: Some("k".into()), ..actor() };
    // All at once, before the store has answered any.
    world.slow_loads = true;
    let calls: Vec<_> = (0..5).map(|_| world.call(CallRequest::GetOrCreate(keyed()))).collect();
    let create = world.call(CallRequest::Create(keyed()));
    world.answer_loads();
    let mut ids = Vec::new();
    let mut created = 0;
    for call in calls {
        let Ok(Answer::Actor { record, created: new }) = world.answer(call) else { panic!("no actor") };
        ids.push(record.id);
        created += u32::from(new);
    }
    assert_eq!(created, 1);
    assert!(ids.iter().all(|id| *id == ids[0]));
    let duplicate = GatewayError::DuplicateKey { existing_actor_id: ids[0].clone(), key: "k".into() };
    assert_eq!(world.answer(create), Err(duplicate));
    assert!(world.create_with(CreateActor { name: "other".into(), ..keyed() }).is_ok(), "another name is free");

    let lives = world.commands(&runner);
    let call = world.destroy(&ids[0]);
    world.events(&runner, &lives[0].checkpoint, 0, [OK]);
    assert_eq!(world.answer(call), Ok(Answer::Done));
    assert_ne!(world.create_with(keyed()).expect("the key is free again").id, ids[0]);
}

#[test]
fn an_answer_that_was_overtaken_is_asked_for_again() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SetAlarm { at: Some(world.now.wall_ms + 1_000) }, Event::SleepIntent, OK]);
    // The question after due alarms is under way while the actor wakes and sleeps again.
    world.slow_loads = true;
    world.live(&[&runner], SECOND);
    let due = std::mem::take(&mut world.loads);
    assert_eq!(due.len(), 1);
    world.take_sent(runner.connection);
    world.slow_loads = false;
    world.open(&life.actor_id);
    let life = world.started(&runner);
    world.events(&runner, &life, 0, [Event::Running, Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    let generation = world.record(&life.actor_id).generation;

    let greenroom::gateway::core::Effect::Load { load, .. } = due[0] else { panic!("no load") };
    let mut stale = world.record(&life.actor_id);
    stale.generation = 0;
    let found = greenroom::store::Found::Actors(vec![stale]);
    world.tell(greenroom::gateway::core::Input::Loaded { load, found });
    assert!(world.commands(&runner).is_empty());
    assert_eq!(world.record(&life.actor_id).generation, generation);
}

#[test]
fn a_sleeping_actor_that_is_destroyed_and_asked_for_at_once_stays_destroyed() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    // All of them wait for the same answer of the store.
    world.slow_loads = true;
    let call = world.destroy(&life.actor_id);
    let stream = world.open(&life.actor_id);
    let again = world.destroy(&life.actor_id);
    world.answer_loads();
    assert_eq!(world.answer(call), Ok(Answer::Done));
    assert_eq!(world.answer(again), Ok(Answer::Done));
    assert_eq!(world.refused.get(&stream), Some(&GatewayError::ActorNotFound));
    assert!(world.commands(&runner).is_empty());
    assert_eq!(world.record(&life.actor_id).phase, Phase::Destroyed);
}

impl World {
    pub fn destroy(&mut self, actor_id: &str) -> greenroom::gateway::core::CallId {
        self.call(CallRequest::Destroy { namespace: "default".into(), actor_id: actor_id.into() })
    }
}
