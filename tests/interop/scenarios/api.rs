//! The public API as recorded from the real engine.

use serde_json::json;

use crate::{shapes::Recorded, stage::Stage};

pub async fn answers_have_the_engines_shapes(stage: &Stage) {
    let created = Recorded::read("actors_create");
    let answer = created.ask_again(&stage.client, &[]).await;
    let mut found = created.shape_differences(&answer);
    let body = answer.json();
    let id = body["actor"]["actor_id"].as_str().unwrap_or_default();
    assert!(id.len() == 30 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()), "id: {body}");

    let today = [(Recorded::actor_id(), id.to_owned())];
    for name in ANSWERS {
        let recorded = Recorded::read(name);
        let answer = recorded.ask_again(&stage.client, &today).await;
        found.extend(recorded.shape_differences(&answer));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

pub async fn refusals_have_the_engines_status_and_code(stage: &Stage) {
    let id = stage.actor("sleep").await;
    let recorded_id = Recorded::actor_id();
    let unknown = |id: &str| format!("{}z{}", &id[..5], &id[6..]);
    let today = [(recorded_id.clone(), id.clone()), (unknown(&recorded_id), unknown(&id))];
    // There may be one already, and what the answer says is checked elsewhere.
    let namespace = json!({ "name": "second", "display_name": "Second" });
    stage.client.send("POST", "/namespaces", namespace).await.unwrap();

    let mut found = Vec::new();
    for name in REFUSALS {
        let recorded = Recorded::read(name);
        let answer = recorded.ask_again(&stage.client, &today).await;
        found.extend(recorded.refusal_differences(&answer));
    }
    let nobody = json!({ "name": "counter", "key": "k", "runner_name_selector": "nobody", "crash_policy": "sleep" });
    let refused = stage.client.send("POST", "/actors?namespace=default", nobody).await.unwrap();
    found.extend(Recorded::read("error_no_runner_config").refusal_differences(&refused));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// In the order of the recording: later ones see what earlier ones did.
const ANSWERS: &[&str] = &[
    "health",
    "namespaces_list",
    "namespaces_by_name",
    "namespaces_by_name_absent",
    "namespaces_create",
    "runners_list",
    "runners_by_name",
    "runners_names",
    "runner_configs_list",
    "runner_configs_by_name",
    "runner_configs_put",
    "runner_configs_put_again",
    "runner_configs_list_after_put",
    "runner_configs_delete",
    "runner_configs_delete_again",
    "actors_create_without_key",
    "actors_get_or_create_created",
    "actors_get_or_create_existing",
    "actors_by_ids",
    "actors_by_id",
    "actors_by_key",
    "actors_by_key_absent",
    "actors_by_name",
    "actors_by_name_limit",
    "actors_names",
    "actors_delete",
    "actors_delete_again",
    "actors_by_ids_destroyed",
    "actors_by_key_destroyed",
    "actors_include_destroyed",
];

const REFUSALS: &[&str] = &[
    "error_unknown_route",
    "error_wrong_method",
    "error_namespace_not_unique",
    "error_namespace_bad_name",
    "error_namespace_missing_field",
    "error_empty_key",
    "error_key_too_large",
    "error_get_or_create_without_key",
    "error_missing_namespace_parameter",
    "error_list_without_name",
    "error_list_name_and_ids",
    "error_unknown_query_field",
    "error_bad_actor_id_in_query",
    "error_gateway_query_get_absent",
    "error_gateway_query_missing_pool",
    "error_gateway_query_invalid",
    "error_gateway_query_unknown_namespace",
    "error_gateway_by_header_other_path",
    "error_gateway_double_slash",
    "error_gateway_empty_token",
    "error_gateway_unknown_actor",
    "error_kv_key_not_found",
    "error_kv_unknown_actor",
    "error_body_not_json",
    "error_missing_content_type",
    "error_missing_fields",
    "error_unknown_body_field",
    "error_bad_crash_policy",
    "error_unknown_namespace_create",
    "error_unknown_namespace_list",
    "error_unknown_namespace_runners",
    "error_delete_unknown_actor",
    "error_delete_unparsable_id",
    "error_delete_in_wrong_namespace",
    "error_runner_config_unknown_datacenter",
];
