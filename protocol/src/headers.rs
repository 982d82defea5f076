//! Header lists on a wire whose maps hold each name once.
//!
//! Between our own two ends, repeated values travel joined by a newline, which no header value can contain. Towards
//! other gateways they are joined as HTTP allows it: by a comma, cookies by a semicolon. Only `set-cookie` has no joined
//! form; its repeats travel under names that differ in case, which HTTP takes for the same name.

use std::collections::BTreeSet;

use bytestring::ByteString;

use crate::{Features, Headers};

/// Makes names unique, for the other end of these features.
#[must_use]
pub fn join(headers: Headers, features: Features) -> Headers {
    if !repeats(&headers) {
        return headers;
    }
    let mut joined: Headers = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let Some(place) = joined.iter().position(|(other, _)| *other == name) else {
            joined.push((name, value));
            continue;
        };
        let separator = match &*name {
            _ if features.repeated_headers => "\n",
            "set-cookie" => {
                if let Some(variant) = case_variant(&name, &joined) {
                    joined.push((variant, value));
                }
                continue;
            }
            "cookie" => "; ",
            _ => ", ",
        };
        let before = &joined[place].1;
        joined[place].1 = ByteString::from(format!("{before}{separator}{value}"));
    }
    joined
}

/// Takes joined values apart again.
#[must_use]
pub fn split(headers: Headers, features: Features) -> Headers {
    if !features.repeated_headers || !headers.iter().any(|(_, value)| value.contains('\n')) {
        return headers;
    }
    let mut split: Headers = Vec::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        for part in value.split('\n') {
            split.push((name.clone(), value.slice_ref(part)));
        }
    }
    split
}

fn repeats(headers: &Headers) -> bool {
    if headers.len() <= FEW {
        return headers.iter().enumerate().any(|(place, (name, _))| headers[..place].iter().any(|(n, _)| n == name));
    }
    let mut seen = BTreeSet::new();
    !headers.iter().all(|(name, _)| seen.insert(name))
}

/// The same name with another mix of cases that is not taken yet; as many as the name has letters to the power of two.
fn case_variant(name: &str, taken: &Headers) -> Option<ByteString> {
    (1u32..VARIANTS_MAX).find_map(|bits| {
        let variant: String = name
            .chars()
            .enumerate()
            .map(
                |(place, letter)| {
                    if place < 32 && bits >> place & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
                },
            )
            .collect();
        let free = variant != name && taken.iter().all(|(other, _)| **other != *variant);
        free.then(|| ByteString::from(variant))
    })
}

/// Up to this many names are compared pairwise.
const FEW: usize = 32;
/// Bounds the search for a free spelling; a `set-cookie` beyond it is left out.
const VARIANTS_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn repeats_travel_by_newline_between_our_own_ends() {
        let ours = Features { repeated_headers: true, ..Features::default() };
        let repeated = headers(&[("set-cookie", "a=1"), ("x", "1"), ("set-cookie", "b=2")]);
        let joined = join(repeated, ours);
        assert_eq!(joined, headers(&[("set-cookie", "a=1\nb=2"), ("x", "1")]));
        assert_eq!(split(joined, ours), headers(&[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x", "1")]));
    }

    #[test]
    fn towards_others_no_name_stands_twice_and_no_cookie_is_lost() {
        let repeated = headers(&[
            ("set-cookie", "a=1"),
            ("vary", "a"),
            ("vary", "b"),
            ("set-cookie", "b=2"),
            ("set-cookie", "c=3"),
        ]);
        let joined = join(repeated, Features::default());
        assert!(!repeats(&joined));
        let cookies: Vec<_> =
            joined.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, v)| &**v).collect();
        assert_eq!(cookies, ["a=1", "b=2", "c=3"]);
        assert!(joined.contains(&("vary".into(), "a, b".into())));
    }
}
