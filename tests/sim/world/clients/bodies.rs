//! Clients that send and read bodies on credit, some of them slowly.

use greenroom::gateway::core::{Input, StreamRef};
use greenroom::gateway::{StreamHead, StreamUp};

use super::{Kind, TRIES_MAX};
use crate::laws::Law;
use crate::world::credit::{Reading, Sending, whole};
use crate::world::{Happening, World};

/// A body of a client's request, or of the answer to it.
#[derive(Debug)]
pub struct Body {
    sending: Option<Sending>,
    reading: Option<Reading>,
    pieces: u32,
    /// Nothing breaks any more that could keep it from its end.
    pub calm: bool,
}

impl World {
    /// A request with a body. It is tried once, since nobody has kept what was sent.
    pub fn send_body(&mut self, pick: u64, pieces: u32) {
        if let Some(actor) = self.any_actor(pick) {
            self.send_body_to(actor, pieces);
        }
    }

    /// A request whose answer has a body.
    pub fn fetch_body(&mut self, pick: u64, pieces: u32) {
        if let Some(actor) = self.any_actor(pick) {
            self.fetch_body_from(actor, pieces);
        }
    }

    pub fn send_body_to(&mut self, actor: std::sync::Arc<str>, pieces: u32) {
        // The engine takes bodies whole.
        if self.gateway.is_up() && !self.conditions.engine {
            let body = Body { sending: Some(Sending::new(pieces, true)), reading: None, pieces, calm: self.calm };
            self.exchange(actor, format!("/send/{}", self.numbers + 1), body);
        }
    }

    pub fn fetch_body_from(&mut self, actor: std::sync::Arc<str>, pieces: u32) {
        if self.gateway.is_up() {
            let body = Body { sending: None, reading: Some(Reading::default()), pieces, calm: self.calm };
            self.exchange(actor, format!("/fetch/{pieces}/{}", self.numbers + 1), body);
        }
    }

    fn exchange(&mut self, actor: std::sync::Arc<str>, path: String, body: Body) {
        let number = self.new_request(&actor, false, TRIES_MAX);
        let more = body.sending.is_some();
        let method = if more { "PUT" } else { "GET" };
        let head =
            StreamHead::Request { method: method.into(), path: path.into(), headers: Vec::new(), body: None, more };
        self.open_with(actor, Kind::Ask { number }, head, Some(body));
    }

    /// Sends what there is credit for.
    pub fn send_on_credit(&mut self, stream: StreamRef) {
        let client = self.clients.streams.get_mut(&stream).filter(|client| client.opened);
        let Some(sending) = client.and_then(|client| client.body.as_mut()?.sending.as_mut()) else { return };
        let Some((body, finish)) = sending.next() else { return };
        self.tell_gateway(Input::Client { stream, up: StreamUp::Chunk { body, finish } });
        let after = self.slowly();
        self.later(after, Happening::Piece(stream));
    }

    /// The actor has taken as much as one grant is for.
    pub fn client_granted(&mut self, stream: StreamRef) {
        let client = self.clients.streams.get_mut(&stream);
        let Some(sending) = client.and_then(|client| client.body.as_mut()?.sending.as_mut()) else { return };
        let owed = sending.granted();
        self.hold(Law::EverythingIsBounded, owed, || format!("{stream:?} was granted more than was used up"));
        self.send_on_credit(stream);
    }

    /// The whole of an answer's body is there, which is how it comes from an engine.
    pub fn client_has_whole(&mut self, stream: StreamRef, bytes: usize) {
        let Some(body) = self.clients.streams.get(&stream).and_then(|client| client.body.as_ref()) else { return };
        let fits = body.reading.is_none() || bytes == whole(body.pieces);
        self.tally.bodies += 1;
        self.hold(Law::ABodyIsWhole, fits, || format!("{stream:?}: {bytes} bytes"));
    }

    /// A piece of an answer's body has come.
    pub fn client_is_sent(&mut self, stream: StreamRef, bytes: usize, finish: bool) {
        let client = self.clients.streams.get_mut(&stream);
        let Some(reading) = client.and_then(|client| client.body.as_mut()?.reading.as_mut()) else { return };
        let reads_already = reading.has_more();
        if let Err((law, what)) = reading.came(bytes, finish) {
            return self.broken(law, format!("the client of {stream:?}: {what}"));
        }
        self.tally.bodies += u64::from(finish);
        if !reads_already {
            let after = self.slowly();
            self.later(after, Happening::Read(stream));
        }
    }

    pub fn client_reads(&mut self, stream: StreamRef) {
        let client = self.clients.streams.get_mut(&stream);
        let Some(reading) = client.and_then(|client| client.body.as_mut()?.reading.as_mut()) else { return };
        let (grants, more) = (reading.read(), reading.has_more());
        if more {
            let after = self.slowly();
            self.later(after, Happening::Read(stream));
        }
        for _ in 0..grants {
            self.tell_gateway(Input::ClientTook { stream });
        }
    }
}
