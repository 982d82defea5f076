//! The hot path: requests, responses and socket frames. Alike in all versions.

use super::{EncodeError, write_map};
use crate::bare::{Decoder, Sink};
use crate::{DecodeError, Headers, MessageId, StreamId, ToClientTunnel, ToServerTunnel};

#[inline]
pub(super) fn write_id<S: Sink>(id: &MessageId, out: &mut S) {
    write_stream(&id.stream, out);
    out.u16(id.index);
}

#[inline]
pub(super) fn read_id(from: &mut Decoder) -> Result<MessageId, DecodeError> {
    Ok(MessageId { stream: read_stream(from)?, index: from.u16()? })
}

#[inline]
pub(super) fn write_stream<S: Sink>(stream: &StreamId, out: &mut S) {
    out.raw(&stream.gateway);
    out.raw(&stream.request);
}

#[inline]
pub(super) fn read_stream(from: &mut Decoder) -> Result<StreamId, DecodeError> {
    Ok(StreamId { gateway: from.array()?, request: from.array()? })
}

#[inline]
pub(super) fn write_to_server<S: Sink>(message: &ToServerTunnel, out: &mut S) -> Result<(), EncodeError> {
    match message {
        ToServerTunnel::ResponseStart { status, headers, body, stream } => {
            out.byte(RESPONSE_START);
            out.u16(*status);
            write_headers(headers, out)?;
            out.optional(body.as_ref(), |out, body| out.data(body));
            out.bool(*stream);
        }
        ToServerTunnel::ResponseChunk { body, finish } => {
            out.byte(RESPONSE_CHUNK);
            out.data(body);
            out.bool(*finish);
        }
        ToServerTunnel::ResponseAbort => out.byte(RESPONSE_ABORT),
        ToServerTunnel::WebSocketOpen { can_hibernate } => {
            out.byte(OPENED);
            out.bool(*can_hibernate);
        }
        ToServerTunnel::WebSocketMessage { data, binary } => {
            out.byte(MESSAGE);
            out.data(data);
            out.bool(*binary);
        }
        ToServerTunnel::WebSocketMessageAck { index } => {
            out.byte(MESSAGE_ACK);
            out.u16(*index);
        }
        ToServerTunnel::WebSocketClose { code, reason, hibernate } => {
            out.byte(CLOSE_TO_SERVER);
            out.optional(*code, S::u16);
            out.optional(reason.as_ref(), |out, reason| out.text(reason));
            out.bool(*hibernate);
        }
    }
    Ok(())
}

#[inline]
pub(super) fn read_to_server(from: &mut Decoder) -> Result<ToServerTunnel, DecodeError> {
    let tag = from.tag()?;
    Ok(match tag.value {
        RESPONSE_START => ToServerTunnel::ResponseStart {
            status: from.u16()?,
            headers: read_headers(from)?,
            body: from.optional(Decoder::data)?,
            stream: from.bool()?,
        },
        RESPONSE_CHUNK => ToServerTunnel::ResponseChunk { body: from.data()?, finish: from.bool()? },
        RESPONSE_ABORT => ToServerTunnel::ResponseAbort,
        OPENED => ToServerTunnel::WebSocketOpen { can_hibernate: from.bool()? },
        MESSAGE => ToServerTunnel::WebSocketMessage { data: from.data()?, binary: from.bool()? },
        MESSAGE_ACK => ToServerTunnel::WebSocketMessageAck { index: from.u16()? },
        CLOSE_TO_SERVER => ToServerTunnel::WebSocketClose {
            code: from.optional(Decoder::u16)?,
            reason: from.optional(Decoder::text)?,
            hibernate: from.bool()?,
        },
        _ => return Err(tag.unknown("no tunnel message to a gateway has this tag")),
    })
}

#[inline]
pub(super) fn write_to_client<S: Sink>(message: &ToClientTunnel, out: &mut S) -> Result<(), EncodeError> {
    match message {
        ToClientTunnel::RequestStart { actor_id, method, path, headers, body, stream } => {
            out.byte(REQUEST_START);
            out.text(actor_id);
            out.text(method);
            out.text(path);
            write_headers(headers, out)?;
            out.optional(body.as_ref(), |out, body| out.data(body));
            out.bool(*stream);
        }
        ToClientTunnel::RequestChunk { body, finish } => {
            out.byte(REQUEST_CHUNK);
            out.data(body);
            out.bool(*finish);
        }
        ToClientTunnel::RequestAbort => out.byte(REQUEST_ABORT),
        ToClientTunnel::WebSocketOpen { actor_id, path, headers } => {
            out.byte(OPEN);
            out.text(actor_id);
            out.text(path);
            write_headers(headers, out)?;
        }
        ToClientTunnel::WebSocketMessage { data, binary } => {
            out.byte(MESSAGE);
            out.data(data);
            out.bool(*binary);
        }
        ToClientTunnel::WebSocketClose { code, reason } => {
            out.byte(CLOSE_TO_CLIENT);
            out.optional(*code, S::u16);
            out.optional(reason.as_ref(), |out, reason| out.text(reason));
        }
    }
    Ok(())
}

#[inline]
pub(super) fn read_to_client(from: &mut Decoder) -> Result<ToClientTunnel, DecodeError> {
    let tag = from.tag()?;
    Ok(match tag.value {
        REQUEST_START => ToClientTunnel::RequestStart {
            actor_id: from.text()?,
            method: from.text()?,
            path: from.text()?,
            headers: read_headers(from)?,
            body: from.optional(Decoder::data)?,
            stream: from.bool()?,
        },
        REQUEST_CHUNK => ToClientTunnel::RequestChunk { body: from.data()?, finish: from.bool()? },
        REQUEST_ABORT => ToClientTunnel::RequestAbort,
        OPEN => {
            ToClientTunnel::WebSocketOpen { actor_id: from.text()?, path: from.text()?, headers: read_headers(from)? }
        }
        MESSAGE => ToClientTunnel::WebSocketMessage { data: from.data()?, binary: from.bool()? },
        CLOSE_TO_CLIENT => {
            ToClientTunnel::WebSocketClose { code: from.optional(Decoder::u16)?, reason: from.optional(Decoder::text)? }
        }
        _ => return Err(tag.unknown("no tunnel message to a runner has this tag")),
    })
}

fn write_headers<S: Sink>(headers: &Headers, out: &mut S) -> Result<(), EncodeError> {
    write_map("a header name", headers, out, |value, out| out.text(value))
}

fn read_headers(from: &mut Decoder) -> Result<Headers, DecodeError> {
    from.map(Decoder::text)
}

const RESPONSE_START: u8 = 0;
const RESPONSE_CHUNK: u8 = 1;
const RESPONSE_ABORT: u8 = 2;
const OPENED: u8 = 3;
const MESSAGE_ACK: u8 = 5;
const CLOSE_TO_SERVER: u8 = 6;

const REQUEST_START: u8 = 0;
const REQUEST_CHUNK: u8 = 1;
const REQUEST_ABORT: u8 = 2;
const OPEN: u8 = 3;
const CLOSE_TO_CLIENT: u8 = 5;

/// The same in both directions.
const MESSAGE: u8 = 4;

/// The bytes of a stream id.
pub(super) const STREAM_LEN: usize = 4 + 4;
