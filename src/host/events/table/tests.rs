use super::*;
use crate::host::KvError;

const ID: StreamId = StreamId { gateway: [1; 4], request: [2; 4] };
const STREAM: StreamKey = StreamKey { id: ID, opening: 1 };

#[test]
fn a_socket_is_open_for_its_client_when_it_is_durable() {
    let mut stage = Stage::new();
    stage.open();
    let opened = stage.take();
    assert!(matches!(&opened[..], [Effect::Tell { delivery: Delivery { event: Event::Open { .. }, attempt: 1 }, .. }]));
    stage.told(Ok(EventAnswer::reply(Outgoing::text("hello")).tag("a")));
    let stored = stage.stores();
    assert_eq!(stored.len(), 2, "the socket and its index");
    assert_eq!(stage.table.send(ID, Outgoing::text("early")), Err(SocketError::NotOpen));
    stage.table.stored(Ok(()), stage.now);
    let open = StreamReply::Open { can_hibernate: true };
    assert_eq!(stage.replies(), [open, text("hello")]);
    assert_eq!(stage.table.list(Some("a")).len(), 1);
    assert!(stage.table.list(Some("b")).is_empty());
}

#[test]
fn a_refused_socket_opens_and_closes_and_leaves_nothing() {
    let mut stage = Stage::new();
    stage.open();
    stage.take();
    stage.told(Err(EventError::refused(403, "not you")));
    let open = StreamReply::Open { can_hibernate: false };
    assert_eq!(stage.replies(), [open, closed(1008, "the actor refused the socket: 403: not you")]);
    assert_eq!(stage.table.info(ID), Err(SocketError::Unknown));
}

#[test]
fn an_open_without_an_answer_closes_before_it_opens_so_that_the_gateway_tries_again() {
    let mut stage = Stage::new();
    stage.open();
    stage.take();
    stage.told(Err(EventError::Failed("crashed".into())));
    assert_eq!(stage.replies(), [StreamReply::Close { code: Some(1011), reason: None }]);
}

#[test]
fn an_open_that_is_asked_again_is_told_once_and_answered_on_the_new_stream() {
    let mut stage = Stage::new();
    stage.open();
    stage.take();
    let again = StreamKey { opening: 2, ..STREAM };
    stage.table.detached(STREAM, stage.now);
    stage.table.opened(request(7), again);
    assert!(stage.take().is_empty());
    stage.told(Ok(EventAnswer::taken()));
    stage.take();
    stage.table.stored(Ok(()), stage.now);
    let reply = StreamReply::Open { can_hibernate: true };
    assert_eq!(stage.take(), [Effect::Reply { stream: again, reply }]);
    stage.table.frame(again, frame(8, "x"), stage.now);
    assert!(matches!(stage.message(), Some((0, 1, _))));
}

#[test]
fn frames_are_told_one_at_a_time_in_order_and_acknowledged_when_durable() {
    let mut stage = Stage::opened();
    stage.frame(1, "a");
    stage.frame(2, "b");
    assert_eq!(stage.message(), Some((0, 1, "a".into())));
    assert_eq!(stage.take(), []);
    stage.told(Ok(EventAnswer::reply(Outgoing::text("A"))));
    let effects = stage.take();
    assert!(matches!(&effects[..], [Effect::Tell { .. }, Effect::Store(_)]), "{effects:?}");
    stage.told(Ok(EventAnswer::reply(Outgoing::text("B"))));
    assert_eq!(stage.take(), [], "one write at a time");
    stage.table.stored(Ok(()), stage.now);
    let effects = stage.take();
    assert_eq!(replies_of(&effects), [text("A"), StreamReply::MessageAck { index: 1 }]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Store(_))));
    stage.table.stored(Ok(()), stage.now);
    assert_eq!(stage.replies(), [text("B"), StreamReply::MessageAck { index: 2 }]);
}

#[test]
fn a_write_that_fails_is_repeated_and_nothing_is_said_before_it_succeeds() {
    let mut stage = Stage::opened();
    stage.frame(1, "a");
    stage.take();
    stage.told(Ok(EventAnswer::reply(Outgoing::text("A"))));
    stage.take();
    for error in [KvError::Unavailable, KvError::OutcomeUnknown, KvError::TooMany, KvError::Refused("no".into())] {
        stage.table.stored(Err(error), stage.now);
        assert_eq!(stage.take(), []);
        stage.pass_until_due();
        assert_eq!(stage.stores().len(), 1);
    }
    stage.table.stored(Ok(()), stage.now);
    assert_eq!(stage.replies(), [text("A"), StreamReply::MessageAck { index: 1 }]);
}

#[test]
fn a_frame_that_is_not_taken_is_told_again_with_the_same_number_and_at_last_closes_its_socket() {
    let mut stage = Stage::opened();
    stage.frame(9, "a");
    stage.frame(10, "b");
    for attempt in 1..=10 {
        assert_eq!(stage.message(), Some((0, attempt, "a".into())));
        stage.told(Err(EventError::Failed("hangs".into())));
        if attempt < 10 {
            assert_eq!(stage.take(), []);
            stage.pass_until_due();
        }
    }
    assert_eq!(told_close(&stage.take()), None, "it is not durable yet");
    stage.table.stored(Ok(()), stage.now);
    let effects = stage.take();
    assert!(matches!(told_close(&effects), Some((1011, 1))), "{effects:?}");
    assert_eq!(replies_of(&effects), [closed(1011, "the actor did not take a message")]);
    stage.told(Ok(EventAnswer::taken()));
    assert_eq!(stage.erases(), 4);
}

#[test]
fn the_close_of_a_client_is_told_once_behind_its_frames() {
    let mut stage = Stage::opened();
    stage.frame(1, "a");
    stage.frame(2, "b");
    stage.table.frame(STREAM, Frame::Closed { code: Some(4000), reason: Some("bye".into()) }, stage.now);
    assert_eq!(stage.message(), Some((0, 1, "a".into())));
    stage.told(Ok(EventAnswer::reply(Outgoing::text("to nobody"))));
    assert_eq!(stage.message(), Some((1, 1, "b".into())));
    stage.told(Ok(EventAnswer::taken()));
    // Told now, the actor could be told a frame after the close, if the runner were killed.
    assert_eq!(told_close(&stage.take()), None);
    stage.table.stored(Ok(()), stage.now);
    assert_eq!(told_close(&stage.take()), None, "the last frame is not durable yet");
    stage.table.stored(Ok(()), stage.now);
    assert!(matches!(told_close(&stage.take()), Some((4000, 1))));
    assert_eq!(stage.table.info(ID), Err(SocketError::Unknown));
    stage.told(Err(EventError::Refused { status: 404, text: String::new() }));
    assert_eq!(stage.erases(), 4);
    assert_eq!(stage.table.poll_timeout(), None);
}

#[test]
fn a_client_that_leaves_before_its_socket_is_taken_is_told_as_closed_without_a_note() {
    let mut stage = Stage::new();
    stage.open();
    stage.take();
    stage.table.frame(STREAM, Frame::Closed { code: None, reason: None }, stage.now);
    stage.told(Ok(EventAnswer::taken()));
    assert!(matches!(told_close(&stage.take()), Some((1005, 1))));
    stage.told(Ok(EventAnswer::taken()));
    assert_eq!(stage.take(), []);
}

#[test]
fn an_answer_may_close_the_socket_behind_its_reply() {
    let mut stage = Stage::opened();
    stage.frame(1, "a");
    stage.frame(2, "b");
    stage.take();
    stage.told(Ok(EventAnswer::reply(Outgoing::text("last")).close(1000, "bye")));
    assert_eq!(told_close(&stage.take()), None);
    stage.table.stored(Ok(()), stage.now);
    let effects = stage.take();
    assert_eq!(told_close(&effects), Some((1000, 1)), "nothing more is told of it: {effects:?}");
    assert_eq!(replies_of(&effects), [text("last"), closed(1000, "bye")]);
}

#[test]
fn a_close_is_heard_and_told_when_it_is_durable() {
    let mut stage = Stage::opened();
    stage.table.close(ID, 4009, "enough", stage.now).unwrap();
    assert!(matches!(stage.take()[..], [Effect::Store(_)]));
    stage.table.stored(Ok(()), stage.now);
    let effects = stage.take();
    assert_eq!(replies_of(&effects), [closed(4009, "enough")]);
    assert_eq!(told_close(&effects), Some((4009, 1)));
    stage.told(Ok(EventAnswer::taken()));
    assert!(matches!(stage.take()[..], [Effect::Erase(_)]));
}

#[test]
fn a_new_life_goes_on_where_the_last_one_was() {
    let mut stage = Stage::opened();
    stage.frame(1, "a");
    stage.take();
    stage.told(Ok(EventAnswer::taken()));
    stage.stores();
    stage.table.stored(Ok(()), stage.now);
    let notes = stage.notes();
    let other = StreamId { gateway: [9; 4], request: [9; 4] };
    let (table, restored) = Table::restore(&notes, &[ID, other], Rules::default(), 1, stage.now);
    assert_eq!(restored, Restored { sockets: vec![(ID, 1)], unknown: vec![other] });
    assert_eq!(table.list(Some("tag")).len(), 1);
    let mut next = Stage { table, ..stage };
    next.table.reattached(STREAM);
    next.frame(2, "b");
    assert_eq!(next.message(), Some((1, 1, "b".into())));
    assert_eq!(next.table.poll_timeout(), None, "the gateway knows it");
}

#[test]
fn a_socket_that_only_the_notes_know_is_told_as_closed_unless_the_gateway_confirms_it() {
    for confirmed in [false, true] {
        let stage = Stage::opened();
        let notes = stage.notes();
        let (table, restored) = Table::restore(&notes, &[], Rules::default(), 1, stage.now);
        assert_eq!(restored.sockets, [(ID, 0)]);
        let mut stage = Stage { table, ..stage };
        stage.table.reattached(STREAM);
        if confirmed {
            stage.frame(1, "here I am");
            stage.take();
        }
        stage.pass_until_due();
        let effects = stage.take();
        if confirmed {
            assert_eq!(effects, []);
        } else {
            assert_eq!(replies_of(&effects), [closed(1000, STALE)]);
            stage.table.stored(Ok(()), stage.now);
            assert_eq!(told_close(&stage.take()), Some((1006, 1)));
        }
    }
}

#[test]
fn a_close_that_a_crash_interrupted_is_told_again_and_its_socket_is_unknown() {
    let mut stage = Stage::opened();
    stage.table.frame(STREAM, Frame::Closed { code: Some(1001), reason: None }, stage.now);
    stage.take();
    let notes = stage.notes();
    let (table, restored) = Table::restore(&notes, &[], Rules::default(), 1, stage.now);
    assert_eq!(restored, Restored::default());
    let mut stage = Stage { table, ..stage };
    assert_eq!(told_close(&stage.take()), Some((1001, 2)));
    stage.told(Ok(EventAnswer::taken()));
    assert_eq!(stage.erases(), 4);
}

#[test]
fn what_a_client_said_before_it_left_is_told_to_the_next_life_before_the_close() {
    for says_goodbye in [true, false] {
        let mut stage = Stage::opened();
        stage.frame(1, "a");
        stage.frame(2, "b");
        let goodbye = || Frame::Closed { code: Some(4001), reason: Some("bye".into()) };
        stage.table.frame(STREAM, goodbye(), stage.now);
        stage.take();
        stage.told(Ok(EventAnswer::taken()));
        stage.take();
        stage.table.stored(Ok(()), stage.now);
        stage.take();
        // The process is killed with the second frame in its hands.
        let notes = stage.notes();
        let (table, restored) = Table::restore(&notes, &[ID], Rules::default(), 1, stage.now);
        assert!(restored.unknown.is_empty());
        assert_eq!(restored.sockets.len(), 1, "the gateway is to send what was not taken");
        let mut next = Stage { table, ..stage };
        next.table.reattached(STREAM);
        assert_eq!(next.take(), [], "nothing is told before that");
        assert_eq!(next.table.send(ID, Outgoing::text("x")), Err(SocketError::Unknown));
        next.frame(2, "b");
        if says_goodbye {
            next.table.frame(STREAM, goodbye(), next.now);
        }
        assert_eq!(next.message(), Some((1, 1, "b".into())));
        next.told(Ok(EventAnswer::taken()));
        assert_eq!(told_close(&next.take()), None);
        next.table.stored(Ok(()), next.now);
        if !says_goodbye {
            next.pass_until_due();
        }
        assert_eq!(told_close(&next.take()), Some((4001, 2)));
        next.told(Ok(EventAnswer::taken()));
        assert_eq!(next.erases(), 4);
    }
}

#[test]
fn a_socket_that_the_actor_closed_is_not_told_more_in_the_next_life() {
    let mut stage = Stage::opened();
    stage.frame(1, "a");
    stage.frame(2, "b");
    stage.take();
    stage.told(Ok(EventAnswer::taken().close(1000, "bye")));
    stage.take();
    let notes = stage.notes();
    let (table, restored) = Table::restore(&notes, &[ID], Rules::default(), 1, stage.now);
    assert_eq!(restored, Restored { sockets: vec![], unknown: vec![ID] });
    let mut next = Stage { table, ..stage };
    assert_eq!(told_close(&next.take()), Some((1000, 2)));
}

#[test]
fn notes_that_cannot_be_read_are_removed_and_their_sockets_closed() {
    let notes =
        [(Note::Index.key(ID), Bytes::from_static(&[1, 0, 0])), (Note::Socket.key(ID), Bytes::from_static(b"?"))];
    let (table, restored) = Table::restore(&notes, &[ID], Rules::default(), 1, Instant::now());
    assert_eq!(restored, Restored { sockets: vec![], unknown: vec![ID] });
    let mut stage = Stage { table, ..Stage::new() };
    assert_eq!(stage.erases(), 4);
}

#[test]
fn sends_keep_behind_answers_that_wait_for_the_storage() {
    let mut stage = Stage::opened();
    stage.frame(1, "a");
    stage.take();
    stage.told(Ok(EventAnswer::reply(Outgoing::text("first"))));
    stage.take();
    assert_eq!(stage.table.broadcast(Some("tag"), &Outgoing::text("second")), Ok(1));
    assert_eq!(stage.take(), []);
    stage.table.stored(Ok(()), stage.now);
    assert_eq!(stage.replies(), [text("first"), text("second"), StreamReply::MessageAck { index: 1 }]);
    assert_eq!(stage.table.broadcast(None, &Outgoing::text("third")), Ok(1));
    assert_eq!(stage.replies(), [text("third")]);
}

#[test]
fn an_attachment_is_answered_when_durable_and_survives() {
    let mut stage = Stage::opened();
    stage.table.attach(ID, "one".into(), 1);
    stage.stores();
    stage.table.attach(ID, "two".into(), 2);
    stage.table.stored(Ok(()), stage.now);
    let effects = stage.take();
    assert!(effects.contains(&Effect::Answer { ticket: 1, result: Ok(()) }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Answer { ticket: 2, .. })));
    stage.table.stored(Ok(()), stage.now);
    assert_eq!(stage.take(), [Effect::Answer { ticket: 2, result: Ok(()) }]);
    let (table, _) = Table::restore(&stage.notes(), &[ID], Rules::default(), 1, stage.now);
    assert_eq!(table.attachment(ID), Ok("two".into()));
    stage.table.attach(StreamId { gateway: [0; 4], request: [0; 4] }, "x".into(), 3);
    assert_eq!(stage.take(), [Effect::Answer { ticket: 3, result: Err(SocketError::Unknown) }]);
}

#[test]
fn a_flush_is_answered_when_nothing_waits_any_more() {
    let mut stage = Stage::opened();
    stage.table.flush(1);
    assert_eq!(stage.take(), [Effect::Answer { ticket: 1, result: Ok(()) }]);
    stage.frame(1, "a");
    stage.take();
    stage.told(Ok(EventAnswer::taken()));
    stage.take();
    stage.table.flush(2);
    assert_eq!(stage.take(), []);
    stage.table.stored(Ok(()), stage.now);
    let answer = Effect::Answer { ticket: 2, result: Ok(()) };
    let ack = Effect::Reply { stream: STREAM, reply: StreamReply::MessageAck { index: 1 } };
    assert_eq!(stage.take(), [ack, answer]);
}

#[test]
fn a_socket_whose_actor_falls_too_far_behind_is_closed_and_nothing_grows() {
    let mut stage = Stage::opened();
    for index in 0..=WAITING_MAX {
        stage.frame(index as u16 + 1, "x");
    }
    stage.take();
    assert_eq!(stage.table.info(ID), Err(SocketError::Unknown));
    assert_eq!(stage.table.waiting_bytes, 1, "only the one that is being told");
    stage.told(Ok(EventAnswer::taken()));
    stage.take();
    // The close, and then that the frame was taken.
    stage.table.stored(Ok(()), stage.now);
    stage.take();
    stage.table.stored(Ok(()), stage.now);
    assert!(told_close(&stage.take()).is_some_and(|(code, _)| code == 1013));
    assert_eq!(stage.table.waiting_bytes, 0);
}

#[test]
fn what_a_stream_of_the_past_says_changes_nothing() {
    let mut stage = Stage::opened();
    let past = StreamKey { opening: 0, ..STREAM };
    stage.table.frame(past, frame(1, "x"), stage.now);
    stage.table.frame(past, Frame::Closed { code: None, reason: None }, stage.now);
    stage.table.detached(past, stage.now);
    assert_eq!(stage.take(), []);
    assert!(stage.table.list(None)[0].connected);
}

#[test]
fn many_sockets_share_a_write() {
    let mut stage = Stage::new();
    let stream = |n: u8| StreamKey { id: StreamId { gateway: [0; 4], request: [n; 4] }, opening: u64::from(n) };
    for n in 0..200 {
        stage.table.opened(WebSocketRequest { stream: stream(n).id, ..request(0) }, stream(n));
        stage.table.told(stream(n).id, Ok(EventAnswer::taken()), stage.now);
    }
    let mut writes = 0;
    loop {
        let effects = stage.take();
        let Some(Effect::Store(entries)) = effects.iter().find(|effect| matches!(effect, Effect::Store(_))) else {
            break;
        };
        assert!(entries.len() <= 128);
        writes += 1;
        stage.table.stored(Ok(()), stage.now);
    }
    assert!((4..=6).contains(&writes), "{writes}");
    assert!(stage.table.list(None).len() == 200);
}

struct Stage {
    table: Table,
    now: Instant,
    storage: BTreeMap<Bytes, Bytes>,
}

impl Stage {
    fn new() -> Self {
        let now = Instant::now();
        let (table, _) = Table::restore(&[], &[], Rules::default(), 1, now);
        Stage { table, now, storage: BTreeMap::new() }
    }

    fn opened() -> Self {
        let mut stage = Stage::new();
        stage.open();
        stage.take();
        stage.told(Ok(EventAnswer::taken().tag("tag")));
        stage.take();
        stage.table.stored(Ok(()), stage.now);
        assert_eq!(stage.replies(), [StreamReply::Open { can_hibernate: true }]);
        stage
    }

    fn open(&mut self) {
        self.table.opened(request(0), STREAM);
    }

    fn frame(&mut self, index: u16, text: &'static str) {
        self.table.frame(STREAM, frame(index, text), self.now);
    }

    fn told(&mut self, result: Result<EventAnswer, EventError>) {
        self.table.told(ID, result, self.now);
    }

    fn take(&mut self) -> Vec<Effect> {
        let effects: Vec<_> = std::iter::from_fn(|| self.table.poll_effect()).collect();
        for effect in &effects {
            match effect {
                Effect::Store(entries) => self.storage.extend(entries.iter().cloned()),
                Effect::Erase(keys) => self.storage.retain(|key, _| !keys.contains(key)),
                Effect::Tell { .. } | Effect::Reply { .. } | Effect::Answer { .. } => {}
            }
        }
        effects
    }

    fn notes(&self) -> Vec<(Bytes, Bytes)> {
        self.storage.clone().into_iter().collect()
    }

    fn replies(&mut self) -> Vec<StreamReply> {
        replies_of(&self.take())
    }

    fn stores(&mut self) -> Vec<Bytes> {
        let effects = self.take();
        let stored = effects.into_iter().find_map(|effect| match effect {
            Effect::Store(entries) => Some(entries.into_iter().map(|(key, _)| key).collect()),
            _ => None,
        });
        stored.expect("a write")
    }

    fn erases(&mut self) -> usize {
        loop {
            let effects = self.take();
            if let Some(Effect::Erase(keys)) = effects.iter().find(|effect| matches!(effect, Effect::Erase(_))) {
                return keys.len();
            }
            assert!(effects.iter().any(|effect| matches!(effect, Effect::Store(_))), "{effects:?}");
            self.table.stored(Ok(()), self.now);
        }
    }

    /// Number, attempt and text of the frame that is told.
    fn message(&mut self) -> Option<(u64, u32, Bytes)> {
        self.take().into_iter().find_map(|effect| match effect {
            Effect::Tell { delivery: Delivery { event: Event::Message { seq, data, .. }, attempt }, .. } => {
                Some((seq, attempt, data))
            }
            _ => None,
        })
    }

    fn pass_until_due(&mut self) {
        if let Some(due) = self.table.poll_timeout() {
            self.now = self.now.max(due);
            self.table.handle_timeout(self.now);
        }
    }
}

fn request(index: u16) -> WebSocketRequest {
    WebSocketRequest { stream: ID, path: "/room".into(), headers: Vec::new(), index }
}

fn frame(index: u16, text: &'static str) -> Frame {
    Frame::Message { data: text.into(), binary: false, index }
}

fn text(text: &'static str) -> StreamReply {
    StreamReply::Message { data: text.into(), binary: false }
}

fn closed(code: u16, reason: &'static str) -> StreamReply {
    StreamReply::Close { code: Some(code), reason: Some(reason.into()) }
}

fn replies_of(effects: &[Effect]) -> Vec<StreamReply> {
    let reply = |effect: &Effect| match effect {
        Effect::Reply { reply, .. } => Some(reply.clone()),
        Effect::Tell { .. } | Effect::Store(_) | Effect::Erase(_) | Effect::Answer { .. } => None,
    };
    effects.iter().filter_map(reply).collect()
}

/// Code and attempt of the close that is told.
fn told_close(effects: &[Effect]) -> Option<(u16, u32)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Tell { delivery: Delivery { event: Event::Close { code, .. }, attempt }, .. } => {
            Some((*code, *attempt))
        }
        _ => None,
    })
}
