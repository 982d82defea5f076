//! Storage at the end of an actor: nothing of it is left, however late it writes.

use greenroom::protocol::{Checkpoint, KvRequest, KvResponse, ToClient, ToServer};
use greenroom::store::{CrashPolicy, Found, Phase, Query, Store};

use crate::world::{OK, Peer, World};

#[test]
fn a_write_that_races_with_the_end_of_its_actor_leaves_nothing() {
    // The end comes before, between and behind the writes, and each time the disk is busy with something else.
    for end_at in 0..=4 {
        let mut world = World::new();
        let runner = world.connect("key");
        let life = world.running(&runner, CrashPolicy::Sleep);
        world.take_sent(runner.connection);
        world.slow_disk = true;
        for write in 0..4 {
            if write == end_at {
                end(&mut world, &runner, &life);
            }
            put(&mut world, &runner, &life, write);
        }
        if end_at == 4 {
            end(&mut world, &runner, &life);
        }
        world.disk_done();
        assert_eq!(world.phase(&life.actor_id), Phase::Destroyed);
        for write in 0..4 {
            let value = Query::KvValue { actor_id: (*life.actor_id).into(), key: key(write).into() };
            assert_eq!(world.store.read(&value), Ok(Found::KvValue(None)), "write {write}, end at {end_at}");
        }
        let answers = answers(&mut world, &runner);
        assert_eq!(answers.len(), 4, "every write is answered");
        for (write, answer) in answers {
            match answer {
                KvResponse::Put => assert!(write < end_at, "{write} came behind the end"),
                KvResponse::Error { message } => {
                    assert_eq!(message, "actor does not exist");
                    assert!(write >= end_at, "{write} came before the end");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_write_that_is_sent_again_after_a_restart_does_not_reach_a_destroyed_actor() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    end(&mut world, &runner, &life);
    let mut world = world.restart();
    let runner = world.connect("key");
    put(&mut world, &runner, &life, 1);
    let refused = KvResponse::Error { message: "actor does not exist".into() };
    assert_eq!(answers(&mut world, &runner), [(1, refused)]);
    let value = Query::KvValue { actor_id: (*life.actor_id).into(), key: key(1).into() };
    assert_eq!(world.store.read(&value), Ok(Found::KvValue(None)));
}

/// The actor is destroyed from outside, and its runner says at once that it has stopped.
fn end(world: &mut World, runner: &Peer, life: &Checkpoint) {
    world.destroy(&life.actor_id);
    world.events(runner, life, 1, [OK]);
}

fn put(world: &mut World, runner: &Peer, life: &Checkpoint, number: u32) {
    let request = KvRequest::Put { keys: vec![key(number).into()], values: vec!["value".into()] };
    world.say(runner, ToServer::Kv { actor_id: life.actor_id.clone(), request_id: number, request });
}

fn key(number: u32) -> String {
    format!("key-{number}")
}

fn answers(world: &mut World, runner: &Peer) -> Vec<(u32, KvResponse)> {
    let kv = |message| match message {
        ToClient::Kv { request_id, response } => Some((request_id, response)),
        _ => None,
    };
    let mut answers: Vec<_> = world.take_sent(runner.connection).into_iter().filter_map(kv).collect();
    answers.sort_by_key(|(request_id, _)| *request_id);
    answers
}
