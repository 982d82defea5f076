//! Everything that can be killed, paused or cut off is, in an order that the seed decides, while clients write and set
//! alarms; then what was acknowledged is compared with what is stored and with what actors put down.
//!
//! `GREENROOM_KILLS` sets how often something happens, in a new order each time unless `STORM_SEED` repeats one:
//! `GREENROOM_KILLS=200 cargo test --test e2e storm`. Without either it is a short run in one order.

mod load;
mod scene;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::actor::now_ms;
use crate::chaos::dice::Dice;
use crate::gateway::has;
use crate::ledger::{actors, content, value};
use load::{Acknowledged, Load};
use scene::{Scene, Trouble};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_whatever_is_killed_paused_or_cut_off() {
    if !has("node") {
        return eprintln!("skipped: the actors are written in JavaScript, and there is no node");
    }
    let kills = number("GREENROOM_KILLS");
    let rounds = kills.unwrap_or(ROUNDS);
    let seed = number("STORM_SEED").unwrap_or_else(|| if kills.is_some() { rand::random() } else { SEED });
    println!("STORM_SEED={seed} GREENROOM_KILLS={rounds}");
    let mut dice = Dice::new(seed);
    let mut scene = Scene::set(&mut dice).await;
    let mut ledger = Acknowledged::default();
    let mut order = Vec::new();
    let mut wrong = Vec::new();
    let mut round = 0;
    while round < rounds && wrong.is_empty() {
        let load = Load::start(&scene, ledger, &mut dice);
        for _ in 0..ROUNDS_BETWEEN_CHECKS.min(rounds - round) {
            round += 1;
            if order.is_empty() {
                order = Trouble::ALL.to_vec();
                dice.shuffle(&mut order);
            }
            let trouble = order.pop().expect("it was filled");
            let begin = Instant::now();
            scene.befall(trouble).await;
            println!("round {round}: {trouble:?} for {:?}", begin.elapsed());
            sleep(Duration::from_millis(dice.between(0, 1_000))).await;
        }
        // Whoever is there serves again before anything is counted.
        scene.calm().await;
        let calm = Instant::now();
        wrong.extend(scene.unreachable().await);
        ledger = load.over().await;
        println!("served again after {:?}; {ledger}", calm.elapsed());
        wrong.extend(check(&scene, &ledger).await);
    }
    let errors = scene.errors();
    assert!(errors.is_empty(), "{errors:#?}");
    if wrong.is_empty() {
        assert_eq!(scene.close().await, (Some(0), Some(0)), "runner and gateway stop cleanly");
    } else {
        let kept = scene.keep();
        let shown = wrong[..wrong.len().min(40)].join("\n");
        panic!("{} wrong, STORM_SEED={seed}; kept in {}:\n{shown}", wrong.len(), kept.display());
    }
}

/// What was acknowledged holds.
async fn check(scene: &Scene, ledger: &Acknowledged) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((actor, key), written) in &ledger.values {
        let stored = value(scene.authority(), actor, key).await;
        let number = stored.as_deref().and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        if !(written.acknowledged..=written.sent).contains(&number)
            || stored.as_deref().is_some_and(|text| text != content(number))
        {
            let found = stored.as_deref().map(|text| &text[..text.len().min(20)]);
            wrong.push(format!("{actor} {key}: {written:?}, found {found:?}"));
        }
    }
    let ids: Vec<&String> = ledger.created.iter().collect();
    for ids in ids.chunks(32) {
        let shown = actors(scene.authority(), ids).await;
        let lost = ids.iter().filter(|id| shown.get(**id).is_none_or(|actor| !actor["destroy_ts"].is_null()));
        wrong.extend(lost.map(|id| format!("the acknowledged actor {id} is gone")));
    }
    // Told once it is due, or again when the one that was told had no time to say so.
    let missing = async {
        loop {
            let missing = ledger.alarms_not_told(&scene.alarms_told());
            if missing.is_empty() {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let begin = Instant::now();
    if timeout(ALARM_LIMIT, missing).await.is_err() {
        let told = scene.alarms_told();
        for (actor, name, due) in ledger.alarms_not_told(&told) {
            let late = now_ms() - due;
            wrong.push(format!("{actor}: the alarm {name}, due {late} ms ago, was never told"));
        }
    }
    println!("all alarms were told after {:?}", begin.elapsed());
    for told in scene.alarms_told() {
        if let Some(due) = told.due()
            && told.at < due
        {
            wrong.push(format!("{}: the alarm {} was told {} ms early", told.actor, told.name, due - told.at));
        }
    }
    wrong
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// The order of the short run.
const SEED: u64 = 20_261_121;
/// How often something happens in the short run.
const ROUNDS: u64 = 20;
const ROUNDS_BETWEEN_CHECKS: u64 = 10;
/// An alarm whose actor fell over while it was told comes again after 2, 4, 8, 16, … seconds.
const ALARM_LIMIT: Duration = Duration::from_secs(90);
