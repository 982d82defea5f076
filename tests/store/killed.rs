//! A process that is killed has lost nothing it acknowledged.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse};
use greenroom::store::{ActorRecord, Change, Committer, Found, Query, SqliteStore, Store};

use super::records::actor;

#[test]
fn every_acknowledged_write_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for (round, acks_before_the_kill) in [1, 37, 400, 3].into_iter().enumerate() {
        let round = u32::try_from(round).unwrap();
        for (writer, count) in write_until_killed(dir.path(), round, acks_before_the_kill) {
            acknowledged.insert((round, writer), count);
        }
        check(dir.path(), &acknowledged);
    }
    assert!(acknowledged.values().sum::<u32>() >= 441);
}

/// The process that is killed: this test again, started by the one above. Alone it has nothing to do.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let (Ok(dir), Ok(round)) = (env::var(DIR), env::var(ROUND)) else { return };
    let (store, _committer) = Committer::start(SqliteStore::open(Path::new(&dir)).unwrap()).unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        let id: Arc<str> = format!("{round}/{writer}").into();
        tokio::spawn(async move {
            for count in 1.. {
                let put = KvRequest::Put { keys: vec![key(count)], values: vec![value(count)] };
                assert_eq!(store.kv(id.clone(), put).await, Ok(KvResponse::Put));
                let record = ActorRecord { generation: count, ..actor(&id) };
                store.commit(vec![Change::Actor(Box::new(record))]).await.unwrap();
                println!("ack {writer} {count}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Starts the process, kills it after so many acknowledgements, and answers the last of each writer.
fn write_until_killed(dir: &Path, round: u32, acks: usize) -> BTreeMap<u32, u32> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed::writes_until_it_is_killed", "--nocapture"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut last = BTreeMap::new();
    // Whatever it wrote until it was gone was acknowledged too.
    for (seen, line) in lines.filter(|line| line.starts_with("ack ")).enumerate() {
        let fields: Vec<u32> = line.split(' ').skip(1).map_while(|field| field.parse().ok()).collect();
        if let [writer, count] = fields[..] {
            last.insert(writer, count);
        }
        if seen + 1 == acks {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "the writer ended by itself");
    last
}

fn check(dir: &Path, acknowledged: &BTreeMap<(u32, u32), u32>) {
    let mut store = SqliteStore::open(dir).unwrap();
    for (&(round, writer), &count) in acknowledged {
        let id = format!("{round}/{writer}");
        let all = KvRequest::List { query: KvListQuery::All, reverse: None, limit: Some(u64::MAX) };
        let Ok(KvResponse::List { keys, values, .. }) = store.kv(&id, &all, 0) else { panic!("not a list") };
        // What was being written when it was killed may be there, nothing else, and whole.
        let stored = u32::try_from(keys.len()).unwrap();
        assert!(stored == count || stored == count + 1, "{id}: {stored} stored, {count} acknowledged");
        for (n, (key_found, value_found)) in (1..).zip(keys.iter().zip(&values)) {
            assert_eq!((key_found, value_found), (&key(n), &value(n)));
        }
        let Ok(Found::Actor(Some(record))) = store.read(&Query::Actor(id.as_str().into())) else { panic!("no {id}") };
        assert!(record.generation == count || record.generation == count + 1);
    }
}

fn key(count: u32) -> Bytes {
    Bytes::copy_from_slice(&count.to_be_bytes())
}

/// Of lengths that fit a page and that do not.
fn value(count: u32) -> Bytes {
    Bytes::from(vec![count.to_le_bytes()[0]; usize::try_from(count % 7).unwrap() * 1_500])
}

const WRITERS: u32 = 8;
const DIR: &str = "STORE_TEST_DIR";
const ROUND: &str = "STORE_TEST_ROUND";
