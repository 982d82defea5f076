//! A disk that takes nothing more: writes are refused with a reason, the gateway says why it stops, and what it
//! acknowledged before is there on the next start.

use crate::actor::runner;
use crate::gateway::{Gateway, has};
use crate::http;
use crate::ledger::{create, value};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_more_loses_nothing_that_was_acknowledged() {
    if !has("bash") {
        return eprintln!("skipped: the limit on file sizes is set with bash");
    }
    let data = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_limited(data.path(), "127.0.0.1:0", 4 * 1024).await;
    let authority = gateway.authority.clone();
    let runner = runner(&authority);
    let actor = loop {
        let answer = create(&authority, "PUT", "filler").await.expect("an answer");
        if answer.status == 200 {
            break answer.json()["actor"]["actor_id"].as_str().expect("an id").to_owned();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let filling = "x".repeat(100_000);
    let mut written = 0;
    let refused = loop {
        let path = format!("/gateway/{actor}/put?k{written}");
        match http::send(&authority, "PUT", &path, filling.clone()).await {
            Some(answer) if answer.status == 200 => written += 1,
            answer => break answer,
        }
        assert!(written < 1_000, "the limit is not there");
    };
    assert!(written > 5, "it was refused before the disk was full");
    if let Some(answer) = refused {
        assert!(answer.text().contains("storage failed"), "{}", answer.text());
    }
    // Storage is refused alone; what the gateway itself must remember makes it stop.
    for number in 0..10_000 {
        match create(&authority, "PUT", &format!("more/{number}")).await {
            Some(answer) if answer.status == 200 => {}
            _ => break,
        }
    }
    let record = gateway.record("the gateway cannot go on").await;
    assert!(record["error"].as_str().unwrap().contains("gateway.db"), "{record}");
    assert_eq!(gateway.ended().await, Some(70));

    let gateway = Gateway::start(data.path(), &authority).await;
    for number in 0..written {
        let stored = value(&authority, &actor, &format!("k{number}")).await;
        assert_eq!(stored.as_deref(), Some(&*filling), "value {number} of {written}");
    }
    let answer = create(&authority, "PUT", "filler").await.expect("an answer").json();
    assert_eq!((answer["created"].as_bool(), answer["actor"]["actor_id"].as_str()), (Some(false), Some(&*actor)));
    runner.stop_now().await;
    runner.wait().await;
    assert_eq!(gateway.stop().await, Some(0));
}
