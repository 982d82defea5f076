//! The committer: order, grouping, failure, shutdown.

use bytes::Bytes;
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse};
use greenroom::store::{Change, Committer, Found, Query, SqliteStore};

use super::records::actor;

#[tokio::test]
async fn a_read_submitted_after_a_write_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = Committer::start(SqliteStore::open(dir.path()).unwrap()).unwrap();
    let record = actor("a");
    store.commit(vec![Change::Actor(Box::new(record.clone()))]).await.unwrap();
    let found = store.read(Query::Actor("a".into())).await.unwrap();
    assert_eq!(found, Found::Actor(Some(Box::new(record))));

    let put = KvRequest::Put { keys: vec![Bytes::from_static(b"k")], values: vec![Bytes::from_static(b"v")] };
    assert_eq!(store.kv("a".into(), put).await, Ok(KvResponse::Put));
    let list = KvRequest::List { query: KvListQuery::All, reverse: None, limit: None };
    let Ok(KvResponse::List { values, .. }) = store.kv("a".into(), list).await else { panic!("not a list") };
    assert_eq!(values, [Bytes::from_static(b"v")]);
    tokio::task::spawn_blocking(|| committer.stop()).await.unwrap().unwrap();
}
