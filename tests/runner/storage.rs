//! Storage requests on the wire.

use std::time::Duration;

use greenroom::host::KvError;
use greenroom::protocol::{KvEntryMetadata, KvRequest, KvResponse, ToClient, ToServer};

use crate::actors::Stage;
use crate::gateway::{Gateway, Wire, stream};

#[tokio::test]
async fn requests_of_one_actor_travel_together_and_may_be_answered_in_any_order() {
    let gateway = Gateway::listen().await;
    let _runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    for number in 0..10 {
        wire.request(stream(number), "a", &format!("/put?{number}"), None).await;
    }
    let mut asked = Vec::new();
    for _ in 0..10 {
        asked.push(kv(&mut wire).await);
    }
    for (id, request) in asked.iter().rev() {
        let KvRequest::Put { keys, values } = request else { panic!("{request:?}") };
        assert_eq!(&values[0][..], b"value");
        let number: u32 = std::str::from_utf8(&keys[0]).unwrap().parse().unwrap();
        answer(&mut wire, *id, KvResponse::Put).await;
        assert_eq!(wire.response(stream(number)).await.0, 200);
    }
}

#[tokio::test]
async fn an_answer_reaches_its_asker() {
    let gateway = Gateway::listen().await;
    let _runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;

    wire.request(stream(1), "a", "/get?there", None).await;
    let (id, request) = kv(&mut wire).await;
    assert_eq!(request, KvRequest::Get { keys: vec!["there".into()] });
    let metadata = KvEntryMetadata { version: "1".into(), update_ts: 5 };
    let found = KvResponse::Get { keys: vec!["there".into()], values: vec!["found".into()], metadata: vec![metadata] };
    answer(&mut wire, id, found).await;
    assert_eq!(&wire.response(stream(1)).await.2[..], b"found");

    wire.request(stream(2), "a", "/get?gone", None).await;
    let (id, _) = kv(&mut wire).await;
    answer(&mut wire, id, KvResponse::Get { keys: vec![], values: vec![], metadata: vec![] }).await;
    assert_eq!(wire.response(stream(2)).await.0, 404);

    wire.request(stream(3), "a", "/put?x", None).await;
    let (id, _) = kv(&mut wire).await;
    answer(&mut wire, id, KvResponse::Error { message: "transaction failed".into() }).await;
    let (status, _, body) = wire.response(stream(3)).await;
    assert_eq!((status, &body[..]), (500, &b"transaction failed"[..]));
}

#[tokio::test]
async fn what_a_cut_left_unanswered_is_asked_again_in_order() {
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    let context = runner.actor("a", None).await.expect("it runs").context;
    let put = |key: &'static str| {
        let context = context.clone();
        tokio::spawn(async move { context.put(key, "v").await })
    };
    let (first, second, third) = (put("1"), put("2"), put("3"));
    let mut before = Vec::new();
    for _ in 0..3 {
        before.push(kv(&mut wire).await);
    }
    let (answered, _) = before.remove(0);
    answer(&mut wire, answered, KvResponse::Put).await;
    assert_eq!(first.await.unwrap(), Ok(()));
    wire.go_away().await;

    let offline = put("4");
    let mut wire = gateway.open().await;
    for (_, request) in &before {
        let (id, again) = kv(&mut wire).await;
        assert_eq!(&again, request);
        answer(&mut wire, id, KvResponse::Put).await;
    }
    let (id, request) = kv(&mut wire).await;
    assert_eq!(request, KvRequest::Put { keys: vec!["4".into()], values: vec!["v".into()] });
    answer(&mut wire, id, KvResponse::Put).await;
    for put in [second, third, offline] {
        assert_eq!(put.await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_request_that_nobody_answers_says_what_is_known() {
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).kv_timeout(Duration::from_millis(300)).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    let context = runner.actor("a", None).await.expect("it runs").context;
    assert_eq!(context.put("k", "v").await, Err(KvError::OutcomeUnknown));
    assert_eq!(context.get("k").await, Err(KvError::Unavailable));
}

#[tokio::test]
async fn a_life_that_is_over_reads_and_writes_nothing() {
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    let context = runner.actor("a", None).await.expect("it runs").context;
    wire.stop("a", 0).await;
    assert_eq!(wire.stopped("a").await, None);
    assert_eq!(context.put("k", "v").await, Err(KvError::Stale));
}

async fn kv(wire: &mut Wire) -> (u32, KvRequest) {
    wire.pick("a storage request", |message| match message {
        ToServer::Kv { actor_id, request_id, request } => {
            assert_eq!(&**actor_id, "a");
            Some((*request_id, request.clone()))
        }
        _ => None,
    })
    .await
}

async fn answer(wire: &mut Wire, request_id: u32, response: KvResponse) {
    wire.send(ToClient::Kv { request_id, response }).await;
}
