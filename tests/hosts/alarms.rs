//! Alarms and sleep for want of work, on an actor in Rust and a storage that outlives its lives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use greenroom::actor::{ActorKey, StartReason, StopReason};
use greenroom::host::in_process::{Actor, Alarm, InProcess, Response};
use greenroom::host::{
    ActorContext, ActorHandle, AwakeReason, Call, EventError, KvError, Request, StartActor, StartError, now_ms,
    supervise,
};
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse};
use greenroom::telemetry::metrics;
use tokio::sync::mpsc;

use crate::stage::{actor, in_time};

#[tokio::test]
async fn an_alarm_is_told_with_its_data_and_then_gone() {
    let mut world = World::default();
    let life = world.start(1, |host| host).await;
    let alarms = life.handle.context().alarms();
    let due = now_ms() + 300;
    alarms.set("tick", due, None, "data").await.unwrap();
    assert_eq!(alarms.list().await.unwrap()[0].next_at, due);
    // Other tests count into the same numbers.
    assert!(metrics::runner().alarms_pending.get() >= 1);
    assert!(world.wire.lock().unwrap().contains(&Some(due)), "the gateway would wake the actor");
    let told = world.told().await;
    assert!(now_ms() >= due, "never early");
    assert_eq!((&*told.name, &told.data[..], told.attempt, told.missed), ("tick", &b"data"[..], 1, 0));
    until_none_left(&life).await;
    let counted = metrics::runner().encode(metrics::Format::Text);
    assert!(!counted.contains("\ngreenroom_alarm_lateness_seconds_count 0\n"), "{counted}");
    assert!(world.stored.lock().unwrap().is_empty());
    crate::stage::until(|| world.wire.lock().unwrap().last() == Some(&None)).await;
}

#[tokio::test]
async fn an_alarm_that_is_refused_is_told_again_later_also_by_the_next_life() {
    let mut world = World::default();
    *world.refuse.lock().unwrap() = 1;
    let mut life = world.start(1, |host| host).await;
    life.handle.context().alarms().set("tick", 0, None, "").await.unwrap();
    assert_eq!(world.told().await.attempt, 1);
    // It ends before the next try.
    life.stop(StopReason::Sleep).await;
    let woken = world.wire.lock().unwrap().last().copied().flatten().expect("the gateway is to wake it");
    assert!(woken > now_ms() - 1000 && woken < now_ms() + 3000);
    let life = world.start(2, |host| host).await;
    let told = world.told().await;
    assert_eq!(told.attempt, 2);
    assert!(now_ms() >= woken, "not at once: a crash must not become a quick loop");
    until_none_left(&life).await;
}

#[tokio::test]
async fn what_is_overdue_is_told_at_once_and_missed_periods_are_counted() {
    let mut world = World::default();
    let life = world.start(1, |host| host).await;
    let alarms = life.handle.context().alarms();
    alarms.set("once", now_ms() - 5000, None, "").await.unwrap();
    alarms.set("often", now_ms() - 5500, Some(Duration::from_secs(2)), "").await.unwrap();
    let (one, other) = (world.told().await, world.told().await);
    let (once, often) = if &*one.name == "once" { (one, other) } else { (other, one) };
    assert_eq!((&*often.name, once.missed, often.missed), ("often", 0, 2));
    let next = world.told().await;
    assert_eq!((&*next.name, next.missed), ("often", 0), "the period goes on from when it was due");
    alarms.remove("often").await.unwrap();
    until_none_left(&life).await;
}

#[tokio::test]
async fn what_fell_due_while_the_actor_slept_is_told_at_its_start() {
    let mut world = World::default();
    let mut life = world.start(1, |host| host).await;
    let due = now_ms() + 400;
    life.handle.context().alarms().set("tick", due, None, "data").await.unwrap();
    life.stop(StopReason::Sleep).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let life = world.start(2, |host| host).await;
    let told = world.told().await;
    assert_eq!((&told.data[..], told.attempt), (&b"data"[..], 1));
    until_none_left(&life).await;
}

#[tokio::test]
async fn an_actor_without_work_sleeps_unless_a_lease_or_a_near_alarm_holds_it() {
    let mut world = World::default();
    let life = world.start(1, |host| host.sleep_after(Duration::from_millis(300))).await;
    let context = life.handle.context().clone();
    context.alarms().set("far", now_ms() + 3_600_000, None, "").await.unwrap();
    let lease = context.keep_awake("upload", Duration::from_secs(60)).unwrap();
    assert!(matches!(&context.awake_because()[..], [AwakeReason::KeepAwake(name, _)] if name == "upload"));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!context.wants_to_leave());
    let armed = world.wire.lock().unwrap().len();
    drop(lease);
    assert!(matches!(context.awake_because()[..], [AwakeReason::IdleFor { .. }]));
    in_time(world.sleeps.recv()).await.expect("it asks to sleep");
    assert!(world.wire.lock().unwrap().len() > armed, "the gateway is told the alarm again before");
}

#[tokio::test]
async fn limits_of_alarms_are_told_apart() {
    use greenroom::host::AlarmError;
    let mut world = World::default();
    let life = world.start(1, |host| host).await;
    let alarms = life.handle.context().alarms();
    let far = now_ms() + 3_600_000;
    assert_eq!(alarms.set("", far, None, "").await, Err(AlarmError::BadName));
    assert_eq!(alarms.set("x", far, None, vec![0; 16_385]).await, Err(AlarmError::TooLarge(16_385)));
    assert_eq!(alarms.set("x", far, Some(Duration::ZERO), "").await, Err(AlarmError::TooOften));
    for number in 0..1000 {
        alarms.set(&number.to_string(), far, None, "").await.unwrap();
    }
    assert_eq!(alarms.set("x", far, None, "").await, Err(AlarmError::TooMany));
    alarms.set("7", far + 1, None, "").await.unwrap();
    alarms.remove("8").await.unwrap();
    alarms.set("x", far, None, "").await.unwrap();
}

/// An actor whose lives share a storage.
struct World {
    stored: Arc<Mutex<BTreeMap<Bytes, Bytes>>>,
    /// The alarms that the gateway was told.
    wire: Arc<Mutex<Vec<Option<i64>>>>,
    /// How many alarms are still to be refused.
    refuse: Arc<Mutex<u32>>,
    teller: mpsc::UnboundedSender<Alarm>,
    told: mpsc::UnboundedReceiver<Alarm>,
    sleep: mpsc::UnboundedSender<()>,
    sleeps: mpsc::UnboundedReceiver<()>,
}

struct Life {
    handle: ActorHandle,
    ended: mpsc::UnboundedReceiver<Call>,
}

struct Ringing {
    teller: mpsc::UnboundedSender<Alarm>,
    refuse: Arc<Mutex<u32>>,
}

impl Default for World {
    fn default() -> Self {
        let (teller, told) = mpsc::unbounded_channel();
        let (sleep, sleeps) = mpsc::unbounded_channel();
        World { stored: Arc::default(), wire: Arc::default(), refuse: Arc::default(), teller, told, sleep, sleeps }
    }
}

impl World {
    async fn start(&mut self, generation: u32, with: impl FnOnce(InProcess) -> InProcess) -> Life {
        let (teller, refuse) = (self.teller.clone(), self.refuse.clone());
        let host = InProcess::new(move |_: ActorContext| {
            let ringing = Ringing { teller: teller.clone(), refuse: refuse.clone() };
            async move { Ok::<_, StartError>(ringing) }
        });
        let (calls, mut inbox) = mpsc::channel(8);
        let (life, mut ended) = mpsc::unbounded_channel();
        let (stored, wire, sleep) = (self.stored.clone(), self.wire.clone(), self.sleep.clone());
        tokio::spawn(async move {
            while let Some(call) = inbox.recv().await {
                match call {
                    Call::Kv { request, reply, .. } => drop(reply.send(answer(&mut stored.lock().unwrap(), request))),
                    Call::SetAlarm(_, at) => wire.lock().unwrap().push(at),
                    Call::Sleep(_) => drop(sleep.send(())),
                    other => drop(life.send(other)),
                }
            }
        });
        let reason = if generation == 1 { StartReason::Create } else { StartReason::Wake };
        let start = StartActor { key: ActorKey::new("a1", generation), reason, ..actor("a1", generation) };
        let handle = supervise(Arc::new(with(host.alarms())), Arc::new(start), calls);
        assert!(matches!(in_time(ended.recv()).await, Some(Call::Running(_))));
        Life { handle, ended }
    }

    async fn told(&mut self) -> Alarm {
        in_time(self.told.recv()).await.expect("the actor is told")
    }
}

impl Life {
    async fn stop(&mut self, reason: StopReason) {
        self.handle.stop(reason);
        assert!(matches!(in_time(self.ended.recv()).await, Some(Call::Ended(..))));
    }
}

impl Actor for Ringing {
    async fn request(&self, _: Request) -> Response {
        Response::new(200)
    }

    async fn alarm(&self, alarm: Alarm) -> Result<(), EventError> {
        self.teller.send(alarm).unwrap();
        let mut refuse = self.refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            return Err(EventError::refused(503, "not now"));
        }
        Ok(())
    }
}

async fn until_none_left(life: &Life) {
    in_time(async {
        while !life.handle.context().alarms().list().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn answer(stored: &mut BTreeMap<Bytes, Bytes>, request: KvRequest) -> Result<KvResponse, KvError> {
    match request {
        KvRequest::Put { keys, values } => {
            stored.extend(keys.into_iter().zip(values));
            Ok(KvResponse::Put)
        }
        KvRequest::Delete { keys } => {
            stored.retain(|key, _| !keys.contains(key));
            Ok(KvResponse::Delete)
        }
        KvRequest::List { query: KvListQuery::Range { start, end, exclusive: true }, .. } => {
            let (keys, values) = stored.range(start..end).map(|(key, value)| (key.clone(), value.clone())).unzip();
            Ok(KvResponse::List { keys, values, metadata: vec![] })
        }
        other => panic!("unexpected: {other:?}"),
    }
}
