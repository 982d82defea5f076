//! Spans in the JSON of OTLP 1: ids in hexadecimal, 64-bit numbers as texts, enums as numbers.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::telemetry::{FinishedSpan, SpanKind, SpanValue};

/// Who exports, as attributes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    attributes: Vec<(&'static str, SpanValue)>,
}

impl Resource {
    /// This process, under this name of a service.
    #[must_use]
    pub fn of_process(service_name: String) -> Self {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        Resource {
            attributes: vec![
                ("service.name", SpanValue::Text(service_name)),
                ("service.version", env!("CARGO_PKG_VERSION").into()),
                ("service.instance.id", SpanValue::Text(format!("{host}:{}", std::process::id()))),
                ("host.name", SpanValue::Text(host.into_owned())),
                ("process.pid", i64::from(std::process::id()).into()),
            ],
        }
    }
}

/// The body of a request with these spans.
#[must_use]
pub fn traces(resource: &Resource, spans: &[FinishedSpan]) -> Value {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({
        "resourceSpans": [{
            "resource": { "attributes": attributes(&resource.attributes) },
            "scopeSpans": [{
                "scope": { "name": "greenroom", "version": env!("CARGO_PKG_VERSION") },
                "spans": spans,
            }],
        }],
    })
}

fn span(span: &FinishedSpan) -> Value {
    let started = span.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = |time: Duration| time.as_nanos().to_string();
    let mut json = json!({
        "traceId": format!("{:032x}", span.trace),
        "spanId": format!("{:016x}", span.id),
        "name": span.name,
        "kind": match span.kind { SpanKind::Server => 2, SpanKind::Client => 3 },
        "startTimeUnixNano": nanoseconds(started),
        "endTimeUnixNano": nanoseconds(started + span.took),
        "attributes": attributes(&span.attributes),
    });
    if let Some(parent) = span.parent {
        json["parentSpanId"] = format!("{parent:016x}").into();
    }
    if let Some(error) = &span.error {
        json["status"] = json!({ "code": 2, "message": error });
    }
    json
}

fn attributes(attributes: &[(&'static str, SpanValue)]) -> Vec<Value> {
    let value = |value: &SpanValue| match value {
        SpanValue::Text(text) => json!({ "stringValue": text }),
        SpanValue::Number(number) => json!({ "intValue": number.to_string() }),
    };
    attributes.iter().map(|(key, of)| json!({ "key": key, "value": value(of) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_collectors_read_it() {
        let finished = FinishedSpan {
            trace: 1,
            id: 2,
            parent: Some(3),
            name: "actor request",
            kind: SpanKind::Client,
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            took: Duration::from_nanos(5),
            attributes: vec![("http.response.status_code", 502.into()), ("greenroom.actor.name", "a".into())],
            error: Some("status 502".to_owned()),
        };
        let resource = Resource { attributes: vec![("service.name", "greenroom".into())] };
        let expected = json!({
            "resourceSpans": [{
                "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "greenroom" } }] },
                "scopeSpans": [{
                    "scope": { "name": "greenroom", "version": env!("CARGO_PKG_VERSION") },
                    "spans": [{
                        "traceId": "00000000000000000000000000000001",
                        "spanId": "0000000000000002",
                        "parentSpanId": "0000000000000003",
                        "name": "actor request",
                        "kind": 3,
                        "startTimeUnixNano": "1000000000",
                        "endTimeUnixNano": "1000000005",
                        "attributes": [
                            { "key": "http.response.status_code", "value": { "intValue": "502" } },
                            { "key": "greenroom.actor.name", "value": { "stringValue": "a" } },
                        ],
                        "status": { "code": 2, "message": "status 502" },
                    }],
                }],
            }],
        });
        assert_eq!(traces(&resource, &[finished]), expected);
    }
}
