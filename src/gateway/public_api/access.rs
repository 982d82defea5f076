//! Who may use the API.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::header::{AUTHORIZATION, HeaderMap};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::Api;
use crate::gateway::refusal::Refusal;

/// Lets in who presents the admin token; where there is none, who calls the gateway by an allowed name.
pub(super) async fn require_token(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(token) = &api.settings.admin_token else {
        return match api.settings.allowed_hosts.check(&request) {
            Ok(()) => next.run(request).await,
            Err(why) => Refusal::forbidden(why).into_response(),
        };
    };
    match bearer(request.headers()) {
        None => Refusal::forbidden("Token not provided").into_response(),
        // Compared in constant time, so that the time taken tells nothing of how much was right.
        Some(given) if bool::from(given.ct_eq(token.expose_secret().as_bytes())) => next.run(request).await,
        Some(_) => Refusal::forbidden("Invalid token").into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim_ascii())
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_the_bearer_scheme_only() {
        let given = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("value"))]);
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(given("Bearer secret"), Some(b"secret".to_vec()));
        assert_eq!(given("bearer  secret"), Some(b"secret".to_vec()));
        assert_eq!(given("Basic secret"), None);
        assert_eq!(given("Bearer"), None);
        assert_eq!(given("secret"), None);
    }
}
