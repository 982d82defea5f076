//! What a runner says, but for key-value requests and the tunnel.

use super::{CHECKPOINT_LEN, EncodeError, Message, kv, tunnel};
use super::{read_checkpoint, read_checkpoints, write_checkpoint, write_checkpoints, write_list, write_map};
use crate::bare::{Decoder, Sink};
use crate::{ActorName, Checkpoint, DecodeError, Event, EventWrapper, Init, ToServer, Version};

impl Message for ToServer {
    #[inline]
    fn write<S: Sink>(&self, version: Version, out: &mut S) -> Result<(), EncodeError> {
        match self {
            ToServer::Init(init) => {
                out.byte(INIT);
                write_init(init, out)
            }
            ToServer::Events(events) => {
                out.byte(EVENTS);
                write_list(events, out, |event, out| {
                    write_event(event, version, out);
                    Ok(())
                })
            }
            ToServer::AckCommands(checkpoints) => {
                out.byte(ACK_COMMANDS);
                write_checkpoints(checkpoints, version, out)
            }
            ToServer::Stopping => {
                out.byte(STOPPING);
                Ok(())
            }
            ToServer::Pong { ts } => {
                out.byte(PONG);
                out.i64(*ts);
                Ok(())
            }
            ToServer::Kv { actor_id, request_id, request } => {
                out.byte(KV);
                out.text(actor_id);
                out.u32(*request_id);
                kv::write_request(request, version, out)
            }
            ToServer::Tunnel { id, message } => {
                out.byte(TUNNEL);
                tunnel::write_id(id, out);
                tunnel::write_to_server(message, out)
            }
        }
    }
}

#[inline]
pub(super) fn read(from: &mut Decoder, version: Version) -> Result<ToServer, DecodeError> {
    let tag = from.tag()?;
    Ok(match tag.value {
        INIT => ToServer::Init(read_init(from)?),
        EVENTS => ToServer::Events(from.list(EVENT_LEN, |from| read_event(from, version))?),
        ACK_COMMANDS => ToServer::AckCommands(read_checkpoints(from, version)?),
        STOPPING => ToServer::Stopping,
        PONG => ToServer::Pong { ts: from.i64()? },
        KV => {
            ToServer::Kv { actor_id: from.text()?, request_id: from.u32()?, request: kv::read_request(from, version)? }
        }
        TUNNEL => ToServer::Tunnel { id: tunnel::read_id(from)?, message: tunnel::read_to_server(from)? },
        _ => return Err(tag.unknown("no message to a gateway has this tag")),
    })
}

fn write_init<S: Sink>(init: &Init, out: &mut S) -> Result<(), EncodeError> {
    out.text(&init.name);
    out.u32(init.version);
    out.u32(init.total_slots);
    out.bool(init.prepopulate_actor_names.is_some());
    if let Some(names) = &init.prepopulate_actor_names {
        write_map("an actor name", names, out, |name, out| out.text(&name.metadata))?;
    }
    out.optional(init.metadata.as_ref(), |out, metadata| out.text(metadata));
    Ok(())
}

fn read_init(from: &mut Decoder) -> Result<Init, DecodeError> {
    Ok(Init {
        name: from.text()?,
        version: from.u32()?,
        total_slots: from.u32()?,
        prepopulate_actor_names: from.optional(|from| from.map(|from| Ok(ActorName { metadata: from.text()? })))?,
        metadata: from.optional(Decoder::text)?,
    })
}

fn write_event<S: Sink>(event: &EventWrapper, version: Version, out: &mut S) {
    let EventWrapper { checkpoint, event } = event;
    write_checkpoint(checkpoint, version, out);
    match event {
        Event::SleepIntent => {
            write_event_tag(INTENT, checkpoint, version, out);
            out.byte(INTENT_SLEEP);
        }
        Event::StopIntent => {
            write_event_tag(INTENT, checkpoint, version, out);
            out.byte(INTENT_STOP);
        }
        Event::Running => {
            write_event_tag(STATE, checkpoint, version, out);
            out.byte(STATE_RUNNING);
        }
        Event::StoppedOk { message } => {
            write_event_tag(STATE, checkpoint, version, out);
            out.byte(STATE_STOPPED);
            out.byte(STOP_OK);
            out.optional(message.as_ref(), |out, message| out.text(message));
        }
        Event::StoppedError { message } => {
            write_event_tag(STATE, checkpoint, version, out);
            out.byte(STATE_STOPPED);
            out.byte(STOP_ERROR);
            out.optional(message.as_ref(), |out, message| out.text(message));
        }
        Event::SetAlarm { at } => {
            write_event_tag(ALARM, checkpoint, version, out);
            out.optional(*at, S::i64);
        }
    }
}

/// Version 4 names the actor again in every event, there with its generation.
fn write_event_tag<S: Sink>(tag: u8, checkpoint: &Checkpoint, version: Version, out: &mut S) {
    out.byte(tag);
    if version == Version::V4 {
        out.text(&checkpoint.actor_id);
        out.u32(checkpoint.generation);
    }
}

fn read_event(from: &mut Decoder, version: Version) -> Result<EventWrapper, DecodeError> {
    let mut checkpoint = read_checkpoint(from, version)?;
    let tag = from.tag()?;
    if tag.value > ALARM {
        return Err(tag.unknown("no event has this tag"));
    }
    if version == Version::V4 {
        let place = from.refuse("an event names another actor than its checkpoint");
        if from.text()? != checkpoint.actor_id {
            return Err(place);
        }
        checkpoint.generation = from.u32()?;
    }
    let event = match tag.value {
        INTENT => read_intent(from)?,
        STATE => read_state(from)?,
        _ => Event::SetAlarm { at: from.optional(Decoder::i64)? },
    };
    Ok(EventWrapper { checkpoint, event })
}

fn read_intent(from: &mut Decoder) -> Result<Event, DecodeError> {
    let tag = from.tag()?;
    match tag.value {
        INTENT_SLEEP => Ok(Event::SleepIntent),
        INTENT_STOP => Ok(Event::StopIntent),
        _ => Err(tag.unknown("no actor intent has this tag")),
    }
}

fn read_state(from: &mut Decoder) -> Result<Event, DecodeError> {
    let tag = from.tag()?;
    match tag.value {
        STATE_RUNNING => Ok(Event::Running),
        STATE_STOPPED => {
            let code = from.tag()?;
            match code.value {
                STOP_OK => Ok(Event::StoppedOk { message: from.optional(Decoder::text)? }),
                STOP_ERROR => Ok(Event::StoppedError { message: from.optional(Decoder::text)? }),
                _ => Err(code.unknown("a stop code is neither ok nor error")),
            }
        }
        _ => Err(tag.unknown("no actor state has this tag")),
    }
}

const INIT: u8 = 0;
const EVENTS: u8 = 1;
const ACK_COMMANDS: u8 = 2;
const STOPPING: u8 = 3;
const PONG: u8 = 4;
const KV: u8 = 5;
const TUNNEL: u8 = 6;

const INTENT: u8 = 0;
const STATE: u8 = 1;
const ALARM: u8 = 2;

const INTENT_SLEEP: u8 = 0;
const INTENT_STOP: u8 = 1;

const STATE_RUNNING: u8 = 0;
const STATE_STOPPED: u8 = 1;

const STOP_OK: u8 = 0;
const STOP_ERROR: u8 = 1;

/// The fewest bytes of an event in any version: its checkpoint, its tag and one byte of body.
const EVENT_LEN: usize = CHECKPOINT_LEN + 1 + 1;
