//! What is logged: looked at and changed while the runner runs.

use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Refusal;
use crate::config::{LogSettings, duration};
use crate::telemetry::{self, LogControl};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    #[serde(rename = "for")]
    during: Option<String>,
}

pub(super) async fn show() -> Result<Json<Value>, Refusal> {
    control().map(told)
}

/// The body is the filter; `?for=10m` has it undone after that time.
pub(super) async fn set(Query(change): Query<Change>, body: String) -> Result<Json<Value>, Refusal> {
    let control = control()?;
    let filter = LogSettings::filter_of(body.trim()).map_err(Refusal::invalid)?;
    let during = change.during.as_deref().map(|text| match duration(text) {
        Ok(during) if !during.is_zero() && during <= DURING_MAX => Ok(during),
        Ok(_) => Err(Refusal::invalid("expected a duration up to 24h for `for`")),
        Err(expected) => Err(Refusal::invalid(format!("for={text:?}: {expected}"))),
    });
    control.set(&filter, during.transpose()?);
    Ok(told(control))
}

fn told(control: &LogControl) -> Json<Value> {
    let status = control.status();
    Json(json!({
        "filter": status.filter.to_string(),
        "configured": status.configured.to_string(),
        "until": status.until.map(telemetry::rfc3339),
    }))
}

fn control() -> Result<&'static LogControl, Refusal> {
    let missing = "the logs of this process are not set up by greenroom";
    telemetry::control().ok_or_else(|| Refusal::new(StatusCode::NOT_IMPLEMENTED, "no_log", missing))
}

/// A filter that is wanted for longer belongs into the settings.
const DURING_MAX: Duration = Duration::from_secs(24 * 3600);
