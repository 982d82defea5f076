//! The recorded answers of the real engine (`fixtures/`), asked again: same status, same codes, same JSON shape.

use serde_json::Value;

use crate::client::{Answer, Client};

/// One recorded exchange.
pub struct Recorded {
    pub name: &'static str,
    exchange: Value,
}

impl Recorded {
    pub fn read(name: &'static str) -> Self {
        let file = crate::folder().join("fixtures/engine-2.3.19").join(format!("{name}.json"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self { name, exchange: serde_json::from_str(&text).expect("a fixture is JSON") }
    }

    /// The id of the actor that the recording is about.
    pub fn actor_id() -> String {
        Self::read("actors_create").exchange["body"]["actor"]["actor_id"].as_str().expect("a recorded id").to_owned()
    }

    /// Sends the recorded request again, with texts replaced in its path (ids of the recording by those of today).
    pub async fn ask_again(&self, client: &Client, replace: &[(String, String)]) -> Answer {
        let request = &self.exchange["request"];
        let mut path = text(&request["path"]).to_owned();
        for (old, new) in replace {
            path = path.replace(old, new);
        }
        let headers = request["headers"].as_object().expect("headers are an object");
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        let body = match &request["body"] {
            Value::Null => String::new(),
            Value::String(raw) => raw.clone(),
            json => json.to_string(),
        };
        let answer = client.call(text(&request["method"]), &path, &headers, body).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// What is missing or of another type in the answer; more than recorded is fine.
    pub fn shape_differences(&self, answer: &Answer) -> Vec<String> {
        let mut found = self.status_difference(answer);
        compare(&self.exchange["body"], &answer.json(), self.name, &mut found);
        found
    }

    /// Differences in what a client decides by: status, group, code and the error header.
    pub fn refusal_differences(&self, answer: &Answer) -> Vec<String> {
        let mut found = self.status_difference(answer);
        let (recorded, seen) = (&self.exchange["body"], answer.json());
        for field in ["group", "code"] {
            if recorded[field] != seen[field] {
                found.push(format!("{}: {field} is {}, the engine says {}", self.name, seen[field], recorded[field]));
            }
        }
        if recorded["message"].is_string() && seen["message"].as_str().is_none_or(str::is_empty) {
            found.push(format!("{}: no message: {seen}", self.name));
        }
        let header = self.exchange["headers"]["x-rivet-error"].as_str().unwrap_or_default();
        if header != answer.header("x-rivet-error") {
            let seen = answer.header("x-rivet-error");
            found.push(format!("{}: x-rivet-error is {seen:?}, the engine says {header:?}", self.name));
        }
        found
    }

    fn status_difference(&self, answer: &Answer) -> Vec<String> {
        let recorded = self.exchange["status"].as_u64().expect("a status is a number");
        if recorded == u64::from(answer.status) {
            return Vec::new();
        }
        vec![format!("{}: {} {}, the engine says {recorded}", self.name, answer.status, answer.text())]
    }
}

fn compare(recorded: &Value, seen: &Value, at: &str, found: &mut Vec<String>) {
    match (recorded, seen) {
        (Value::Null, _) => {}
        // A time that is set here and not there is no difference; that the field exists is checked one level up.
        (Value::Number(_), Value::Null) if at.ends_with("_ts") => {}
        (Value::Object(recorded), Value::Object(seen)) => {
            let by_name = ["names", "runner_configs", "metadata", "datacenters"].iter().any(|end| at.ends_with(end));
            for (key, value) in recorded {
                match seen.get(key) {
                    Some(other) => compare(value, other, &format!("{at}.{key}"), found),
                    // Keys of these maps are data, not fields.
                    None if by_name => {}
                    None => found.push(format!("{at}.{key} is missing")),
                }
            }
        }
        (Value::Array(recorded), Value::Array(seen)) => {
            if let (Some(recorded), Some(seen)) = (recorded.first(), seen.first()) {
                compare(recorded, seen, &format!("{at}[0]"), found);
            }
        }
        (recorded, seen) if std::mem::discriminant(recorded) == std::mem::discriminant(seen) => {}
        (recorded, seen) => found.push(format!("{at} is {seen}, the engine has {recorded}")),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a recorded text")
}
