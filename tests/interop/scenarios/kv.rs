//! Key-value calls of an actor, and the public read.

use serde_json::json;

use crate::stage::Stage;

pub async fn every_operation_does_what_it_says(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let seen = stage.client.ask(&id, "/kv").await.json();
    assert_eq!(seen["get"], json!(["3", null, "1"]), "in the order asked, missing ones marked");
    assert_eq!(seen["list"], json!(["t/a", "t/b", "t/c", "t/d"]), "in byte order");
    assert_eq!(seen["after_delete"], json!(["t/a", "t/c", "t/d"]), "deleting a missing key is no error");
    assert_eq!(seen["after_delete_range"], json!(["t/a", "t/d"]), "the end of a range stays");
    assert_eq!((&seen["largest_value"], &seen["binary"]), (&json!(true), &json!(true)));
    assert_ne!(seen["too_long"], "accepted", "a value above 128 KiB is refused");
    assert_eq!(seen["after_cleanup"], json!([]));
}

pub async fn values_can_be_read_from_outside(stage: &Stage) {
    let id = stage.actor("sleep").await;
    stage.client.count(&id, "/").await;
    let count = stage.client.get(&format!("/actors/{id}/kv/keys/Y291bnQ%3D?namespace=default")).await.unwrap();
    assert_eq!((count.status, &count.json()["value"]), (200, &json!("MQ==")), "{}", count.text());
    assert!(count.json()["update_ts"].is_number());
    let absent = stage.client.get(&format!("/actors/{id}/kv/keys/YWJzZW50?namespace=default")).await.unwrap();
    assert_eq!((absent.status, &absent.json()["code"]), (400, &json!("kv_key_not_found")));
}
