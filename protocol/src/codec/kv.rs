//! Key-value requests and answers.

use super::{EncodeError, write_data_list, write_list};
use crate::bare::{Decoder, Sink};
use crate::{Bytes, DecodeError, KvEntryMetadata, KvListQuery, KvRequest, KvResponse, Version};

pub(super) fn write_request<S: Sink>(request: &KvRequest, version: Version, out: &mut S) -> Result<(), EncodeError> {
    match request {
        KvRequest::Get { keys } => {
            out.byte(GET);
            write_data_list(keys, out)
        }
        KvRequest::List { query, reverse, limit } => {
            out.byte(LIST);
            write_query(query, out);
            out.optional(*reverse, S::bool);
            out.optional(*limit, S::u64);
            Ok(())
        }
        KvRequest::Put { keys, values } => {
            out.byte(PUT);
            write_data_list(keys, out)?;
            write_data_list(values, out)
        }
        KvRequest::Delete { keys } => {
            out.byte(DELETE);
            write_data_list(keys, out)
        }
        KvRequest::DeleteRange { start, end } => {
            if version < Version::V7 {
                return Err(EncodeError::NotInVersion {
                    what: "deleting a range of keys",
                    needs: Version::V7,
                    version,
                });
            }
            out.byte(DELETE_RANGE);
            out.data(start);
            out.data(end);
            Ok(())
        }
        KvRequest::Drop => {
            out.byte(drop_tag(version));
            Ok(())
        }
    }
}

pub(super) fn read_request(from: &mut Decoder, version: Version) -> Result<KvRequest, DecodeError> {
    let tag = from.tag()?;
    Ok(match tag.value {
        GET => KvRequest::Get { keys: from.data_list()? },
        LIST => KvRequest::List {
            query: read_query(from)?,
            reverse: from.optional(Decoder::bool)?,
            limit: from.optional(Decoder::u64)?,
        },
        PUT => KvRequest::Put { keys: from.data_list()?, values: from.data_list()? },
        DELETE => KvRequest::Delete { keys: from.data_list()? },
        value if value == drop_tag(version) => KvRequest::Drop,
        DELETE_RANGE => KvRequest::DeleteRange { start: from.data()?, end: from.data()? },
        _ => return Err(tag.unknown("no key-value request has this tag")),
    })
}

/// Drop gave its tag to delete range in version 7.
fn drop_tag(version: Version) -> u8 {
    if version < Version::V7 { DELETE_RANGE } else { DROP }
}

fn write_query<S: Sink>(query: &KvListQuery, out: &mut S) {
    match query {
        KvListQuery::All => out.byte(QUERY_ALL),
        KvListQuery::Range { start, end, exclusive } => {
            out.byte(QUERY_RANGE);
            out.data(start);
            out.data(end);
            out.bool(*exclusive);
        }
        KvListQuery::Prefix { key } => {
            out.byte(QUERY_PREFIX);
            out.data(key);
        }
    }
}

fn read_query(from: &mut Decoder) -> Result<KvListQuery, DecodeError> {
    let tag = from.tag()?;
    Ok(match tag.value {
        QUERY_ALL => KvListQuery::All,
        QUERY_RANGE => KvListQuery::Range { start: from.data()?, end: from.data()?, exclusive: from.bool()? },
        QUERY_PREFIX => KvListQuery::Prefix { key: from.data()? },
        _ => return Err(tag.unknown("no list query has this tag")),
    })
}

pub(super) fn write_response<S: Sink>(response: &KvResponse, out: &mut S) -> Result<(), EncodeError> {
    match response {
        KvResponse::Error { message } => {
            out.byte(ERROR);
            out.text(message);
            Ok(())
        }
        KvResponse::Get { keys, values, metadata } => {
            out.byte(GOT);
            write_entries(keys, values, metadata, out)
        }
        KvResponse::List { keys, values, metadata } => {
            out.byte(LISTED);
            write_entries(keys, values, metadata, out)
        }
        KvResponse::Put => {
            out.byte(PUT_DONE);
            Ok(())
        }
        KvResponse::Delete => {
            out.byte(DELETE_DONE);
            Ok(())
        }
        KvResponse::Drop => {
            out.byte(DROP_DONE);
            Ok(())
        }
    }
}

pub(super) fn read_response(from: &mut Decoder) -> Result<KvResponse, DecodeError> {
    let tag = from.tag()?;
    Ok(match tag.value {
        ERROR => KvResponse::Error { message: from.text()? },
        GOT => KvResponse::Get { keys: from.data_list()?, values: from.data_list()?, metadata: read_metadata(from)? },
        LISTED => {
            KvResponse::List { keys: from.data_list()?, values: from.data_list()?, metadata: read_metadata(from)? }
        }
        PUT_DONE => KvResponse::Put,
        DELETE_DONE => KvResponse::Delete,
        DROP_DONE => KvResponse::Drop,
        _ => return Err(tag.unknown("no key-value answer has this tag")),
    })
}

fn write_entries<S: Sink>(
    keys: &[Bytes],
    values: &[Bytes],
    metadata: &[KvEntryMetadata],
    out: &mut S,
) -> Result<(), EncodeError> {
    write_data_list(keys, out)?;
    write_data_list(values, out)?;
    write_list(metadata, out, |entry, out| {
        out.data(&entry.version);
        out.i64(entry.update_ts);
        Ok(())
    })
}

fn read_metadata(from: &mut Decoder) -> Result<Vec<KvEntryMetadata>, DecodeError> {
    from.list(METADATA_LEN, |from| Ok(KvEntryMetadata { version: from.data()?, update_ts: from.i64()? }))
}

const GET: u8 = 0;
const LIST: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const DELETE_RANGE: u8 = 4;
const DROP: u8 = 5;

const QUERY_ALL: u8 = 0;
const QUERY_RANGE: u8 = 1;
const QUERY_PREFIX: u8 = 2;

const ERROR: u8 = 0;
const GOT: u8 = 1;
const LISTED: u8 = 2;
const PUT_DONE: u8 = 3;
const DELETE_DONE: u8 = 4;
const DROP_DONE: u8 = 5;

/// The fewest bytes of an entry's metadata: an empty version and the time.
const METADATA_LEN: usize = 1 + 8;
