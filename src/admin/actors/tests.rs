use std::time::SystemTime;

use super::*;
use crate::actor::{ActorKey, StartReason};
use crate::host::StartActor;

#[test]
fn an_actor_is_meant_by_its_id_before_anything_else() {
    let lives =
        || vec![life("abc", "one", Some("k"), true), life("abd", "abc", None, true), life("x", "two", None, false)];
    let found = |wanted: &str| find(lives(), wanted).map(|found| found.life.start.key.id.to_string());
    assert_eq!(found("abc").unwrap(), "abc");
    assert_eq!(found("k").unwrap(), "abc");
    assert_eq!(found("abd").unwrap(), "abd");
    assert_eq!(found("two").unwrap(), "x");
    assert_eq!(found("x").unwrap(), "x");
    assert_eq!(found("ab").unwrap_err().into_response().status(), StatusCode::CONFLICT);
    assert_eq!(found("nobody").unwrap_err().into_response().status(), StatusCode::NOT_FOUND);
}

#[test]
fn who_is_awake_is_meant_before_who_was() {
    let lives = vec![life("new", "counter", None, true), life("old", "counter", None, false)];
    assert_eq!(&*find(lives, "counter").unwrap().life.start.key.id, "new");
}

fn life(id: &str, name: &str, key: Option<&str>, live: bool) -> ActorLife {
    let start = StartActor {
        key: ActorKey::new(id, 1),
        name: name.into(),
        actor_key: key.map(Into::into),
        create_ts: 0,
        input: None,
        reason: StartReason::Create,
        hibernating: Vec::new(),
    };
    ActorLife {
        start: start.into(),
        state: if live { LifeState::Live(Phase::Running) } else { LifeState::Ended(Outcome::Wanted) },
        since: SystemTime::now(),
        started_at: SystemTime::now(),
        stop_reason: None,
        wish: None,
        requests: 0,
        oldest_request: None,
        sockets: 0,
        awake_because: Vec::new(),
    }
}
