//! What this build is.

use greenroom_protocol::Version;
use serde_json::json;

/// The version in a line, for people.
pub(super) fn text() -> String {
    let (oldest, newest) = (Version::ALL[0], Version::LATEST);
    format!("greenroom {VERSION} (runner protocol {oldest} to {newest}; {})", features().join(", "))
}

/// The same for programs.
pub(super) fn json() -> String {
    let versions: Vec<u16> = Version::ALL.iter().map(|version| *version as u16).collect();
    let version = json!({
        "name": "greenroom",
        "version": VERSION,
        "protocol_versions": versions,
        "features": features(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    });
    version.to_string()
}

fn features() -> Vec<&'static str> {
    let mut features = vec!["daemon"];
    if cfg!(feature = "gateway") {
        features.push("gateway");
    }
    features
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
