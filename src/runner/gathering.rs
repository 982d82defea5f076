//! What goes out together.
//!
//! Writing is the dearest part of an answer: a system call, which also wakes whoever reads. So everybody who is about to
//! say something gets a turn before the socket is written to, but what few messages asked for is not kept waiting for
//! what others say.

use futures_util::FutureExt;
use greenroom_protocol::{MessageId, StreamId, ToClientTunnel};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::host::Call;

/// Decides whether others get a turn before the socket is written to.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    wanted: bool,
    /// How many streams were opened by what was handled last. Most are answered in their actors' next turn.
    opened: usize,
    /// Those of them that came last and are not answered yet, if few messages came.
    asked: Vec<StreamId>,
}

impl Gathering {
    /// Others may be about to answer, or to say more.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Messages are about to be handled, and what was asked before them is not waited for any more.
    pub(super) fn received(&mut self) {
        self.asked.clear();
        self.opened = 0;
    }

    /// A message is handled; `few` came with it.
    pub(super) fn handles(&mut self, id: MessageId, message: &ToClientTunnel, few: bool) {
        if message.opens() {
            self.opened += 1;
            if few {
                self.asked.push(id.stream);
            }
        }
    }

    /// Calls were taken. More may follow, unless these are all that few messages asked for.
    pub(super) fn called(&mut self, calls: &[Call]) {
        self.wanted = !self.settles(calls);
    }

    /// Gives others their turn, if that is wanted, and answers what they said: so much at most.
    pub(super) async fn gather(&mut self, calls: &mut mpsc::Receiver<Call>, most: usize) -> Vec<Call> {
        let mut taken = Vec::new();
        if !std::mem::take(&mut self.wanted) {
            return taken;
        }
        let opened = self.opened.min(most);
        let few = !self.asked.is_empty();
        // When the runtime looks for events in the midst of the others' turns it comes back to us too early.
        for _ in 0..2 {
            if few {
                self.gather_few(calls, most, &mut taken).await;
            } else {
                yield_now().await;
                let room = most - taken.len();
                // Whoever has nothing to say now is not waited for.
                let _ = calls.recv_many(&mut taken, room).now_or_never();
            }
            let missing = if few { !self.asked.is_empty() } else { taken.len() < opened };
            if !missing {
                break;
            }
        }
        taken
    }

    /// As long as others say something, and something that was asked is not answered.
    async fn gather_few(&mut self, calls: &mut mpsc::Receiver<Call>, most: usize, taken: &mut Vec<Call>) {
        while !self.asked.is_empty() && taken.len() < most {
            let before = taken.len();
            tokio::select! {
                biased;
                _ = calls.recv_many(taken, most - before) => {
                    self.settles(&taken[before..]);
                }
                () = yield_now() => break,
            }
        }
    }

    /// Whether these calls are the last of what few messages asked for.
    fn settles(&mut self, calls: &[Call]) -> bool {
        if self.asked.is_empty() {
            return false;
        }
        for call in calls {
            if let Call::Stream { stream, .. } = call {
                self.asked.retain(|asked| *asked != stream.id);
            }
        }
        self.asked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::actor::ActorKey;
    use crate::stream::{StreamKey, StreamReply};

    const MOST: usize = 32;
    const ASKED: StreamId = StreamId { gateway: *b"gate", request: *b"asks" };

    fn actor() -> ActorKey {
        ActorKey { id: "a".into(), generation: 0 }
    }

    fn answer() -> Call {
        let reply = StreamReply::Response { status: 200, headers: vec![], body: Bytes::new(), more: false };
        Call::Stream { actor: actor(), stream: StreamKey { id: ASKED, opening: 1 }, reply }
    }

    fn opening() -> ToClientTunnel {
        ToClientTunnel::WebSocketOpen { actor_id: "a".into(), path: "/".into(), headers: vec![] }
    }

    /// After one message that asks for something, and a call of somebody else.
    fn asked() -> Gathering {
        let mut gathering = Gathering::default();
        gathering.received();
        gathering.handles(MessageId { stream: ASKED, index: 0 }, &opening(), true);
        gathering.called(&[Call::Sleep(actor())]);
        gathering
    }

    /// An actor that always has something to say, and after so many times answers what was asked.
    fn talker(answers_after: usize) -> mpsc::Receiver<Call> {
        let (calls, taken) = mpsc::channel(1);
        tokio::spawn(async move {
            for number in 0.. {
                let call = if number == answers_after { answer() } else { Call::Sleep(actor()) };
                if calls.send(call).await.is_err() {
                    return;
                }
            }
        });
        taken
    }

    #[tokio::test]
    async fn what_few_asked_for_does_not_wait_for_others() {
        let taken = asked().gather(&mut talker(5), MOST).await;
        assert_eq!(taken.len(), 6);
        assert!(matches!(taken.last(), Some(Call::Stream { .. })));
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let (calls, mut taken) = mpsc::channel(1);
        assert_eq!(asked().gather(&mut taken, MOST).await.len(), 0);
        drop(calls);
        assert_eq!(asked().gather(&mut talker(usize::MAX), MOST).await.len(), MOST);
    }

    #[tokio::test]
    async fn everybody_gets_one_turn() {
        let (calls, mut taken) = mpsc::channel(MOST);
        let mut gathering = Gathering::default();
        for _ in 0..10 {
            let calls = calls.clone();
            tokio::spawn(async move { calls.send(answer()).await });
        }
        assert_eq!(gathering.gather(&mut taken, MOST).await.len(), 0);
        gathering.want();
        assert_eq!(gathering.gather(&mut taken, MOST).await.len(), 10);
        assert_eq!(gathering.gather(&mut taken, MOST).await.len(), 0);
    }

    #[tokio::test]
    async fn everybody_who_was_asked_gets_a_turn_although_the_runtime_looks_for_events() {
        let most = 200;
        let (calls, mut taken) = mpsc::channel(most);
        let mut gathering = Gathering::default();
        // More than the runtime runs in one go.
        for _ in 0..100 {
            gathering.handles(MessageId { stream: ASKED, index: 0 }, &opening(), false);
            let calls = calls.clone();
            tokio::spawn(async move { calls.send(answer()).await });
        }
        gathering.want();
        assert_eq!(gathering.gather(&mut taken, most).await.len(), 100);
    }

    #[tokio::test]
    async fn nobody_gets_a_turn_once_all_that_was_asked_is_answered() {
        let mut taken = talker(usize::MAX);
        let mut gathering = asked();
        gathering.called(&[Call::Sleep(actor()), answer()]);
        assert_eq!(gathering.gather(&mut taken, MOST).await.len(), 0);
        gathering.called(&[answer()]);
        assert_eq!(gathering.gather(&mut taken, MOST).await.len(), 1);
    }
}
