//! Connect, create, sleep, wake, destroy.

use std::time::Duration;

use serde_json::json;

use crate::{process::poll, stage::Stage};

pub async fn a_connected_runner_is_listed_with_what_it_said_about_itself(stage: &Stage) {
    // The engine lists a runner a moment before what it said about itself.
    let described = poll(Duration::from_secs(5), || async {
        let runners = stage.client.get("/runners?namespace=default").await.unwrap().json();
        runners["runners"][0]["metadata"].is_object().then_some(runners)
    });
    let runners = described.await.expect("the runner is listed with its metadata");
    let runner = &runners["runners"][0];
    assert_eq!(runner["name"], "pool", "{runners}");
    assert_eq!(runner["total_slots"], crate::SLOTS, "{runners}");
    assert_eq!(runner["remaining_slots"], crate::SLOTS, "{runners}");
    assert_eq!(runner["version"], 1, "{runners}");
    let names = stage.client.get("/runners/names?namespace=default").await.unwrap().json();
    assert_eq!(names["names"], json!(["pool"]));
    let known = poll(Duration::from_secs(5), || async {
        let names = stage.client.get("/actors/names?namespace=default").await.unwrap().json();
        names["names"]["counter"]["metadata"].is_object().then_some(())
    });
    assert!(known.await.is_some(), "the runner's actor names are not listed");
}

pub async fn a_created_actor_starts_once_and_keeps_its_key(stage: &Stage) {
    let key = stage.fresh_key();
    let id = stage.create(&key, "sleep").await;
    let actor = stage.client.actor_when(&id, "connectable_ts", Duration::from_secs(15)).await;
    assert_eq!((&actor["key"], &actor["name"]), (&json!(key), &json!("counter")));
    assert!(actor["start_ts"].is_number() && actor["sleep_ts"].is_null() && actor["destroy_ts"].is_null(), "{actor}");

    let who = stage.client.ask(&id, "/who").await.json();
    assert_eq!(who["id"], json!(id));
    assert_eq!((&who["name"], &who["key"], &who["generation"]), (&json!("counter"), &json!(key), &json!(0)));
    assert_eq!(who["input"], "aGVsbG8=", "the start input reaches the actor");
    assert_eq!(stage.runs_of(&id, "start"), [(0, 1)].into());

    let body = json!({ "name": "counter", "key": key, "runner_name_selector": stage.pool, "crash_policy": "sleep" });
    let again = stage.client.send("PUT", "/actors?namespace=default", body.clone()).await.unwrap().json();
    assert_eq!((&again["created"], &again["actor"]["actor_id"]), (&json!(false), &json!(id)));
    let twice = stage.client.send("POST", "/actors?namespace=default", body).await.unwrap();
    assert_eq!(twice.status, 400, "{}", twice.text());
    // The engine answers a duplicate with either code, by chance (fixtures/engine-2.3.19/error_duplicate_key*.json).
    let code = twice.json()["code"].clone();
    assert!(code == "duplicate_key" || code == "destroyed_during_creation", "{}", twice.text());
    let by_key = stage.client.get(&format!("/actors?namespace=default&name=counter&key={key}")).await.unwrap().json();
    assert_eq!(by_key["actors"][0]["actor_id"], json!(id));
}

pub async fn a_sleeping_actor_wakes_on_a_request_and_keeps_its_count(stage: &Stage) {
    let id = stage.actor("sleep").await;
    assert_eq!(stage.client.count(&id, "/").await, 1);
    assert_eq!(stage.client.count(&id, "/").await, 2);
    for generation in 0..3 {
        stage.client.ask(&id, "/sleep").await;
        stage.client.actor_when(&id, "sleep_ts", Duration::from_secs(15)).await;
        stage.hook_ran(&id, "stop", generation).await;
        assert_eq!(stage.client.count(&id, "/").await, generation + 3);
        let actor = stage.client.actor(&id).await;
        assert!(actor["sleep_ts"].is_null() && actor["connectable_ts"].is_number(), "{actor}");
        assert_eq!(stage.client.ask(&id, "/who").await.json()["generation"], json!(generation + 1));
    }
    assert_eq!(stage.runs_of(&id, "start"), [(0, 1), (1, 1), (2, 1), (3, 1)].into());
}

pub async fn a_deleted_actor_is_gone_and_its_key_is_free(stage: &Stage) {
    let key = stage.fresh_key();
    let id = stage.create(&key, "restart").await;
    assert_eq!(stage.client.count(&id, "/").await, 1);
    let path = format!("/actors/{id}?namespace=default");
    for _ in 0..2 {
        let gone = stage.client.call("DELETE", &path, &[], "").await.unwrap();
        assert_eq!((gone.status, gone.json()), (200, json!({})));
    }
    assert!(stage.client.actor(&id).await["destroy_ts"].is_number());
    stage.hook_ran(&id, "stop", 0).await;
    let refused = stage.client.get(&format!("/gateway/{id}/")).await.unwrap();
    assert_eq!((refused.status, refused.header("x-rivet-error")), (404, "actor.not_found"));
    assert_eq!(refused.json()["code"], "not_found");

    let next = stage.create(&key, "restart").await;
    assert_ne!(next, id);
    assert_eq!(stage.client.count(&next, "/").await, 1, "nothing is left of the old actor's values");
}

pub async fn an_actor_can_destroy_itself(stage: &Stage) {
    let id = stage.actor("restart").await;
    stage.client.ask(&id, "/destroy").await;
    stage.client.actor_when(&id, "destroy_ts", Duration::from_secs(15)).await;
    stage.hook_ran(&id, "stop", 0).await;
    assert_eq!(stage.client.get(&format!("/gateway/{id}/")).await.unwrap().status, 404);
    assert_eq!(stage.runs_of(&id, "start"), [(0, 1)].into());
}
