//! Storage: single values as raw bytes, lists and batches as JSON with base64url.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use greenroom_protocol::limits::KV_KEY_MAX;
use greenroom_protocol::{KvEntryMetadata, KvListQuery, KvRequest, KvResponse};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::access::Caller;
use super::error::ApiError;
use super::query::{Query, base64};

/// `GET /v1/kv/{key}`
pub(super) async fn read(Caller(context): Caller, uri: Uri) -> Result<Response, ApiError> {
    let value = context.get(key_of(&uri)?).await?.ok_or_else(ApiError::no_such_key)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], value).into_response())
}

/// `PUT /v1/kv/{key}`
pub(super) async fn write(
    Caller(context): Caller,
    uri: Uri,
    body: Result<Body, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let value = body.map_err(|rejection| ApiError::body(rejection.status(), rejection.body_text()))?;
    context.put(key_of(&uri)?, value).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/kv/{key}`
pub(super) async fn delete(Caller(context): Caller, uri: Uri) -> Result<StatusCode, ApiError> {
    context.delete(key_of(&uri)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/kv`
pub(super) async fn clear(Caller(context): Caller, uri: Uri) -> Result<StatusCode, ApiError> {
    // A parameter here is a mistake that would cost everything: whoever gives one means a part.
    Query::parse(uri.query(), &[])?;
    context.kv(KvRequest::Drop).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/kv?prefix=&start=&end=&limit=&reverse=`
pub(super) async fn list(Caller(context): Caller, uri: Uri) -> Result<Json<Value>, ApiError> {
    let query = Query::parse(uri.query(), &["prefix", "start", "end", "limit", "reverse", "enc"])?;
    let (prefix, start, end) = (query.key("prefix")?, query.key("start")?, query.key("end")?);
    let request = KvRequest::List {
        query: range(prefix, start, end),
        reverse: Some(query.switch("reverse")?),
        limit: query.count("limit")?,
    };
    entries(context.kv(request).await?)
}

/// `POST /v1/kv:batch`
pub(super) async fn batch(
    Caller(context): Caller,
    body: Result<Json<BTreeMap<String, Value>>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(batch) = body.map_err(|rejection| ApiError::body(rejection.status(), rejection.body_text()))?;
    let request = operation(batch)?;
    match context.kv(request).await? {
        found @ KvResponse::Get { .. } => entries(found),
        _ => Ok(Json(json!({}))),
    }
}

/// The key in a path: everything behind `/v1/kv/`, percent-decoded to bytes.
fn key_of(uri: &Uri) -> Result<Bytes, ApiError> {
    let encoded = uri.path().strip_prefix("/v1/kv/").unwrap_or_default();
    let key: Vec<u8> = percent_decode_str(encoded).collect();
    Query::parse(uri.query(), &["enc"])?.encoding()?.decode(&key)
}

/// The keys that begin with the prefix and lie in `[start, end)`.
fn range(prefix: Option<Bytes>, start: Option<Bytes>, end: Option<Bytes>) -> KvListQuery {
    if start.is_none() && end.is_none() {
        return prefix.map_or(KvListQuery::All, |key| KvListQuery::Prefix { key });
    }
    let behind_prefix = prefix.as_ref().and_then(successor);
    let start = [prefix, start].into_iter().flatten().max().unwrap_or_default();
    match [behind_prefix, end].into_iter().flatten().min() {
        Some(end) => KvListQuery::Range { start, end, exclusive: true },
        None => KvListQuery::Range { start, end: Bytes::from(vec![0xff; KV_KEY_MAX]), exclusive: false },
    }
}

/// The first key behind all those that begin with the prefix; none when the prefix is all 0xff.
fn successor(prefix: &Bytes) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next.into())
}

fn operation(batch: BTreeMap<String, Value>) -> Result<KvRequest, ApiError> {
    let mut operations = batch.into_iter();
    let (Some((name, argument)), None) = (operations.next(), operations.next()) else {
        return Err(ApiError::bad_request("a batch has exactly one operation", BATCH_HINT));
    };
    match name.as_str() {
        "get" => Ok(KvRequest::Get { keys: keys(&argument)? }),
        "delete" => Ok(KvRequest::Delete { keys: keys(&argument)? }),
        "put" => {
            let pairs = argument.as_array().ok_or_else(malformed)?.iter().map(|pair| match keys(pair)?.as_slice() {
                [key, value] => Ok((key.clone(), value.clone())),
                _ => Err(malformed()),
            });
            let (keys, values) = pairs.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
            Ok(KvRequest::Put { keys, values })
        }
        "delete_range" => match keys(&argument)?.as_slice() {
            [start, end] => Ok(KvRequest::DeleteRange { start: start.clone(), end: end.clone() }),
            _ => Err(malformed()),
        },
        other => Err(ApiError::bad_request(format!("unknown operation `{other}`"), BATCH_HINT)),
    }
}

fn keys(list: &Value) -> Result<Vec<Bytes>, ApiError> {
    let list = list.as_array().ok_or_else(malformed)?;
    list.iter().map(|key| base64(key.as_str().ok_or_else(malformed)?.as_bytes())).collect()
}

fn malformed() -> ApiError {
    ApiError::bad_request("the batch is not in the form it should have", BATCH_HINT)
}

fn entries(response: KvResponse) -> Result<Json<Value>, ApiError> {
    let (keys, values, metadata) = match response {
        KvResponse::Get { keys, values, metadata } | KvResponse::List { keys, values, metadata } => {
            (keys, values, metadata)
        }
        KvResponse::Error { message } => return Err(ApiError::bad_request(message.to_string(), "")),
        KvResponse::Put | KvResponse::Delete | KvResponse::Drop => (vec![], vec![], vec![]),
    };
    let mut metadata = metadata.iter().map(Some).chain(std::iter::repeat(None));
    let entries: Vec<Value> = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| {
            let update_ts = metadata.next().flatten().map(|KvEntryMetadata { update_ts, .. }| update_ts);
            json!({
                "key": BASE64URL_NOPAD.encode(key),
                "value": BASE64URL_NOPAD.encode(value),
                "update_ts": update_ts,
            })
        })
        .collect();
    Ok(Json(json!({ "entries": entries })))
}

const BATCH_HINT: &str = "one of {\"get\":[k…]}, {\"put\":[[k,v]…]}, {\"delete\":[k…]}, {\"delete_range\":[start,end]}; \
                          keys and values in base64url";

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_list_covers_the_prefix_within_the_range() {
        assert_eq!(range(None, None, None), KvListQuery::All);
        assert_eq!(range(bytes("a"), None, None), KvListQuery::Prefix { key: "a".into() });
        let within = |start: &'static str, end: &'static str| KvListQuery::Range {
            start: start.into(),
            end: end.into(),
            exclusive: true,
        };
        assert_eq!(range(None, bytes("b"), bytes("d")), within("b", "d"));
        assert_eq!(range(None, None, bytes("d")), within("", "d"));
        assert_eq!(range(bytes("a"), bytes("ab"), None), within("ab", "b"));
        assert_eq!(range(bytes("b"), bytes("a"), bytes("z")), within("b", "c"));
        let open = range(None, bytes("x"), None);
        assert!(matches!(open, KvListQuery::Range { exclusive: false, end, .. } if end.len() == KV_KEY_MAX));
        assert_eq!(successor(&Bytes::from_static(&[1, 0xff])), Some(Bytes::from_static(&[2])));
        assert_eq!(successor(&Bytes::from_static(&[0xff])), None);
    }
}
