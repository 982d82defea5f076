//! What a gateway says, but for key-value answers and the tunnel.

use super::{CHECKPOINT_LEN, EncodeError, Message, kv, tunnel};
use super::{read_checkpoint, read_checkpoints, write_checkpoint, write_checkpoints, write_list};
use crate::bare::{Decoder, Sink};
use crate::{ActorConfig, Command, CommandWrapper, DecodeError, InitMetadata, ToClient, Version};

impl Message for ToClient {
    #[inline]
    fn write<S: Sink>(&self, version: Version, out: &mut S) -> Result<(), EncodeError> {
        match self {
            ToClient::Init { runner_id, metadata } => {
                out.byte(INIT);
                out.text(runner_id);
                write_metadata(metadata, version, out)
            }
            ToClient::Commands(commands) => {
                out.byte(COMMANDS);
                write_list(commands, out, |command, out| write_command(command, version, out))
            }
            ToClient::AckEvents(checkpoints) => {
                out.byte(ACK_EVENTS);
                write_checkpoints(checkpoints, version, out)
            }
            ToClient::Kv { request_id, response } => {
                out.byte(KV);
                out.u32(*request_id);
                kv::write_response(response, out)
            }
            ToClient::Tunnel { id, message } => {
                out.byte(TUNNEL);
                tunnel::write_id(id, out);
                tunnel::write_to_client(message, out)
            }
            ToClient::Ping { ts } => {
                out.byte(PING);
                out.i64(*ts);
                Ok(())
            }
        }
    }
}

#[inline]
pub(super) fn read(from: &mut Decoder, version: Version) -> Result<ToClient, DecodeError> {
    let tag = from.tag()?;
    Ok(match tag.value {
        INIT => ToClient::Init { runner_id: from.text()?, metadata: read_metadata(from, version)? },
        COMMANDS => ToClient::Commands(from.list(COMMAND_LEN, |from| read_command(from, version))?),
        ACK_EVENTS => ToClient::AckEvents(read_checkpoints(from, version)?),
        KV => ToClient::Kv { request_id: from.u32()?, response: kv::read_response(from)? },
        TUNNEL => ToClient::Tunnel { id: tunnel::read_id(from)?, message: tunnel::read_to_client(from)? },
        PING => ToClient::Ping { ts: from.i64()? },
        _ => return Err(tag.unknown("no message to a runner has this tag")),
    })
}

fn write_metadata<S: Sink>(metadata: &InitMetadata, version: Version, out: &mut S) -> Result<(), EncodeError> {
    out.i64(metadata.runner_lost_threshold);
    if version >= Version::V6 {
        // A made-up threshold would have the runner stop its actors at once or never.
        let Some(threshold) = metadata.actor_stop_threshold else {
            return Err(EncodeError::Missing { what: "the actor stop threshold", version });
        };
        out.i64(threshold);
        out.optional(metadata.serverless_drain_grace_period, S::i64);
    }
    Ok(())
}

fn read_metadata(from: &mut Decoder, version: Version) -> Result<InitMetadata, DecodeError> {
    let runner_lost_threshold = from.i64()?;
    if version < Version::V6 {
        return Ok(InitMetadata {
            runner_lost_threshold,
            actor_stop_threshold: None,
            serverless_drain_grace_period: None,
        });
    }
    Ok(InitMetadata {
        runner_lost_threshold,
        actor_stop_threshold: Some(from.i64()?),
        serverless_drain_grace_period: from.optional(Decoder::i64)?,
    })
}

fn write_command<S: Sink>(command: &CommandWrapper, version: Version, out: &mut S) -> Result<(), EncodeError> {
    let CommandWrapper { checkpoint, command } = command;
    write_checkpoint(checkpoint, version, out);
    out.byte(match command {
        Command::Start { .. } => START,
        Command::Stop => STOP,
    });
    if version == Version::V4 {
        out.u32(checkpoint.generation);
    }
    match command {
        Command::Start { config, hibernating } => {
            out.text(&config.name);
            out.optional(config.key.as_ref(), |out, key| out.text(key));
            out.i64(config.create_ts);
            out.optional(config.input.as_ref(), |out, input| out.data(input));
            write_list(hibernating, out, |stream, out| {
                tunnel::write_stream(stream, out);
                Ok(())
            })
        }
        Command::Stop => Ok(()),
    }
}

fn read_command(from: &mut Decoder, version: Version) -> Result<CommandWrapper, DecodeError> {
    let mut checkpoint = read_checkpoint(from, version)?;
    let tag = from.tag()?;
    if tag.value > STOP {
        return Err(tag.unknown("no command has this tag"));
    }
    if version == Version::V4 {
        checkpoint.generation = from.u32()?;
    }
    let command = match tag.value {
        START => Command::Start {
            config: ActorConfig {
                name: from.text()?,
                key: from.optional(Decoder::text)?,
                create_ts: from.i64()?,
                input: from.optional(Decoder::data)?,
            },
            hibernating: from.list(tunnel::STREAM_LEN, tunnel::read_stream)?,
        },
        _ => Command::Stop,
    };
    Ok(CommandWrapper { checkpoint, command })
}

const INIT: u8 = 0;
const COMMANDS: u8 = 1;
const ACK_EVENTS: u8 = 2;
const KV: u8 = 3;
const TUNNEL: u8 = 4;
const PING: u8 = 5;

const START: u8 = 0;
const STOP: u8 = 1;

/// The fewest bytes of a command in any version: its checkpoint and its tag.
const COMMAND_LEN: usize = CHECKPOINT_LEN + 1;
