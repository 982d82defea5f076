//! The HTTP server: runners connect here, every other request goes to the routes it was given.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};

/// Whatever a response body can fail with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a response of the routes.
pub type ResponseBody = BoxBody<Bytes, BoxError>;

/// Answers everything that is not a runner's connection: the public API, clients' requests and sockets. The request
/// carries a [`PeerAddr`] extension, and `hyper::upgrade::on` works on it.
pub type Routes =
    Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>> + Send + Sync>;

/// Where a request came from; an extension of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);
