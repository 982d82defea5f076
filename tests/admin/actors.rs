//! What is told of actors, and what an operator can do with them.

use serde_json::Value;

use crate::client::{Dev, get};

#[tokio::test]
async fn an_actor_is_found_by_id_prefix_key_and_name() {
    let dev = Dev::start(&[]).await;
    let id = dev.actor("counter").await;
    dev.until("/actors/counter", |actor| actor["state"] == "running").await;
    let list = dev.ask("GET", "/actors", "").await.json();
    assert_eq!(list["actors"].as_array().unwrap().len(), 2, "{list}");
    for wanted in [&id, &id[..id.len() - 2], "counter"] {
        let actor = dev.ask("GET", &format!("/actors/{wanted}"), "").await.json();
        assert_eq!(actor["id"], id.as_str(), "{wanted}");
        assert_eq!((&actor["name"], &actor["key"]), (&"counter".into(), &"dev".into()));
        assert_eq!(actor["start_reason"], "create");
    }
    let both = dev.ask("GET", "/actors/dev", "").await;
    assert_eq!(both.status, 409, "{}", both.body);
    assert!(both.body.contains(&id), "{}", both.body);
    dev.daemon.stop().await;
}

#[tokio::test]
async fn an_actor_is_put_to_sleep_and_its_story_is_told() {
    let dev = Dev::start(&[]).await;
    let id = dev.actor("counter").await;
    dev.until("/actors/counter", |actor| actor["state"] == "running").await;
    let explained = get(&dev.admin, &format!("/actors/{id}/explain")).await.body;
    assert!(explained.contains("because it was created") && explained.contains("stays awake until"), "{explained}");
    assert_eq!(dev.ask("POST", "/actors/counter/sleep", "").await.status, 202);
    dev.until("/actors/counter", |actor| actor["state"] == "ended").await;
    let explained = dev.ask("GET", "/actors/counter/explain", "").await.body;
    assert!(explained.contains("it asked to sleep"), "{explained}");
    assert_eq!(dev.ask("POST", "/actors/counter/sleep", "").await.status, 409);
    assert_eq!(get(&dev.gateway, &format!("/gateway/{id}/")).await.status, 200);
    let awake = dev.until("/actors/counter", |actor| actor["state"] == "running").await;
    assert_eq!(awake["start_reason"], "wake");
    assert_eq!(awake["last_stop"]["reason"], "sleep");
    assert_eq!(awake["last_stop"]["error"], Value::Null);
    dev.daemon.stop().await;
}

#[tokio::test]
async fn a_stop_is_an_error_that_keeps_the_state() {
    let dev = Dev::start(&[]).await;
    let id = dev.actor("counter").await;
    assert_eq!(get(&dev.gateway, &format!("/gateway/{id}/")).await.body, "1\n");
    assert_eq!(dev.ask("POST", &format!("/actors/{id}/stop"), "").await.status, 202);
    dev.until(&format!("/actors/{id}"), |actor| actor["state"] == "ended").await;
    assert_eq!(get(&dev.gateway, &format!("/gateway/{id}/")).await.body, "2\n");
    dev.daemon.stop().await;
}

#[tokio::test]
async fn the_lines_of_a_process_are_kept_over_its_end() {
    let actor = "talker=echo first; printf '\\033[31msecond\\n' >&2; exec sleep 1000";
    // It never listens, so its start fails; what it said is what the operator needs.
    let dev = Dev::start(&["--actor", actor]).await;
    let wanted = |text: &str| text.contains("stdout first\n") && text.contains("stderr \\u{1b}[31msecond\n");
    let id = dev.actor("talker").await;
    loop {
        let logs = dev.ask("GET", &format!("/actors/{id}/logs"), "").await;
        if logs.status == 200 && wanted(&logs.body) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let last = dev.ask("GET", &format!("/actors/{id}/logs?lines=1&format=json"), "").await.json();
    assert!(last["generation"].is_u64() && last["at"].is_string(), "{last}");
    drop(dev);
}
