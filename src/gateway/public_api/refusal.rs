//! Refusals as handlers give them back, and JSON bodies that are refused.

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::gateway::refusal::Refusal;

/// What handlers answer.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// A JSON body. Everything wrong with it is `api.bad_request`, with the reason.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub T);

impl<T, S> FromRequest<S> for JsonBody<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(JsonBody(body)),
            Err(rejection) => Err(Refusal::bad_request(rejection.body_text())),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.into_api_response().map(Body::from)
    }
}
