//! The directory and the file of the store on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse};
use greenroom::store::{Change, Found, Query, SqliteStore, Store};

use super::records::actor;

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.begin().unwrap();
    store.apply(&Change::Actor(Box::new(actor("a")))).unwrap();
    store.kv("a", &put("k", b"v"), 7).unwrap();
    store.commit().unwrap();
    drop(store);

    let mut store = open(dir.path());
    assert_eq!(store.read(&Query::Actor("a".into())), Ok(Found::Actor(Some(Box::new(actor("a"))))));
    let value = store.read(&Query::KvValue { actor_id: "a".into(), key: "k".into() });
    assert_eq!(value, Ok(Found::KvValue(Some(("v".into(), 7)))));
}

#[test]
fn a_second_gateway_cannot_open_the_directory_until_the_first_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let text = refusal(dir.path());
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(text.contains(&format!("another gateway (process {})", std::process::id())), "{text}");
    drop(first);
    open(dir.path());
}

#[test]
fn only_the_owner_may_read_what_the_store_creates() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state").join("data");
    let mut store = open(&dir);
    store.begin().unwrap();
    store.kv("a", &put("k", b"v"), 0).unwrap();
    store.commit().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.iter().any(|file| file.ends_with("gateway.db-wal")), "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
}

#[test]
fn a_file_of_a_newer_greenroom_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = dir.path().join("gateway.db");
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&file).unwrap();
    let text = refusal(dir.path());
    assert!(text.contains("gateway.db") && text.contains("version 99") && text.contains("a newer greenroom"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = fs::read(&file).unwrap();
    let text = refusal(dir.path());
    assert!(text.contains("gateway.db is a database of another program"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("gateway.db"), vec![b'x'; 10_000]).unwrap();
    let text = refusal(dir.path());
    assert!(text.contains("gateway.db is damaged, or not a database at all"), "{text}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let text = refusal(&file.join("data"));
    assert!(text.contains("file/data: cannot create the data directory"), "{text}");
}

#[test]
fn a_full_disk_fails_the_write_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.begin().unwrap();
    store.kv("a", &put("before", b"v"), 0).unwrap();
    store.commit().unwrap();

    let size = store.size().unwrap();
    store.limit_size(size).unwrap();
    store.begin().unwrap();
    let failed = store.kv("a", &put("large", &[1; 100_000]), 0).and_then(|_| store.commit());
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("gateway.db: the disk is full"), "{text}");
    store.rollback();
    assert_eq!(keys(&mut store), ["before"]);

    store.limit_size(u64::MAX).unwrap();
    store.begin().unwrap();
    store.kv("a", &put("large", &[1; 100_000]), 0).unwrap();
    store.commit().unwrap();
    assert_eq!(keys(&mut store), ["before", "large"]);
}

#[test]
fn an_actor_over_a_lowered_quota_may_shrink_but_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.begin().unwrap();
    store.kv("a", &put("k", &[1; 1000]), 0).unwrap();
    store.commit().unwrap();
    drop(store);

    let mut store = open(dir.path()).with_quota(100);
    store.begin().unwrap();
    assert_eq!(store.kv("a", &put("k", &[1; 500]), 0), Ok(KvResponse::Put));
    assert!(matches!(store.kv("a", &put("k", &[1; 501]), 0), Ok(KvResponse::Error { .. })));
    store.commit().unwrap();
}

#[test]
fn what_a_dropped_storage_leaves_is_removed_piece_by_piece_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.begin().unwrap();
    for n in 0..20 {
        let keys = (0..100).map(|m| Bytes::from(format!("{n} {m}"))).collect();
        store.kv("a", &KvRequest::Put { keys, values: vec![Bytes::new(); 100] }, 0).unwrap();
    }
    store.apply(&Change::DropKv("a".into())).unwrap();
    store.commit().unwrap();
    drop(store);

    let mut store = open(dir.path());
    let mut pieces = 0;
    while store.untidy() {
        store.begin().unwrap();
        store.tidy().unwrap();
        store.commit().unwrap();
        pieces += 1;
    }
    assert!(pieces > 2, "2,000 entries went in {pieces} pieces");
    drop(store);
    let database = rusqlite::Connection::open(dir.path().join("gateway.db")).unwrap();
    let left: i64 = database.query_row("SELECT count(*) FROM kv", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir).unwrap()
}

fn refusal(dir: &Path) -> String {
    SqliteStore::open(dir).unwrap_err().to_string()
}

fn put(key: &'static str, value: &[u8]) -> KvRequest {
    KvRequest::Put { keys: vec![key.into()], values: vec![Bytes::copy_from_slice(value)] }
}

fn keys(store: &mut SqliteStore) -> Vec<Bytes> {
    let list = KvRequest::List { query: KvListQuery::All, reverse: None, limit: None };
    match store.kv("a", &list, 0) {
        Ok(KvResponse::List { keys, .. }) => keys,
        answer => panic!("not a list: {answer:?}"),
    }
}
