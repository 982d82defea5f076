//! Records as JSON: an object per line.

use std::fmt::Write;

use crate::telemetry::escape;
use crate::telemetry::layer::Record;
use crate::telemetry::record::Value;

/// Writes `{"ts":…,"level":…,"target":…,"message":…,fields…}` and a newline.
pub(super) fn write(out: &mut String, record: &Record<'_>) {
    out.push_str("{\"ts\":");
    escape::json_string(out, &record.time);
    out.push_str(",\"level\":");
    escape::json_string(out, record.level.as_str());
    out.push_str(",\"target\":");
    escape::json_string(out, record.target);
    out.push_str(",\"message\":");
    escape::json_string(out, record.message);
    for (name, value) in record.fields.iter() {
        out.push(',');
        // The four names above are taken; a key must not come twice.
        match name {
            "ts" | "level" | "target" | "message" => escape::json_string(out, &format!("field_{name}")),
            name => escape::json_string(out, name),
        }
        out.push(':');
        match value {
            Value::Text(text) => escape::json_string(out, text),
            Value::Float(number) if !number.is_finite() => escape::json_string(out, &number.to_string()),
            // Writing to a string cannot fail.
            Value::Float(number) => drop(write!(out, "{number}")),
            Value::Signed(number) => drop(write!(out, "{number}")),
            Value::Unsigned(number) => drop(write!(out, "{number}")),
            Value::Bool(value) => drop(write!(out, "{value}")),
        }
    }
    out.push_str("}\n");
}
