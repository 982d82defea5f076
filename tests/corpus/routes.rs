//! What clients ask the gateway for: an actor gets path and query as they were sent, without what was for the gateway,
//! and whoever asks wrongly is told why.

use greenroom::gateway::ingress::Target;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Uri};

use super::choices::Choices;

pub fn routes(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut headers = HeaderMap::new();
    for _ in 0..choices.below(4) {
        let name = HeaderName::from_static(choices.pick(&[
            "x-rivet-target",
            "x-rivet-actor",
            "sec-websocket-protocol",
            "host",
        ]));
        let value = match choices.below(6) {
            0 => HeaderValue::from_static("actor"),
            1 => HeaderValue::from_static(ID),
            2 => HeaderValue::from_static("rivet, rivet_target.actor"),
            3 => HeaderValue::from_static("rivet_actor.53heuibpefzx3lj3skyt2h5xuwal00"),
            4 | 5 => match HeaderValue::from_bytes(choices.bytes()) {
                Ok(value) => value,
                Err(_) => return,
            },
            _ => unreachable!("below six"),
        };
        headers.append(name, value);
    }
    let text = String::from_utf8_lossy(choices.rest()).replace("{ID}", ID);
    let Ok(uri) = text.parse::<Uri>() else { return };
    let mut request = Request::new(());
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    for socket in [false, true] {
        match Target::of(&request, socket) {
            Target::Actor(target) => {
                check_path(&target.path, &uri);
                let sent = uri.query().map_or(uri.path().to_owned(), |query| format!("{}?{query}", uri.path()));
                let bare = &*target.path == "/" || target.path.starts_with("/?");
                assert!(bare || sent.ends_with(&*target.path), "{uri}: {:?}", target.path);
            }
            Target::Query(target) => {
                check_path(&target.path, &uri);
                assert!(!target.name.is_empty() && !target.key.is_empty(), "{uri}");
                let query = target.path.split_once('?').map_or("", |(_, query)| query);
                assert!(!query.split('&').any(|parameter| parameter.starts_with("rvt-")), "{uri}: {query}");
                for kept in query.split('&').filter(|parameter| !parameter.is_empty()) {
                    assert!(uri.query().is_some_and(|all| all.split('&').any(|one| one == kept)), "{uri}: {kept}");
                }
            }
            Target::Unclear(refusal) => {
                assert!(!refusal.group.is_empty() && !refusal.code.is_empty() && !refusal.message.is_empty());
            }
            Target::Api => {}
        }
    }
}

fn check_path(path: &str, uri: &Uri) {
    assert!(path.starts_with('/'), "{uri}: {path}");
    assert!(!path.contains(['\r', '\n', ' ', '\0']), "{uri}: {path:?}");
    assert!(path.parse::<Uri>().is_ok(), "{uri}: {path:?}");
}

const ID: &str = "53heuibpefzx3lj3skyt2h5xuwal00";
