//! Tokens that callers present as `Authorization: Bearer …`.

use hyper::header::{AUTHORIZATION, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// The token that a caller presents.
pub(crate) fn of(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim_ascii())
}

/// Whether it is the right one. Compared in constant time, so that the time taken tells nothing of how much was right.
pub(crate) fn is(given: &[u8], token: &SecretString) -> bool {
    given.ct_eq(token.expose_secret().as_bytes()).into()
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_the_bearer_scheme_only() {
        let given = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("value"))]);
            of(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(given("Bearer secret"), Some(b"secret".to_vec()));
        assert_eq!(given("bearer  secret"), Some(b"secret".to_vec()));
        assert_eq!(given("Basic secret"), None);
        assert_eq!(given("Bearer"), None);
        assert_eq!(given("secret"), None);
    }
}
