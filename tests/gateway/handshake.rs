//! How runners' connections begin and end.

use std::time::Duration;

use greenroom::gateway::{CreateActor, RunningGateway, StreamHead, TunnelEvent, stream_events};
use greenroom::protocol::{Command, Event, KvRequest, KvResponse, ToClient, ToClientTunnel, ToServer, Version};
use greenroom::store::CrashPolicy;
use tokio_tungstenite::tungstenite::Message;

use crate::raw_runner::{Closed, RawRunner, gateway, init, options, response};

#[tokio::test]
async fn every_version_can_run_an_actor_and_serve_a_request() {
    let gateway = gateway().await;
    for version in Version::ALL {
        let pool = format!("pool-{version}");
        let (mut runner, _) = RawRunner::connect(&gateway, &pool, "key", version).await;
        let actor = gateway.handle().create_actor(create(&pool)).await.expect("created");

        let commands = runner.commands().await;
        assert_eq!(commands.len(), 1);
        let life = commands[0].checkpoint.clone();
        assert_eq!((&*life.actor_id, life.generation, life.index), (&*actor.id, 0, 0));
        let Command::Start { config, hibernating } = &commands[0].command else { panic!("no start") };
        assert_eq!((&*config.name, hibernating.len()), ("counter", 0));
        runner.event(&life, 0, Event::Running).await;

        let (events, mut answers) = stream_events(1_000_000);
        let open = greenroom::gateway::OpenStream { actor_id: actor.id.clone(), head: get("/path?q=1"), events };
        let handle = gateway.handle().clone();
        let link = tokio::spawn(async move { handle.open_stream(open).await });
        let (id, message) = runner.tunnel().await;
        let ToClientTunnel::RequestStart { actor_id, method, path, body, stream, .. } = message else {
            panic!("no request")
        };
        assert_eq!((&*actor_id, &*method, &*path, body, stream), (&*actor.id, "GET", "/path?q=1", None, false));
        let link = link.await.expect("no panic").expect("opened");
        runner.answer(id, response(201, "hello")).await;
        let Some(TunnelEvent::Response { status, body, more, .. }) = answers.recv().await else { panic!("no answer") };
        assert_eq!((status, body.as_deref(), more), (201, Some(&b"hello"[..]), false));
        drop(link);

        runner
            .send(ToServer::Kv {
                actor_id: life.actor_id.clone(),
                request_id: u32::MAX,
                request: KvRequest::Put { keys: vec!["k".into()], values: vec!["v".into()] },
            })
            .await;
        let answered = |message: &ToClient| match message {
            ToClient::Kv { request_id, response } => Some((*request_id, response.clone())),
            _ => None,
        };
        assert_eq!(runner.expect(answered).await, (u32::MAX, KvResponse::Put));
        runner
            .send(ToServer::Kv {
                actor_id: life.actor_id.clone(),
                request_id: 0,
                request: KvRequest::Get { keys: vec!["k".into()] },
            })
            .await;
        let (_, KvResponse::Get { values, .. }) = runner.expect(answered).await else { panic!("no value") };
        assert_eq!(values, ["v"]);
    }
}

fn create(pool: &str) -> CreateActor {
    CreateActor {
        namespace: "default".into(),
        name: "counter".into(),
        key: None,
        pool: pool.into(),
        crash_policy: CrashPolicy::Sleep,
        input: None,
    }
}

fn get(path: &str) -> StreamHead {
    StreamHead::Request { method: "GET".into(), path: path.into(), headers: Vec::new(), body: None, more: false }
}
