//! One HTTP request on a connection of its own.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Status and body of the answer.
pub async fn request(method: &str, url: &str, headers: &[(&str, &str)], body: Bytes) -> (u16, Bytes) {
    let uri: hyper::Uri = url.parse().unwrap();
    let authority = uri.authority().unwrap().as_str();
    let stream = TcpStream::connect(authority).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = hyper::Request::builder().method(method).uri(uri.path_and_query().unwrap().as_str());
    request = request.header("host", authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// Status and text of the answer.
pub async fn request_text(method: &str, url: &str, headers: &[(&str, &str)], body: Bytes) -> (u16, String) {
    let (status, body) = request(method, url, headers, body).await;
    (status, String::from_utf8(body.to_vec()).unwrap())
}
