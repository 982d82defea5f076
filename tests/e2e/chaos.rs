//! Sockets outlive everything below them: clients talk to actors while processes are killed, put to sleep, drained,
//! paused and cut off, in an order that the seed decides; then a checker compares what was said, told and heard.
//!
//! `CHAOS_ROUNDS` sets how often something happens, in a new order each time unless `CHAOS_SEED` repeats one:
//! `CHAOS_ROUNDS=200 cargo test --test e2e chaos`. Without either it is a short run in one order.

mod check;
#[path = "../interop/cut.rs"]
pub mod cut;
pub mod dice;
mod scene;
mod talker;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::gateway::has;
use crate::ledger::value;
use check::Check;
use dice::Dice;
use scene::{Scene, Trouble};
use talker::{Mood, Talkers, Transcript};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_outlive_everything_below_the_gateway() {
    play(&Trouble::BELOW_THE_GATEWAY, 200, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_closes_its_sockets_and_loses_nothing_that_actors_stored() {
    use Trouble::{KillActors, KillGateway, KillRunner, Sleep};
    play(&[KillGateway, KillActors, KillGateway, Sleep, KillRunner, KillGateway], 50, 6).await;
}

/// Plays every trouble of a list in a new order, again and again.
async fn play(troubles: &[Trouble], clients: usize, rounds: usize) {
    if !has("node") {
        return eprintln!("skipped: the actors are written in JavaScript, and there is no node");
    }
    let rounds = number("CHAOS_ROUNDS").map_or(rounds, |rounds| usize::try_from(rounds).expect("a small number"));
    let seed =
        number("CHAOS_SEED").unwrap_or_else(|| if number("CHAOS_ROUNDS").is_some() { rand::random() } else { SEED });
    println!("CHAOS_SEED={seed} CHAOS_ROUNDS={rounds}");
    let mut dice = Dice::new(seed);
    let mut scene = Scene::set(ACTORS, &mut dice).await;
    let mut talkers = Talkers::start(scene.authority(), &scene.actors.clone(), clients, &mut dice);
    sleep(Duration::from_secs(2)).await;
    let mut order = Vec::new();
    for round in 1..=rounds {
        if order.is_empty() {
            order = troubles.to_vec();
            dice.shuffle(&mut order);
        }
        let trouble = order.pop().expect("it was filled");
        let begin = Instant::now();
        scene.befall(trouble).await;
        println!("round {round}: {trouble:?} for {:?}", begin.elapsed());
        sleep(Duration::from_millis(dice.between(0, 3_000))).await;
    }
    let wrong = settle(&mut scene, &mut talkers).await;
    if wrong.is_empty() {
        assert_eq!(scene.close().await, Some(0), "the runner stops cleanly");
    } else {
        let kept = scene.keep();
        panic!(
            "{} wrong, CHAOS_SEED={seed}; kept in {}:\n{}",
            wrong.len(),
            kept.display(),
            wrong[..wrong.len().min(40)].join("\n")
        );
    }
}

/// Lets everything that was said be told, ends all sockets, and checks.
async fn settle(scene: &mut Scene, talkers: &mut Talkers) -> Vec<String> {
    talkers.set(Mood::Listen);
    let open = until(|| {
        let ledger = scene.ledger();
        let check = Check::new(&ledger, &[]);
        let open = talkers.transcripts().into_iter().filter(|one| one.end.is_none());
        open.filter(|one| !check.is_told_all(one)).count()
    });
    let untold = open.await;
    let answered = until(|| {
        let open = talkers.transcripts().into_iter().filter(|one| one.end.is_none());
        open.filter(|one| one.said > 0 && one.answers.last().is_none_or(|(_, seq)| seq + 1 < one.said)).count()
    });
    // The last answers may be among those that a killed runner took with it; the checker knows.
    let _ = tokio::time::timeout(Duration::from_secs(10), answered).await;
    let before = talkers.transcripts();
    let mut wrong = Vec::new();
    if untold > 0 {
        wrong.push(format!("{untold} open sockets with messages that the actor was never told"));
    }
    {
        let (ledger, happened) = (scene.ledger(), scene.happened.clone());
        let mut check = Check::new(&ledger, &happened);
        before.iter().filter(|one| one.end.is_none()).for_each(|one| check.check(one));
        wrong.append(&mut check.wrong);
    }
    // Some close while their actor sleeps.
    scene.put_to_sleep().await;
    talkers.leave().await;
    let after = talkers.transcripts();
    let begin = Instant::now();
    let mut unclosed = usize::MAX;
    while unclosed > 0 && begin.elapsed() < CLOSE_LIMIT {
        // An actor that sleeps is told when it wakes of sockets that a killed gateway has lost.
        scene.wake_all().await;
        sleep(Duration::from_millis(500)).await;
        let ledger = scene.ledger();
        let check = Check::new(&ledger, &[]);
        unclosed = after.iter().filter(|one| !check.is_told_closed(one)).count();
    }
    let (ledger, happened) = (scene.ledger(), scene.happened.clone());
    let mut check = Check::new(&ledger, &happened);
    after.iter().for_each(|one| check.check(one));
    println!("{}", check.counts);
    wrong.append(&mut check.wrong);
    wrong.extend(check_stored(scene, &after).await);
    wrong
}

/// What an actor stored before it answered is there.
async fn check_stored(scene: &Scene, transcripts: &[Transcript]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut due = BTreeMap::new();
    for one in transcripts {
        let newest = one.answers.iter().map(|(_, seq)| *seq).filter(|seq| seq.is_multiple_of(5)).max();
        if let Some(newest) = newest {
            due.insert((one.actor.clone(), one.name.clone()), newest);
        }
    }
    println!("{} values checked", due.len());
    for ((actor, name), newest) in due {
        let stored = value(scene.authority(), &actor, &name).await;
        let number = stored.as_deref().and_then(|stored| stored.parse::<u64>().ok());
        if number.is_none_or(|number| number < newest) {
            wrong.push(format!("{name}: stored up to {newest} before it was answered, found {stored:?}"));
        }
    }
    wrong
}

/// Asks until nothing is left or it has taken too long; gives what is left.
async fn until(mut left: impl FnMut() -> usize) -> usize {
    let begin = Instant::now();
    loop {
        let now = left();
        if now == 0 || begin.elapsed() > SETTLE_LIMIT {
            return now;
        }
        sleep(Duration::from_millis(250)).await;
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// The order of the short run.
const SEED: u64 = 20_261_121;

const ACTORS: usize = 8;
/// Until everything that was said was told, after the last trouble.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// Until every end was told; sockets that a gateway has lost are noticed after 30 s.
const CLOSE_LIMIT: Duration = Duration::from_secs(90);
