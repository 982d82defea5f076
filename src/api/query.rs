//! Keys in paths and queries: raw bytes percent-encoded, or base64url with `enc=b64`.

use bytes::Bytes;
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use percent_encoding::percent_decode_str;

use super::error::ApiError;

/// The parameters of a query, percent-decoded to bytes; `+` stands for itself.
pub(super) struct Query(Vec<(String, Vec<u8>)>);

/// How keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Base64,
}

impl Query {
    /// Reads a query; a parameter that is not among `known`, or stands twice, is a mistake.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut parameters: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let message = format!("unknown parameter `{name}`; known are {}", known.join(", "));
                return Err(ApiError::bad_request(message, ""));
            }
            if parameters.iter().any(|(other, _)| other == name) {
                return Err(ApiError::bad_request(format!("parameter `{name}` stands twice"), ""));
            }
            parameters.push((name.to_owned(), percent_decode_str(value).collect()));
        }
        Ok(Query(parameters))
    }

    pub(super) fn encoding(&self) -> Result<Encoding, ApiError> {
        match self.get("enc") {
            None | Some(b"") => Ok(Encoding::Raw),
            Some(b"b64") => Ok(Encoding::Base64),
            Some(_) => Err(ApiError::bad_request("unknown `enc`", "the only encoding is b64, which is base64url")),
        }
    }

    /// A key among the parameters; an empty one counts as absent.
    pub(super) fn key(&self, name: &str) -> Result<Option<Bytes>, ApiError> {
        let encoding = self.encoding()?;
        self.get(name).filter(|value| !value.is_empty()).map(|value| encoding.decode(value)).transpose()
    }

    /// A text among the parameters; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(value) = self.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let text = String::from_utf8(value.to_vec());
        text.map(Some).map_err(|_| ApiError::bad_request(format!("`{name}` is not UTF-8"), ""))
    }

    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let count = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        count.map(Some).ok_or_else(|| ApiError::bad_request(format!("`{name}` is not a count"), ""))
    }

    pub(super) fn switch(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some(b"" | b"false" | b"0") => Ok(false),
            Some(b"true" | b"1") => Ok(true),
            Some(_) => Err(ApiError::bad_request(format!("`{name}` is neither true nor false"), "")),
        }
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }
}

impl Encoding {
    pub(super) fn decode(self, value: &[u8]) -> Result<Bytes, ApiError> {
        match self {
            Encoding::Raw => Ok(Bytes::copy_from_slice(value)),
            Encoding::Base64 => base64(value),
        }
    }
}

/// Reads base64url, padded or not.
pub(super) fn base64(text: &[u8]) -> Result<Bytes, ApiError> {
    let decoded = if text.ends_with(b"=") { BASE64URL.decode(text) } else { BASE64URL_NOPAD.decode(text) };
    decoded.map(Bytes::from).map_err(|error| {
        let message = format!("`{}` is not base64url: {error}", String::from_utf8_lossy(&text[..text.len().min(64)]));
        ApiError::bad_request(message, "use the URL-safe alphabet, with or without padding")
    })
}
