//! The laws of reports, over any patches and any failures.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

#[test]
fn nulls_are_kept_and_objects_below_are_replaced() {
    let mut patch = Patch::new().set("worker_status", "connecting").external("a", json!({"x": 1})).external("b", 1);
    patch.absorb(Patch::new().set("worker_status", "ready").external("a", json!({"y": 2})).external("b", Value::Null));
    let expected = json!({"worker_status": "ready", "external_metadata": {"a": {"y": 2}, "b": null}});
    assert_eq!(patch.to_json(), expected);
    assert_eq!(Patch::from_json(expected), Ok(patch));
}

#[test]
fn what_cannot_be_merged_is_no_patch() {
    assert_eq!(Patch::from_json(json!([])), Err(Malformed::NoObject));
    for wrong in [json!(null), json!(1), json!([])] {
        let error = Patch::from_json(json!({ "external_metadata": wrong })).unwrap_err();
        assert_eq!(error, Malformed::Metadata("external_metadata"));
    }
}

#[test]
fn a_whole_state_heals_a_receiver_that_forgot_everything() {
    let before = WorkerState::from(Patch::new().external("gone", 1).external("kept", 2));
    let after = WorkerState::from(Patch::new().set("worker_status", "ready").external("kept", 3));
    let patch = after.whole_after(&before);
    for mut receiver in [before, WorkerState::default()] {
        receiver.apply(patch.clone());
        assert_eq!(receiver, after);
    }
}

#[test]
fn a_failure_is_retried_later_with_what_came_meanwhile() {
    let now = Instant::now();
    let mut delivery = delivery();
    delivery.handle(Input::Patch(Patch::new().external("a", 1).external("b", 1)), now);
    assert_eq!(sent(&mut delivery, now), json!({"external_metadata": {"a": 1, "b": 1}}));
    delivery.handle(Input::Patch(Patch::new().external("b", 2)), now);
    delivery.handle(Input::Patch(Patch::new().external("c", 3)), now);
    assert_eq!(delivery.poll_effect(now), None);
    delivery.handle(Input::Answered(Answer::Failed), now);
    delivery.handle(Input::Patch(Patch::new().external("d", 4)), now);
    assert_eq!(delivery.poll_effect(now), None);
    let at = delivery.poll_timeout().expect("it tries again");
    assert!(at - now >= PACE.first && at - now <= PACE.first.mul_f64(1.25));
    assert_eq!(sent(&mut delivery, at), json!({"external_metadata": {"a": 1, "b": 2, "c": 3, "d": 4}}));
    delivery.handle(Input::Answered(Answer::Taken), at);
    assert_eq!((delivery.poll_effect(at), delivery.poll_timeout(), delivery.slots()), (None, None, 0));
}

#[test]
fn delays_grow_to_the_most_and_a_refusal_waits_longest() {
    let mut now = Instant::now();
    let mut delivery = delivery();
    delivery.handle(Input::Patch(Patch::new().external("a", 1)), now);
    for base in [1, 2, 4, 8, 8, 8].map(|factor| PACE.first * factor) {
        sent(&mut delivery, now);
        delivery.handle(Input::Answered(Answer::Failed), now);
        let at = delivery.poll_timeout().expect("it tries again");
        assert!(at - now >= base && at - now <= base.mul_f64(1.25), "{:?} for {base:?}", at - now);
        now = at;
    }
    sent(&mut delivery, now);
    delivery.handle(Input::Answered(Answer::Refused), now);
    assert!(delivery.poll_timeout().expect("it tries again") - now >= PACE.refused);
}

#[test]
fn the_last_state_is_sent_at_once_and_then_nothing_more() {
    let now = Instant::now();
    let mut delivery = delivery();
    delivery.handle(Input::Patch(Patch::new().external("a", 1)), now);
    sent(&mut delivery, now);
    delivery.handle(Input::Answered(Answer::Failed), now);
    delivery.handle(Input::Last(Patch::new().set("worker_status", "stopped")), now);
    delivery.handle(Input::Patch(Patch::new().set("worker_status", "ready")), now);
    let last = json!({"worker_status": "stopped", "external_metadata": {"a": 1}});
    assert_eq!(sent(&mut delivery, now), last);
    delivery.handle(Input::Answered(Answer::Taken), now);
    assert_eq!(delivery.poll_effect(now), Some(Effect::Closed));
    delivery.handle(Input::Patch(Patch::new().external("b", 1)), now);
    delivery.handle(Input::Last(Patch::new().external("b", 1)), now);
    assert_eq!((delivery.poll_effect(now), delivery.poll_timeout()), (None, None));
}

#[test]
fn actors_share_the_metadata_and_what_they_may_set_is_bounded() {
    let (one, two) = ("one".into(), "two".into());
    let object = |value: Value| value.as_object().expect("an object").clone();
    let mut metadata = ActorMetadata::default();
    assert_eq!(metadata.patch(&one, object(json!({"a": 1, "b": {"c": 1}}))), Ok(true));
    assert_eq!(metadata.patch(&two, object(json!({"a": 1}))), Ok(false));
    assert_eq!(metadata.patch(&two, object(json!({"a": 2, "b": null, "none": null}))), Ok(true));
    assert_eq!(metadata.of("one"), Map::new());
    assert_eq!(Value::Object(metadata.of("two")), json!({"a": 2}));

    let refused = metadata.patch(&one, object(json!({"ok": 1, "slots": 5})));
    assert_eq!(refused, Err(MetadataRefusal::Reserved("slots".to_owned())));
    assert_eq!(metadata.of("one"), Map::new());

    let large = |letter: &str| object(json!({ letter: "x".repeat(40 * 1024) }));
    assert_eq!(metadata.patch(&one, large("x")), Ok(true));
    assert_eq!(metadata.patch(&one, large("x")), Ok(false));
    assert!(matches!(metadata.patch(&one, large("y")), Err(MetadataRefusal::ActorFull { .. })));
    for actor in 0..24 {
        assert_eq!(metadata.patch(&format!("actor-{actor}").into(), large(&format!("k{actor}"))), Ok(true));
    }
    assert!(matches!(metadata.patch(&two, large("z")), Err(MetadataRefusal::RunnerFull { .. })));
}

/// What a test does to a delivery and its receiver.
#[derive(Clone, Debug)]
enum Step {
    Patch(Patch),
    /// The request is applied and answered.
    Take,
    /// It fails; the receiver may have applied it all the same.
    Fail {
        applied: bool,
        refused: bool,
    },
    /// The time of the next try comes.
    Wait,
}

proptest! {
    #[test]
    fn one_merged_patch_does_what_its_parts_did(patches in prop::collection::vec(patches(), 0..12), start in patches()) {
        let (mut one_by_one, mut merged) = (WorkerState::from(start.clone()), WorkerState::from(start));
        let mut all = Patch::new();
        for patch in patches {
            one_by_one.apply(patch.clone());
            all.absorb(patch);
        }
        merged.apply(all.clone());
        prop_assert_eq!(&one_by_one, &merged);
        merged.apply(all);
        prop_assert_eq!(&one_by_one, &merged);
    }

    #[test]
    fn any_failures_end_in_the_state_of_sending_each_in_order(steps in prop::collection::vec(steps(), 0..60)) {
        let mut now = Instant::now();
        let mut delivery = delivery();
        let (mut expected, mut receiver) = (WorkerState::default(), WorkerState::default());
        let mut flying: Option<Patch> = None;
        let end = [Step::Take, Step::Wait, Step::Take, Step::Wait, Step::Take];
        for step in steps.into_iter().chain(end) {
            match step {
                Step::Patch(patch) => {
                    expected.apply(patch.clone());
                    delivery.handle(Input::Patch(patch), now);
                }
                Step::Take => if let Some(patch) = flying.take() {
                    receiver.apply(patch);
                    delivery.handle(Input::Answered(Answer::Taken), now);
                },
                Step::Fail { applied, refused } => if let Some(patch) = flying.take() {
                    if applied {
                        receiver.apply(patch);
                    }
                    let answer = if refused { Answer::Refused } else { Answer::Failed };
                    delivery.handle(Input::Answered(answer), now);
                },
                Step::Wait => now = delivery.poll_timeout().unwrap_or(now),
            }
            prop_assert!(delivery.slots() <= 2);
            while let Some(effect) = delivery.poll_effect(now) {
                let Effect::Send(patch) = effect else { panic!("nobody closed it") };
                prop_assert!(flying.replace(patch).is_none(), "two in flight");
            }
            prop_assert!(delivery.slots() <= 2);
        }
        prop_assert_eq!(delivery.slots(), 0);
        prop_assert_eq!(receiver, expected);
    }

    #[test]
    fn nothing_is_sent_after_close(before in prop::collection::vec(steps(), 0..20), after in prop::collection::vec(steps(), 0..20)) {
        let mut now = Instant::now();
        let mut delivery = delivery();
        let mut play = |delivery: &mut Delivery, step| {
            match step {
                Step::Patch(patch) => delivery.handle(Input::Patch(patch), now),
                Step::Take => delivery.handle(Input::Answered(Answer::Taken), now),
                Step::Fail { .. } => delivery.handle(Input::Answered(Answer::Failed), now),
                Step::Wait => now += Duration::from_secs(3600),
            }
            delivery.poll_effect(now)
        };
        for step in before {
            play(&mut delivery, step);
        }
        delivery.handle(Input::Close, Instant::now());
        prop_assert_eq!(delivery.poll_effect(Instant::now()), Some(Effect::Closed));
        for step in after {
            prop_assert_eq!(play(&mut delivery, step), None);
            prop_assert_eq!((delivery.slots(), delivery.poll_timeout()), (0, None));
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => patches().prop_map(Step::Patch),
        2 => Just(Step::Take),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(applied, refused)| Step::Fail { applied, refused }),
        2 => Just(Step::Wait),
    ]
}

fn patches() -> impl Strategy<Value = Patch> {
    let value = prop_oneof![Just(Value::Null), (0..3).prop_map(Value::from), (0..3).prop_map(|n| json!({ "in": n }))];
    let entry = (0..3_usize, 0..3_usize, value);
    prop::collection::vec(entry, 1..4).prop_map(|entries| {
        entries.into_iter().fold(Patch::new(), |patch, (place, key, value)| {
            let key = ["a", "b", "c"][key];
            match place {
                0 => patch.set(key, value),
                1 => patch.external(key, value),
                _ => patch.internal(key, value),
            }
        })
    })
}

fn delivery() -> Delivery {
    Delivery::new(PACE, 7)
}

#[track_caller]
fn sent(delivery: &mut Delivery, now: Instant) -> Value {
    match delivery.poll_effect(now) {
        Some(Effect::Send(patch)) => patch.to_json(),
        other => panic!("nothing is sent: {other:?}"),
    }
}

const PACE: Pace =
    Pace { first: Duration::from_secs(1), most: Duration::from_secs(8), refused: Duration::from_secs(60) };
