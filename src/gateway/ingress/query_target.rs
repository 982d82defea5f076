//! Actors named by name and key in the query: `/gateway/NAME/rest?rvt-namespace=…&rvt-method=…`.
//!
//! A client needs one request instead of two, and a browser one address instead of an id. All parameters that begin
//! with `rvt-` are the gateway's and never reach the actor; the others reach it byte for byte. What is wrong with them
//! is told under the engine's codes.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use data_encoding::BASE64URL_NOPAD;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{cbor, target};
use crate::gateway::refusal::Refusal;
use crate::store::CrashPolicy;

/// An actor by name and key, and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryTarget {
    /// The name of its namespace.
    pub namespace: String,
    /// Its name.
    pub name: Arc<str>,
    /// Its key, in the form it is stored in.
    pub key: Arc<str>,
    /// How it is made when there is none.
    pub create: Option<CreateBy>,
    /// Path and query as the actor sees them.
    pub path: ByteString,
    /// Reach it also while it is starting or stopping.
    pub skip_ready_wait: bool,
}

/// How `getOrCreate` makes an actor.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateBy {
    /// The pool of runners.
    pub pool: Arc<str>,
    /// The data center it is wanted in.
    pub region: Option<String>,
    /// What happens after a crash.
    pub crash_policy: CrashPolicy,
    /// The start input: one CBOR value, as the client encoded it.
    pub input: Option<Bytes>,
}

impl QueryTarget {
    /// Whether a query names an actor, rightly or not.
    #[must_use]
    pub fn is_meant(query: &str) -> bool {
        query.split('&').any(is_ours)
    }

    /// Reads the target from the path's segment with the name, the rest of the path, and the query.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(segment: &str, rest: &str, query: &str) -> Result<Self, Refusal> {
        if segment.contains('@') {
            let message = "query gateway paths must not use @token syntax: pass the token as rvt-token";
            return Err(Refusal::new("guard", "query_path_token_syntax", message));
        }
        let name = decode("name", segment)?;
        if name.is_empty() {
            let message = "query gateway actor name must not be empty";
            return Err(Refusal::new("guard", "query_empty_actor_name", message));
        }
        let parameters = Parameters::read(query)?;
        let Parameters { namespace: Some(namespace), method: Some(method), .. } = &parameters else {
            let missing = if parameters.namespace.is_none() { "rvt-namespace" } else { "rvt-method" };
            return Err(invalid(&format!("missing parameter {missing}")));
        };
        let create = match method.as_str() {
            "get" => parameters.no_create().map(|()| None)?,
            "getOrCreate" => Some(parameters.create()?),
            other => return Err(invalid(&format!("unknown method: {other}, expected get or getOrCreate"))),
        };
        Ok(QueryTarget {
            namespace: namespace.clone(),
            name: name.into(),
            key: stored_key(parameters.key.as_deref().unwrap_or_default()).into(),
            create,
            path: target::join(rest, for_actor(query).as_deref()),
            skip_ready_wait: matches!(parameters.skip_ready_wait.as_deref(), Some("true" | "1")),
        })
    }
}

/// The values of the `rvt-` parameters, decoded.
#[derive(Debug, Default)]
struct Parameters {
    namespace: Option<String>,
    method: Option<String>,
    key: Option<String>,
    pool: Option<String>,
    runner: Option<String>,
    region: Option<String>,
    crash_policy: Option<String>,
    input: Option<String>,
    token: Option<String>,
    skip_ready_wait: Option<String>,
}

impl Parameters {
    fn read(query: &str) -> Result<Self, Refusal> {
        let mut parameters = Parameters::default();
        for parameter in query.split('&').filter(|parameter| is_ours(parameter)) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = parameters.place(name)?;
            if place.is_some() {
                let message = format!("duplicate query gateway param: {name}");
                return Err(Refusal::new("guard", "query_duplicate_param", message).with(json!({ "name": name })));
            }
            *place = Some(decode(name, &value.replace('+', " "))?);
        }
        match parameters.skip_ready_wait.as_deref() {
            None | Some("true" | "false" | "1" | "0") => Ok(parameters),
            Some(other) => {
                Err(invalid(&format!("unknown value of rvt-skip-ready-wait: {other}, expected true, false, 1 or 0")))
            }
        }
    }

    fn place(&mut self, name: &str) -> Result<&mut Option<String>, Refusal> {
        Ok(match name {
            "rvt-namespace" => &mut self.namespace,
            "rvt-method" => &mut self.method,
            "rvt-key" => &mut self.key,
            "rvt-pool" => &mut self.pool,
            "rvt-runner" => &mut self.runner,
            "rvt-region" => &mut self.region,
            "rvt-crash-policy" => &mut self.crash_policy,
            "rvt-input" => &mut self.input,
            // For the actor's owner, as in a path with `@TOKEN`; means nothing here.
            "rvt-token" => &mut self.token,
            "rvt-skip-ready-wait" => &mut self.skip_ready_wait,
            _ => {
                return Err(invalid(&format!(
                    "unknown parameter {name}, expected one of rvt-namespace, rvt-method, rvt-key, rvt-pool, \
                     rvt-runner, rvt-region, rvt-crash-policy, rvt-input, rvt-token, rvt-skip-ready-wait"
                )));
            }
        })
    }

    fn no_create(&self) -> Result<(), Refusal> {
        // The engine lets `rvt-pool` pass, whatever its message says: a client may always send it.
        let creating = [&self.runner, &self.region, &self.crash_policy, &self.input];
        if creating.into_iter().any(Option::is_some) {
            let message = "query gateway method=get does not allow rvt-input, rvt-region, rvt-crash-policy, or \
                           rvt-runner params: they are for getOrCreate";
            return Err(Refusal::new("guard", "query_get_disallowed_params", message));
        }
        Ok(())
    }

    fn create(&self) -> Result<CreateBy, Refusal> {
        let Some(pool) = self.pool.as_deref().or(self.runner.as_deref()) else {
            let message = "query gateway method=getOrCreate requires rvt-pool param";
            return Err(Refusal::new("guard", "query_missing_pool", message));
        };
        let crash_policy = match self.crash_policy.as_deref() {
            None | Some("sleep") => CrashPolicy::Sleep,
            Some("restart") => CrashPolicy::Restart,
            Some("destroy") => CrashPolicy::Destroy,
            Some(other) => {
                let detail = format!("unknown crash policy: {other}, expected restart, sleep, or destroy");
                return Err(invalid(&detail));
            }
        };
        let input = self.input.as_deref().map(input).transpose()?;
        Ok(CreateBy { pool: pool.into(), region: self.region.clone(), crash_policy, input })
    }
}

/// Whether a parameter is for the gateway. Its name is not decoded: only one written plainly is.
fn is_ours(parameter: &str) -> bool {
    parameter.starts_with("rvt-")
}

/// What remains of a query for the actor; empty parameters, which say nothing, go as well.
fn for_actor(query: &str) -> Option<String> {
    let kept: Vec<_> = query.split('&').filter(|parameter| !parameter.is_empty() && !is_ours(parameter)).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// The stored form of a key that is a list with commas: the parts joined by slashes, in such a way that different lists
/// have different forms.
fn stored_key(list: &str) -> String {
    if list.is_empty() {
        return "/".to_owned();
    }
    let parts = list.split(',').map(|part| match part {
        "" => r"\0".to_owned(),
        part => part.replace('\\', r"\\").replace('/', r"\/"),
    });
    parts.collect::<Vec<_>>().join("/")
}

fn input(text: &str) -> Result<Bytes, Refusal> {
    let Ok(bytes) = BASE64URL_NOPAD.decode(text.as_bytes()) else {
        let message = "invalid base64url in query gateway input (rvt-input is base64url without padding)";
        return Err(Refusal::new("guard", "query_invalid_base64_input", message));
    };
    cbor::check(&bytes).map_err(|detail| {
        let message = format!("invalid query gateway input cbor: {detail}");
        Refusal::new("guard", "query_invalid_cbor_input", message).with(json!({ "detail": detail }))
    })?;
    Ok(bytes.into())
}

fn decode(name: &str, text: &str) -> Result<String, Refusal> {
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => {
            let message = format!("invalid percent-encoding for query gateway param '{name}'");
            Err(Refusal::new("guard", "query_invalid_percent_encoding", message).with(json!({ "name": name })))
        }
    }
}

fn invalid(detail: &str) -> Refusal {
    let message = format!("invalid query gateway params: {detail}");
    Refusal::new("guard", "query_invalid_params", message).with(json!({ "detail": detail }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "rvt-namespace=default&rvt-method=get";
    const CREATE: &str = "rvt-namespace=default&rvt-method=getOrCreate&rvt-pool=pool";

    fn parse(query: &str) -> QueryTarget {
        QueryTarget::parse("counter", "/x", query).expect("a target")
    }

    fn create(query: &str) -> CreateBy {
        parse(&format!("{CREATE}{query}")).create.expect("getOrCreate")
    }

    #[track_caller]
    fn check_refusal(segment: &str, query: &str, code: &str) -> Refusal {
        let refusal = QueryTarget::parse(segment, "/x", query).expect_err(query);
        assert_eq!((refusal.group, refusal.code), ("guard", code), "{segment} {query}");
        assert_eq!(refusal.guard_status(), 400);
        refusal
    }

    #[test]
    fn an_actor_is_named_by_name_and_key() {
        let target = QueryTarget::parse("my%20counter", "/", &format!("{GET}&rvt-key=a+b%2Bc")).expect("a target");
        assert_eq!(
            target,
            QueryTarget {
                namespace: "default".to_owned(),
                name: "my counter".into(),
                key: "a b+c".into(),
                create: None,
                path: "/".into(),
                skip_ready_wait: false,
            }
        );
    }

    #[test]
    fn an_actor_that_may_have_to_be_made_comes_with_what_it_takes() {
        assert_eq!(
            create(""),
            CreateBy { pool: "pool".into(), region: None, crash_policy: CrashPolicy::Sleep, input: None }
        );
        assert_eq!(
            create("&rvt-crash-policy=restart&rvt-region=default&rvt-input=oWFhAQ&rvt-runner=other"),
            CreateBy {
                pool: "pool".into(),
                region: Some("default".to_owned()),
                crash_policy: CrashPolicy::Restart,
                input: Some(Bytes::from_static(b"\xa1\x61a\x01")),
            }
        );
        assert_eq!(create("&rvt-crash-policy=destroy").crash_policy, CrashPolicy::Destroy);
        let old = parse("rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=old");
        assert_eq!(&*old.create.expect("getOrCreate").pool, "old");
    }

    #[test]
    fn different_keys_are_stored_differently() {
        for (list, stored) in [
            ("", "/"),
            ("a", "a"),
            ("a,b", "a/b"),
            (",", r"\0/\0"),
            ("a,", r"a/\0"),
            ("a/b", r"a\/b"),
            (r"a\,b", r"a\\/b"),
            (r"\0", r"\\0"),
            ("/", r"\/"),
        ] {
            assert_eq!(stored_key(list), stored, "{list}");
        }
        assert_eq!(&*parse(&format!("{GET}&rvt-key=a%2Cb%2Fc")).key, r"a/b\/c");
        assert_eq!(&*parse(GET).key, "/");
        assert_eq!(&*parse(&format!("{GET}&rvt-key=")).key, "/");
    }

    #[test]
    fn the_actor_sees_the_other_parameters_as_they_are() {
        for (query, path) in [
            (GET.to_owned(), "/x"),
            (format!("a=b%20c+d&{GET}&e&f=%zz&a=b"), "/x?a=b%20c+d&e&f=%zz&a=b"),
            (format!("{GET}&rvt-token=t&rvt-skip-ready-wait=1&x=1"), "/x?x=1"),
            (format!("&{GET}&&x=rvt-y"), "/x?x=rvt-y"),
            (format!("{GET}&rv%74-key=a&xrvt-key=b"), "/x?rv%74-key=a&xrvt-key=b"),
        ] {
            assert_eq!(parse(&query).path, path, "{query}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        check_refusal("counter@token", GET, "query_path_token_syntax");
        check_refusal("", GET, "query_empty_actor_name");
        check_refusal("%ff", GET, "query_invalid_percent_encoding");
        let get = |more: &str, code| check_refusal("counter", &format!("{GET}&{more}"), code);
        get("rvt-key=%ff", "query_invalid_percent_encoding");
        let twice = get("rvt-key=a&rvt-key=a", "query_duplicate_param");
        assert_eq!(twice.metadata, Some(json!({ "name": "rvt-key" })));
        let unknown = get("rvt-colour=red", "query_invalid_params");
        assert!(unknown.message.contains("unknown parameter rvt-colour"), "{}", unknown.message);
        get("rvt-skip-ready-wait=maybe", "query_invalid_params");
        for more in ["rvt-input=9g", "rvt-region=default", "rvt-crash-policy=sleep", "rvt-runner=p"] {
            get(more, "query_get_disallowed_params");
        }
        assert_eq!(parse(&format!("{GET}&rvt-pool=p")).create, None);
        let create = |more: &str, code| check_refusal("counter", &format!("{CREATE}&{more}"), code);
        create("rvt-crash-policy=panic", "query_invalid_params");
        for input in ["a", "9g==", "+/+/", "9h", "a b"] {
            create(&format!("rvt-input={input}"), "query_invalid_base64_input");
        }
        for input in ["", "ggE", "_w"] {
            create(&format!("rvt-input={input}"), "query_invalid_cbor_input");
        }
        for (query, detail) in [
            ("rvt-method=get", "missing parameter rvt-namespace"),
            ("rvt-namespace=default", "missing parameter rvt-method"),
            ("rvt-namespace=default&rvt-method=sing", "unknown method: sing, expected get or getOrCreate"),
        ] {
            let refusal = check_refusal("counter", query, "query_invalid_params");
            assert_eq!(refusal.metadata, Some(json!({ "detail": detail })));
        }
        check_refusal("counter", "rvt-namespace=default&rvt-method=getOrCreate&rvt-key=a", "query_missing_pool");
    }

    proptest! {
        #[test]
        fn whatever_a_query_says_is_read_or_refused(segment in "[!-~]{0,10}", query in "([ -~]{0,8}&rvt-[!-~]{0,20}){0,4}") {
            if let Ok(target) = QueryTarget::parse(&segment, "/", &query) {
                prop_assert!(!target.path.contains("&rvt-") && !target.path.contains("?rvt-"));
            }
        }

        #[test]
        fn keys_that_differ_never_meet(a in "[ab,/\\\\0]{0,6}", b in "[ab,/\\\\0]{0,6}") {
            prop_assert_eq!(stored_key(&a) == stored_key(&b), a == b);
        }
    }
}
