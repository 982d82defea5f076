//! Where traces go, in the words of OpenTelemetry's own variables.

use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::config::reader::Reader;
use crate::config::{Endpoint, Id, Mistake, Origin};

/// A collector of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Its base; spans go to `/v1/traces` below it.
    pub endpoint: Endpoint,
    /// What is sent along, like the key of an account; values are not shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What this process is called there.
    pub service_name: String,
}

impl TraceSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if !cfg!(feature = "otlp") {
            // The variable may be meant for others on this machine; the flag is not.
            if reader.values.given(Id::OtlpEndpoint).iter().any(|value| value.origin == Origin::Flag) {
                reader.mistake_at(Id::OtlpEndpoint, WITHOUT);
            }
            return None;
        }
        let endpoint = reader.optional(Id::OtlpEndpoint, Endpoint::of_http)?;
        let text = |name: &str| reader.values.environment().get(name).map(|text| text.to_string_lossy().into_owned());
        let (headers, service_name) = (text(HEADERS), text("OTEL_SERVICE_NAME"));
        let headers = headers.filter(|text| !text.trim().is_empty()).map_or(Some(Vec::new()), |text| parse(&text));
        if headers.is_none() {
            let says = "expected name=value,name=value with percent-encoded values";
            reader.mistakes.push(Mistake::new(HEADERS, says));
        }
        let service_name = service_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "greenroom".to_owned());
        Some(TraceSettings { endpoint, headers: headers.unwrap_or_default(), service_name })
    }
}

/// Headers as OpenTelemetry writes them into a variable.
fn parse(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    text.split(',').map(header).collect()
}

/// The variable with what a collector wants to see.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// What is said of the flag when it can do nothing.
const WITHOUT: &str = "this build exports no traces: build greenroom with `--features otlp`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let headers = parse("x-key=a%20b, Authorization=Basic%20eA==").unwrap();
        assert_eq!(headers[0], ("x-key".parse().unwrap(), HeaderValue::from_static("a b")));
        assert_eq!(headers[1].1, "Basic eA==");
        assert!(!format!("{headers:?}").contains("eA=="));
        for wrong in ["x-key", "a b=c", "x=%0a", "x=1,,y=2"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
