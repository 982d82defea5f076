//! What of a request's and an answer's head passes, and what is added.

use hyper::HeaderMap;
use hyper::Uri;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::EgressError;
use crate::telemetry::{Span, SpanKind, TRACEPARENT};

/// The path of the call: what the actor said, below what the operator said.
pub(super) fn uri(prefix: &str, rest: &str) -> Result<Uri, EgressError> {
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    // Dots would lead out of the prefix, at a server that decodes or folds them.
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let twice = percent_decode_str(&decoded).decode_utf8_lossy();
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if [&*decoded, &*twice].iter().any(|path| path.split(['/', '\\']).any(dots)) {
        return Err(EgressError::Path);
    }
    let mut text = format!("{prefix}{path}");
    if !text.starts_with('/') {
        text.insert(0, '/');
    }
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    text.parse().map_err(|_| EgressError::Path)
}

/// The actor's headers without those of the connection, those that are the daemon's, and the actor's own token.
pub(super) fn for_server(headers: &HeaderMap) -> HeaderMap {
    let ours = |name: &HeaderName| *name == AUTHORIZATION || *name == HOST || name.as_str().starts_with("actor-");
    passing(headers, |name| !ours(name))
}

/// The span of a call, which the server is told of: below the context that the actor passed on.
pub(super) fn span(headers: &mut HeaderMap) -> Span {
    let parent = || headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let span = Span::start(SpanKind::Client, "egress call", parent);
    if let Some(traceparent) = span.traceparent().and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(TRACEPARENT, traceparent);
    }
    span
}

/// The server's headers without those of the connection.
pub(super) fn for_actor(headers: &HeaderMap) -> HeaderMap {
    passing(headers, |_| true)
}

/// The job that the call is for.
pub(super) fn job(headers: &HeaderMap) -> Result<Option<String>, EgressError> {
    let Some(job) = headers.get("actor-job") else { return Ok(None) };
    let plain = |job: &&str| (1..=JOB_MAX).contains(&job.len()) && job.bytes().all(|byte| byte.is_ascii_graphic());
    let job = job.to_str().ok().filter(plain);
    job.map(|job| Some(job.to_owned())).ok_or(EgressError::Job)
}

/// A value that is short enough to be remembered.
pub(super) fn short_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (1..=VALUE_MAX).contains(&value.len()).then_some(value)
}

/// The credential as a header that is not shown.
pub(super) fn bearer(credential: &SecretString) -> Result<HeaderValue, EgressError> {
    let value = HeaderValue::from_str(&format!("Bearer {}", credential.expose_secret()));
    // Reading it has checked that it can stand in a header.
    let mut value = value.map_err(|_| EgressError::Credential { egress: String::new() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn passing(headers: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let lists = headers.get_all(CONNECTION);
    let listed = lists.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let listed: Vec<&str> = listed.map(str::trim).collect();
    let pass = |name: &HeaderName| {
        let of_connection = [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, TRAILER, EXPECT].contains(name)
            || name == "keep-alive"
            || name.as_str().starts_with("proxy-")
            || listed.iter().any(|listed| listed.eq_ignore_ascii_case(name.as_str()));
        // The length is told by the body.
        !of_connection && *name != CONTENT_LENGTH && wanted(name)
    };
    headers.iter().filter(|(name, _)| pass(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The longest id of a job, in bytes: it is part of a storage key.
const JOB_MAX: usize = 128;
/// The longest name of a backend or cache key, in bytes.
const VALUE_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_prefix() {
        let path = |rest: &str| uri("/v1", rest).map(|uri| uri.to_string()).ok();
        assert_eq!(path("/chat/completions?a=b%2F..&c"), Some("/v1/chat/completions?a=b%2F..&c".to_owned()));
        assert_eq!(path(""), Some("/v1".to_owned()));
        assert_eq!(path("/%20x/a..b/...//"), Some("/v1/%20x/a..b/...//".to_owned()));
        assert_eq!(uri("", "").map(|uri| uri.to_string()).ok(), Some("/".to_owned()));
        for wrong in ["/..", "/../x", "/a/%2e%2e/b", "/.%2E", "/a%2f..%2fb", "/a\\..\\b", "/a/%5c..", "/./x", "/..;a/x"]
        {
            assert_eq!(path(wrong), None, "{wrong}");
        }
        assert_eq!(path("/%252e%252e/x"), None);
    }

    #[test]
    fn the_actors_token_and_the_connection_are_not_passed_on() {
        let headers: HeaderMap = [
            ("authorization", "Bearer actor"),
            ("host", "actor-api"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
            ("proxy-authorization", "x"),
            ("content-length", "5"),
            ("actor-job", "job"),
            ("actor-anything", "x"),
            ("content-type", "text/plain"),
            ("cookie", "a"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value)))
        .collect();
        let passed = for_server(&headers);
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "cookie"]);
        assert_eq!(job(&headers).unwrap().as_deref(), Some("job"));
    }
}
