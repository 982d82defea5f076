//! A token is one life of one actor: with it an actor is itself, whatever it asks for.

use super::DENIED;
use super::stage::{Plan, Stage};

#[tokio::test]
async fn an_actor_has_no_way_to_the_storage_alarms_sockets_or_calls_of_another() {
    let stage = Stage::of(Plan { a: "egress = [\"llm\"]", ..Plan::default() }).await;
    let of = async |who: &str, call: &str| stage.eval(who, call).await;
    for who in ["a", "b"] {
        assert_eq!(of(who, &format!("api('PUT', '/v1/kv/own', body=b'of {who}')[0]")).await, "204");
        let alarm = format!("api('PUT', '/v1/alarms/{who}', body=b'{{\"in_ms\": 600000}}')[0]");
        assert_eq!(of(who, &alarm).await, "204");
    }
    assert_eq!(of("a", "api('PUT', '/v1/kv/secret', body=b'x')[0]").await, "204");
    // Each sees its own under the same names, and none of the other's under any.
    for (who, other, own_keys) in [("a", "b", 2), ("b", "a", 1)] {
        assert_eq!(of(who, "api('GET', '/v1/kv/own')").await, format!("(200, 'of {who}')"));
        assert_eq!(of(who, "api('GET', '/v1/kv')[1].count('update_ts')").await, own_keys.to_string());
        let alarms = of(who, "api('GET', '/v1/alarms')[1]").await;
        assert!(alarms.contains(&format!("\"{who}\"")) && !alarms.contains(&format!("\"{other}\"")), "{alarms}");
        assert!(!of(who, "api('GET', '/v1/actor')[1]").await.contains(&format!("\"name\":\"{other}\"")));
    }
    assert_eq!(of("b", "api('GET', '/v1/kv/secret')[0]").await, "404");
    assert_eq!(of("b", "api('DELETE', '/v1/alarms/a')[0]").await, of("b", "api('DELETE', '/v1/alarms/none')[0]").await);
    assert!(of("a", "api('GET', '/v1/alarms')[1]").await.contains("\"a\""), "its alarm is still there");
    assert_ne!(of("a", "api('GET', '/v1/egress/llm/x')[0]").await, "403");
    assert_eq!(of("b", "api('GET', '/v1/egress/llm/x')[0]").await, "403");

    // Who knows where another's token is cannot read it, and what is none opens nothing.
    let place = of("b", "os.environ['ACTOR_TOKEN_FILE']").await;
    assert_eq!(of("a", &format!("api('GET', '/v1/kv/own', open({place:?}).read())")).await, DENIED);
    let key = of("a", "token()[:-1] + ('x' if token()[-1] != 'x' else 'y')").await;
    for (method, path) in ROUTES {
        let call = format!("api({method:?}, {path:?}, {key:?}, b'{{}}')[0]");
        assert_eq!(of("a", &call).await, "401", "{method} {path}");
    }

    // The token of a life that is over opens nothing either, for the next life of the same actor.
    let key = of("a", "token()").await;
    let generation = of("a", "os.environ['ACTOR_GENERATION']").await;
    of("a", "api('POST', '/v1/sleep')[0]").await;
    while of("a", "os.environ['ACTOR_GENERATION']").await == generation {}
    for (method, path) in ROUTES {
        let call = format!("api({method:?}, {path:?}, {key:?}, b'{{}}')[0]");
        assert_eq!(of("a", &call).await, "410", "{method} {path}");
    }
    assert_eq!(of("a", "api('GET', '/v1/kv/own')").await, "(200, 'of a')");
    stage.daemon.stop().await;
}

/// What a token opens.
const ROUTES: [(&str, &str); 19] = [
    ("GET", "/v1/actor"),
    ("GET", "/v1/input"),
    ("GET", "/v1/kv/own"),
    ("PUT", "/v1/kv/own"),
    ("DELETE", "/v1/kv/own"),
    ("GET", "/v1/kv"),
    ("DELETE", "/v1/kv"),
    ("POST", "/v1/kv:batch"),
    ("GET", "/v1/alarms"),
    ("PUT", "/v1/alarms/a"),
    ("DELETE", "/v1/alarms/a"),
    ("PUT", "/v1/keep-awake/x"),
    ("GET", "/v1/ws"),
    ("POST", "/v1/ws:broadcast"),
    ("GET", "/v1/egress/llm/x"),
    ("PATCH", "/v1/metadata"),
    ("GET", "/v1/next"),
    ("POST", "/v1/sleep"),
    ("POST", "/v1/destroy"),
];
