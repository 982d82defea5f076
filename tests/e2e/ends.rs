//! Actors that are destroyed while they write.

use greenroom::gateway::{GatewayOptions, RunningGateway};
use greenroom::store::{Found, Query, SqliteStore, Store};

use crate::actor::runner;
use crate::http;
use crate::ledger::create;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_is_destroyed_while_it_writes_leaves_no_rows() {
    let data = tempfile::tempdir().unwrap();
    let options = GatewayOptions::new("127.0.0.1:0".parse().unwrap(), data.path());
    let gateway = RunningGateway::start(options).await.unwrap();
    let authority = gateway.local_addr().to_string();
    let runner = runner(&authority);
    runner.connected().await;
    let ends: Vec<_> = (0..20)
        .map(|number| {
            let authority = authority.clone();
            tokio::spawn(async move {
                let answer = loop {
                    let answer = create(&authority, "PUT", &format!("end/{number}")).await.expect("an answer");
                    if answer.status == 200 {
                        break answer;
                    }
                };
                let actor = answer.json()["actor"]["actor_id"].as_str().expect("an id").to_owned();
                let path = format!("/gateway/{actor}/put?k");
                assert_eq!(http::send(&authority, "PUT", &path, "first").await.expect("an answer").status, 200);
                let writing = {
                    let authority = authority.clone();
                    tokio::spawn(async move {
                        while http::send(&authority, "PUT", &path, "more").await.expect("an answer").status == 200 {}
                    })
                };
                let path = format!("/actors/{actor}?namespace=default");
                assert_eq!(http::send(&authority, "DELETE", &path, "").await.expect("an answer").status, 200);
                writing.await.expect("it was told of the end");
                actor
            })
        })
        .collect();
    let mut actors = Vec::new();
    for end in ends {
        actors.push(end.await.unwrap());
    }
    runner.stop_now().await;
    runner.wait().await;
    gateway.stop().await.unwrap();

    let mut store = SqliteStore::open(data.path()).unwrap();
    for actor in actors {
        for key in ["k", "lives"] {
            let value = Query::KvValue { actor_id: actor.as_str().into(), key: key.into() };
            assert_eq!(store.read(&value), Ok(Found::KvValue(None)), "{actor} {key}");
        }
    }
    while store.untidy() {
        store.begin().unwrap();
        store.tidy().unwrap();
        store.commit().unwrap();
    }
    drop(store);
    let database = rusqlite::Connection::open(data.path().join("gateway.db")).unwrap();
    for table in ["kv", "kv_owner", "kv_dropped"] {
        let rows: i64 = database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "rows of {table}");
    }
}
