//! Bodies in pieces, and the credit they travel on.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom::gateway::core::{Features, Input, StreamRef};
use greenroom::gateway::{GatewayError, StreamHead, StreamUp, TunnelEvent};
use greenroom::protocol::credit::{GRANT, WINDOW};
use greenroom::protocol::{ToClientTunnel, ToServerTunnel, Version};
use greenroom::store::CrashPolicy;

use crate::world::{Peer, World, init};

#[test]
fn what_a_client_takes_is_granted_to_its_actor_and_no_more() {
    let (mut world, runner, _, request) = streaming();
    world.tell(Input::ClientTook { stream: request });
    assert_eq!(world.tunnel(&runner), [], "nothing came yet");
    world.reply(&runner, request, piece(GRANT, false));
    world.tell(Input::ClientTook { stream: request });
    world.tell(Input::ClientTook { stream: request });
    let sent: Vec<_> = world.tunnel(&runner).into_iter().map(|(_, message)| message).collect();
    assert_eq!(sent, [ToClientTunnel::RequestChunk { body: Bytes::new(), finish: false }]);
    world.reply(&runner, request, piece(0, true));
    world.tell(Input::ClientTook { stream: request });
    assert_eq!(world.tunnel(&runner), [], "nothing follows");
}

#[test]
fn a_runner_that_ignores_its_credit_loses_the_stream() {
    let (mut world, runner, _, request) = streaming();
    for _ in 0..WINDOW / GRANT {
        world.reply(&runner, request, piece(GRANT, false));
    }
    world.got(request);
    world.reply(&runner, request, piece(1, false));
    assert!(matches!(world.got(request)[..], [TunnelEvent::Failed(GatewayError::InvalidResponse(_))]));
    assert!(matches!(world.tunnel(&runner)[..], [(_, ToClientTunnel::RequestAbort)]));
    assert_eq!(world.core.health().streams, 0);
}

#[test]
fn what_an_actor_takes_is_granted_to_its_client() {
    let (mut world, runner, request) = uploading();
    let grant = || ToServerTunnel::ResponseChunk { body: Bytes::new(), finish: false };
    world.reply(&runner, request, grant());
    assert_eq!(world.granted[&request], 1);
    assert_eq!(world.got(request), [], "a grant is nothing for the client");
    world.reply(&runner, request, head());
    world.reply(&runner, request, grant());
    assert_eq!(world.granted[&request], 2);
    assert_eq!(world.got(request).len(), 1);
}

#[test]
fn without_credit_an_empty_piece_is_a_piece_and_nothing_is_counted() {
    let mut world = World::new();
    let features = Features { stream: true, ..Features::default() };
    let runner = world.connect_as("key", init(10), features, Version::V7);
    let life = world.running(&runner, CrashPolicy::Sleep);
    let request = world.open(&life.actor_id);
    world.reply(&runner, request, head());
    world.reply(&runner, request, piece(0, false));
    assert!(world.granted.is_empty());
    assert_eq!(world.got(request).len(), 2);
    world.tell(Input::ClientTook { stream: request });
    assert_eq!(world.tunnel(&runner).len(), 1, "the head and no grant");
    for _ in 0..2 * WINDOW / GRANT {
        world.reply(&runner, request, piece(GRANT, false));
    }
    assert_eq!(world.got(request).len(), 2 * WINDOW / GRANT);
}

#[test]
fn bodies_on_their_way_break_off_with_the_connection_and_everything_else_goes_on() {
    let (mut world, runner, actor, download) = streaming();
    let upload = world.open_with(&actor, post());
    let unanswered = world.open(&actor);
    world.tunnel(&runner);
    world.disconnect(&runner);
    let failed = TunnelEvent::Failed(GatewayError::TunnelClosed);
    assert_eq!(world.got(download).last(), Some(&failed));
    assert_eq!(world.got(upload), [failed]);
    assert_eq!(world.got(unanswered), []);
    let runner = world.connect_as("key", init(10), Features::ALL, Version::V7);
    let told: Vec<_> = world.tunnel(&runner).into_iter().map(|(id, message)| (id.stream, message)).collect();
    let abort = ToClientTunnel::RequestAbort;
    assert_eq!(told, [(world.wire(download), abort.clone()), (world.wire(upload), abort)]);
    world.reply(&runner, unanswered, crate::world::response());
    assert_eq!(world.got(unanswered).len(), 1);
}

#[test]
fn a_runner_that_takes_over_from_its_own_broken_connection_is_told_what_broke_off() {
    let (mut world, _old, _, download) = streaming();
    let runner = world.connect_as("key", init(10), Features::ALL, Version::V7);
    assert_eq!(world.got(download).last(), Some(&TunnelEvent::Failed(GatewayError::TunnelClosed)));
    assert!(matches!(world.tunnel(&runner)[..], [(_, ToClientTunnel::RequestAbort)]));
}

/// A world with a response that has begun.
fn streaming() -> (World, Peer, ByteString, StreamRef) {
    let mut world = World::new();
    let runner = world.connect_as("key", init(10), Features::ALL, Version::V7);
    let life = world.running(&runner, CrashPolicy::Sleep);
    let request = world.open(&life.actor_id);
    world.reply(&runner, request, head());
    world.tunnel(&runner);
    (world, runner, life.actor_id, request)
}

/// A world with a request whose body follows.
fn uploading() -> (World, Peer, StreamRef) {
    let mut world = World::new();
    let runner = world.connect_as("key", init(10), Features::ALL, Version::V7);
    let life = world.running(&runner, CrashPolicy::Sleep);
    let request = world.open_with(&life.actor_id, post());
    world.up(request, StreamUp::Chunk { body: "x".into(), finish: false });
    (world, runner, request)
}

fn post() -> StreamHead {
    StreamHead::Request { method: "POST".into(), path: "/".into(), headers: Vec::new(), body: None, more: true }
}

fn head() -> ToServerTunnel {
    ToServerTunnel::ResponseStart { status: 200, headers: Vec::new(), body: None, stream: true }
}

fn piece(bytes: usize, finish: bool) -> ToServerTunnel {
    ToServerTunnel::ResponseChunk { body: Bytes::from(vec![7; bytes]), finish }
}
