//! Random schedules against a small model of the gateway and of the hosts, with laws checked after every effect.
//!
//! The gateway of the model reads late, so that what was sent can be lost with its connection; it stores commands until
//! they are acknowledged and gives them again after a cut, as the real ones do.

mod gateway;
mod lasting;
mod world;

use proptest::prelude::*;

use greenroom::session::Features;

use crate::stage::OURS;
use world::{Step, World};

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn every_law_holds_on_every_schedule(engine in any::<bool>(), steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new(if engine { Features::default() } else { OURS });
        for step in steps {
            world.take(step);
        }
        world.settle();
    }
}

fn step() -> impl Strategy<Value = Step> {
    let actor = 0..3usize;
    prop_oneof![
        6 => (0..4000u64).prop_map(Step::Pass),
        1 => (4000..70_000u64).prop_map(Step::Pass),
        8 => Just(Step::Connect),
        2 => Just(Step::FailDial),
        3 => any::<bool>().prop_map(|polite| Step::Cut { polite }),
        1 => Just(Step::NewIdentity),
        6 => (0..8usize).prop_map(Step::GatewayReads),
        6 => (actor.clone(), any::<bool>()).prop_map(|(actor, lost)| Step::GatewayStarts { actor, lost }),
        1 => actor.clone().prop_map(|actor| Step::GatewayStartsAnOldGeneration { actor }),
        4 => actor.clone().prop_map(|actor| Step::GatewayStops { actor }),
        3 => Just(Step::GatewayRepeats),
        4 => actor.clone().prop_map(|actor| Step::GatewayAcknowledges { actor }),
        6 => (actor.clone(), 0..4u8, any::<bool>()).prop_map(|(actor, id, socket)| Step::Opens { actor, id, socket }),
        4 => (0..4u8, -1..3i32).prop_map(|(id, ahead)| Step::ClientSends { id, ahead }),
        2 => (0..4u8).prop_map(|id| Step::ClientLeaves { id }),
        6 => Just(Step::GatewayAnswersStorage),
        8 => pick().prop_map(Step::HostRuns),
        4 => (pick(), any::<bool>()).prop_map(|(pick, well)| Step::HostEnds { pick, well }),
        4 => (pick(), any::<bool>()).prop_map(|(pick, sleep)| Step::HostWishes { pick, sleep }),
        4 => (pick(), any::<bool>()).prop_map(|(pick, kill)| Step::OwnerStops { pick, kill }),
        6 => pick().prop_map(Step::HostSetsAlarm),
        8 => (pick(), any::<bool>()).prop_map(|(pick, write)| Step::HostAsksStorage { pick, write }),
        10 => (pick(), 0..6u8).prop_map(|(pick, what)| Step::HostReplies { pick, what }),
        1 => (0..20u64).prop_map(Step::Drain),
        6 => (actor, lasting()).prop_map(|(actor, id)| Step::OpensLasting { actor, id }),
        12 => lasting().prop_map(|id| Step::ClientSays { id }),
        1 => lasting().prop_map(|id| Step::LastingClientLeaves { id }),
        10 => (lasting(), any::<bool>()).prop_map(|(id, says_so)| Step::HostTakes { id, says_so }),
        4 => (lasting(), prop::bool::weighted(0.2)).prop_map(|(id, closes)| Step::HostSays { id, closes }),
    ]
}

/// Sockets that hibernate.
fn lasting() -> impl Strategy<Value = u8> {
    10..13u8
}

fn pick() -> impl Strategy<Value = prop::sample::Index> {
    any::<prop::sample::Index>()
}
