use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set {
        name: u8,
        delay: i64,
        every_ms: Option<u64>,
    },
    Remove(u8),
    /// Time goes on; a negative step is a clock that was set back.
    Pass(i64),
    /// The oldest telling under way is answered.
    Answer {
        taken: bool,
    },
    /// The life ends and another one begins with what was noted.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3u8, -500..3000i64, proptest::option::of(1..2000u64))
            .prop_map(|(name, delay, every_ms)| Step::Set { name, delay, every_ms }),
        1 => (0..3u8).prop_map(Step::Remove),
        4 => (1..4000i64).prop_map(Step::Pass),
        1 => (-5000..0i64).prop_map(Step::Pass),
        4 => any::<bool>().prop_map(|taken| Step::Answer { taken }),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #[test]
    fn no_alarm_is_early_lost_doubled_or_told_again_at_once(steps in vec(step(), 1..60)) {
        let mut now = 1_000_000;
        let mut schedule = Schedule::default();
        let mut noted: BTreeMap<String, Alarm> = BTreeMap::new();
        let mut under_way: Vec<Due> = Vec::new();
        for step in steps {
            match step {
                Step::Set { name, delay, every_ms } => {
                    let alarm = Alarm::new(now + delay, every_ms, Bytes::new());
                    noted.insert(name.to_string(), alarm.clone());
                    schedule.set(name.to_string(), alarm);
                }
                Step::Remove(name) => {
                    noted.remove(&name.to_string());
                    schedule.remove(&name.to_string());
                }
                Step::Pass(ms) => {
                    now += ms;
                    if ms < 0 {
                        schedule.clock_set_back(now);
                        noted = schedule.iter().map(|(name, alarm)| (name.to_owned(), alarm.clone())).collect();
                    }
                }
                Step::Answer { taken } => if !under_way.is_empty() {
                    let due = under_way.remove(0);
                    let before = noted.get(&due.name).cloned();
                    match schedule.told(&due, taken, now) {
                        Change::Remove => {
                            prop_assert!(taken && due.noted.every_ms.is_none());
                            noted.remove(&due.name);
                        }
                        Change::Put(alarm) => {
                            if taken {
                                let period = i64::try_from(alarm.every_ms.unwrap()).unwrap();
                                prop_assert_eq!(alarm.at, due.noted.at + period * (i64::from(due.missed) + 1));
                                prop_assert_eq!((alarm.attempt, alarm.next), (0, alarm.at));
                            } else {
                                prop_assert!(alarm.next > now && alarm.attempt == due.attempt);
                            }
                            noted.insert(due.name, alarm);
                        }
                        Change::None => prop_assert_eq!(noted.get(&due.name), before.as_ref()),
                    }
                },
                Step::Crash => {
                    under_way.clear();
                    schedule = Schedule::new(noted.clone());
                }
            }
            let busy: BTreeSet<String> = under_way.iter().map(|due| due.name.clone()).collect();
            for due in schedule.due(now, |name| busy.contains(name), 2) {
                let alarm = noted[&due.name].clone();
                prop_assert!(alarm.next <= now, "never early");
                prop_assert_eq!(due.attempt, alarm.attempt + 1);
                prop_assert!(schedule.begin(&due));
                noted.insert(due.name.clone(), due.noted.clone());
                under_way.push(due);
            }
            let names: BTreeSet<_> = under_way.iter().map(|due| &due.name).collect();
            prop_assert_eq!(names.len(), under_way.len(), "one telling per name");
            // The wire wakes the actor for whatever is left, and never at once for what is being told.
            prop_assert_eq!(schedule.next(), schedule.iter().map(|(_, alarm)| alarm.next).min());
            prop_assert!(schedule.iter().map(|(name, _)| name.to_owned()).eq(noted.keys().cloned()), "none lost");
        }
    }
}

#[test]
fn periods_that_passed_unnoticed_come_as_one_telling_with_their_count() {
    let mut schedule = Schedule::default();
    schedule.set("tick".into(), Alarm::new(1000, Some(100), Bytes::new()));
    let due = only(&schedule, 1350);
    assert_eq!((due.attempt, due.missed), (1, 3));
    assert!(schedule.begin(&due));
    let Change::Put(alarm) = schedule.told(&due, true, 1360) else { panic!("it repeats") };
    assert_eq!((alarm.at, alarm.next), (1400, 1400));
    assert_eq!(schedule.due(1399, |_| false, 9), []);
    assert_eq!(only(&schedule, 1400).missed, 0);
}

#[test]
fn pauses_between_tries_double_from_two_seconds_to_an_hour() {
    let pauses: Vec<i64> = (1..=14).map(pause_ms).collect();
    assert_eq!(pauses[..4], [2000, 4000, 8000, 16_000]);
    assert_eq!(pauses[12..], [3_600_000, 3_600_000]);
    assert_eq!(pause_ms(u32::MAX), 3_600_000);
}

#[test]
fn an_alarm_set_again_by_its_own_handler_stays() {
    let mut schedule = Schedule::default();
    schedule.set("tick".into(), Alarm::new(0, None, Bytes::new()));
    let due = only(&schedule, 10);
    assert!(schedule.begin(&due));
    schedule.set("tick".into(), Alarm::new(500, None, Bytes::new()));
    assert_eq!(schedule.told(&due, true, 20), Change::None);
    assert_eq!(schedule.next(), Some(500));
}

#[test]
fn tries_go_on_counting_in_the_next_life_and_wait_their_time() {
    let mut schedule = Schedule::default();
    schedule.set("tick".into(), Alarm::new(0, None, "data".into()));
    let due = only(&schedule, 10);
    let mut next_life = Schedule::new([("tick".to_owned(), due.noted)]);
    assert_eq!(next_life.next(), Some(2010));
    assert_eq!(next_life.due(2009, |_| false, 9), []);
    let due = only(&next_life, 2010);
    assert_eq!((due.attempt, &due.data[..]), (2, &b"data"[..]));
    // A clock that was set back by a day does not put the next try off by a day.
    assert!(next_life.begin(&due));
    next_life.told(&due, false, 3000);
    next_life.clock_set_back(-86_400_000);
    assert_eq!(next_life.next(), Some(-86_400_000 + 4000));
}

#[test]
fn the_longest_due_come_first_when_not_all_can() {
    let alarms = [("a", 30), ("b", 10), ("c", 20)];
    let schedule = Schedule::new(alarms.map(|(name, at)| (name.to_owned(), Alarm::new(at, None, Bytes::new()))));
    let names: Vec<_> = schedule.due(100, |_| false, 2).into_iter().map(|due| due.name).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(schedule.next_due(|name| name == "b"), Some(20));
}

fn only(schedule: &Schedule, now: i64) -> Due {
    let mut due = schedule.due(now, |_| false, 9);
    assert_eq!(due.len(), 1);
    due.remove(0)
}
