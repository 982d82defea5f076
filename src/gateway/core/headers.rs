//! Header lists on a wire whose maps hold each name once.
//!
//! Between our own two ends, repeated values travel joined by a newline, which no header value can contain. A runner
//! that does not know this gets them joined as HTTP allows it.

use bytestring::ByteString;
use greenroom_protocol::Headers;

use super::Features;

/// Makes names unique, for a runner that understands these features.
pub(super) fn join(headers: Headers, features: Features) -> Headers {
    let repeats = headers.iter().enumerate().any(|(place, (name, _))| headers[..place].iter().any(|(n, _)| n == name));
    if !repeats {
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
            "cookie" => "; ",
            _ => ", ",
        };
        let before = &joined[place].1;
        joined[place].1 = ByteString::from(format!("{before}{separator}{value}"));
    }
    joined
}

/// Takes joined values apart again.
pub(super) fn split(headers: Headers, features: Features) -> Headers {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn repeats_travel_by_newline_only_to_who_understands_it() {
        let ours = Features { stream: true, repeated_headers: true };
        let repeated = headers(&[("accept", "a"), ("cookie", "b=1"), ("accept", "c"), ("cookie", "d=2")]);
        let joined = join(repeated.clone(), ours);
        assert_eq!(joined, headers(&[("accept", "a\nc"), ("cookie", "b=1\nd=2")]));
        assert_eq!(
            split(joined, ours),
            headers(&[("accept", "a"), ("accept", "c"), ("cookie", "b=1"), ("cookie", "d=2")])
        );
        let joined = join(repeated, Features::default());
        assert_eq!(joined, headers(&[("accept", "a, c"), ("cookie", "b=1; d=2")]));
        assert_eq!(split(joined.clone(), Features::default()), joined);
    }
}
