//! Query strings: what a route does not know, it does not ignore.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawQuery};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::Api;
use crate::gateway::refusal::Refusal;
use crate::gateway::{Id, ParseIdError};
use crate::store::NamespaceRecord;

/// The query of a request, not yet checked.
#[derive(Debug)]
pub(super) struct Query(String);

/// The parameters of a query, all of them known to the route.
#[derive(Debug)]
pub(super) struct Parameters {
    pairs: Vec<(&'static str, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Ok(RawQuery(query)) = RawQuery::from_request_parts(parts, state).await;
        Ok(Query(query.unwrap_or_default()))
    }
}

impl Query {
    /// Checks the names of the parameters.
    ///
    /// # Errors
    /// The first one that is not among `known`.
    pub(super) fn with(&self, known: &'static [&'static str]) -> Result<Parameters, Refusal> {
        let mut pairs = Vec::new();
        for pair in self.0.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let Some(known) = known.iter().find(|known| **known == name) else {
                return Err(bad(&format!("{name}: unknown field `{name}`, expected {}", one_of(known))));
            };
            pairs.push((*known, decode(value)?));
        }
        Ok(Parameters { pairs })
    }
}

impl Parameters {
    /// All values of a parameter that may repeat.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may be left out; an empty one counts as left out.
    ///
    /// # Errors
    /// It stands more than once.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, Refusal> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() {
            return Err(bad(&format!("{name}: stands more than once")));
        }
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// A number.
    ///
    /// # Errors
    /// It is none, or stands more than once.
    pub(super) fn number<N: FromStr<Err: ToString>>(&self, name: &'static str) -> Result<Option<N>, Refusal> {
        let Some(value) = self.text(name)? else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|error: N::Err| bad(&format!("{name}: {}", error.to_string())))
    }

    /// A switch, off when left out.
    ///
    /// # Errors
    /// It is neither `true` nor `false`, or stands more than once.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Refusal> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(&format!("{name}: provided string was not `true` or `false`"))),
        }
    }

    /// The ids of a parameter that may repeat.
    ///
    /// # Errors
    /// The first one that does not parse.
    pub(super) fn ids(&self, name: &'static str) -> Result<Vec<Id>, Refusal> {
        let ids = self.all(name).enumerate();
        ids.map(|(at, text)| text.parse().map_err(|error: ParseIdError| bad(&format!("{name}[{at}]: {error}"))))
            .collect()
    }

    /// The ids of a parameter that is a list with commas.
    ///
    /// # Errors
    /// The first one that does not parse.
    pub(super) fn id_list(&self, name: &'static str) -> Result<Vec<Id>, Refusal> {
        let ids = self.all(name).flat_map(|list| list.split(',')).filter(|text| !text.is_empty());
        ids.map(|text| {
            text.parse()
                .map_err(|error: ParseIdError| Refusal::bad_request(format!("invalid id in `{name}` query: {error}")))
        })
        .collect()
    }

    /// The namespace that `namespace` names.
    ///
    /// # Errors
    /// It is missing or does not exist.
    pub(super) fn namespace(&self, api: &Api) -> Result<NamespaceRecord, Refusal> {
        let Some(name) = self.text("namespace")? else {
            return Err(bad("missing field `namespace`"));
        };
        api.gateway
            .namespace(name)
            .ok_or_else(|| Refusal::new("namespace", "not_found", "The namespace does not exist."))
    }
}

/// An id in a path.
///
/// # Errors
/// It does not parse.
pub(super) fn path_id(text: &str) -> Result<Id, Refusal> {
    text.parse().map_err(|error| Refusal::bad_request(format!("Invalid URL: {error}")))
}

fn decode(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(bad("a name or value is no UTF-8")),
    }
}

fn bad(reason: &str) -> Refusal {
    Refusal::bad_request(format!("Failed to deserialize query string: {reason}"))
}

fn one_of(known: &[&str]) -> String {
    let quoted: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "no parameters".to_owned(),
        [one] => one.clone(),
        [one, other] => format!("{one} or {other}"),
        all => format!("one of {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["name", "limit", "all", "id", "ids"];

    fn parse(query: &str) -> Parameters {
        Query(query.to_owned()).with(KNOWN).expect("query")
    }

    #[track_caller]
    fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
        let refusal = result.expect_err("a refusal");
        assert_eq!((refusal.group, refusal.code), ("api", "bad_request"));
        refusal.metadata.expect("metadata")["reason"].as_str().expect("text").to_owned()
    }

    #[test]
    fn names_and_values_are_decoded() {
        let parameters = parse("n%61me=a+b%20c%2Bd%26&limit=5&all=true&");
        assert_eq!(parameters.text("name").expect("name"), Some("a b c+d&"));
        assert_eq!(parameters.number::<u32>("limit").expect("limit"), Some(5));
        assert!(parameters.flag("all").expect("all"));
        assert_eq!(parse("name=").text("name").expect("name"), None);
        assert_eq!(parse("name").text("name").expect("name"), None);
        assert_eq!(parse("name=%2").text("name").expect("name"), Some("%2"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let unknown = Query("colour=red".to_owned()).with(KNOWN);
        assert_eq!(
            reason(unknown),
            "Failed to deserialize query string: colour: unknown field `colour`, expected one of `name`, `limit`, \
             `all`, `id`, `ids`"
        );
        let one = Query("x=1".to_owned()).with(&["namespace"]);
        assert_eq!(reason(one), "Failed to deserialize query string: x: unknown field `x`, expected `namespace`");
        assert_eq!(
            reason(parse("limit=abc").number::<u32>("limit")),
            "Failed to deserialize query string: limit: invalid digit found in string"
        );
        reason(parse("name=a&name=b").text("name"));
        reason(parse("all=maybe").flag("all"));
        reason(parse("id=1oe70n6l4jcqg4a8w8zsyhhwkqcl00&id=garbage").ids("id"));
        reason(parse("ids=,garbage").id_list("ids"));
        reason(Query("name=%ff".to_owned()).with(KNOWN));
    }

    #[test]
    fn ids_come_repeated_or_with_commas() {
        let id: Id = "1oe70n6l4jcqg4a8w8zsyhhwkqcl00".parse().expect("id");
        assert_eq!(parse(&format!("id={id}&id={id}")).ids("id").expect("ids"), [id, id]);
        assert_eq!(parse(&format!("ids={id},,{id}")).id_list("ids").expect("ids"), [id, id]);
        assert_eq!(parse("").ids("id").expect("ids"), []);
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_query_is_read_or_refused(query in "[ -~]{0,60}|\\PC{0,30}") {
            if let Ok(parameters) = Query(query).with(KNOWN) {
                let _ = parameters.text("name");
                let _ = parameters.number::<usize>("limit");
                let _ = parameters.flag("all");
                let _ = parameters.ids("id");
                let _ = parameters.id_list("ids");
            }
        }
    }
}
