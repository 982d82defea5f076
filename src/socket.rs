//! One WebSocket to a gateway: dialled with a deadline, watched for silence.
//!
//! [`dial`] opens it; whoever waits for the [`Connection`] writes what was gathered, reads and decodes what came, and
//! answers pings. What the messages mean is no concern of this layer. [`HttpClient`] is for everything else that the daemon calls.

mod connection;
mod dial;
mod http;
mod round_trip;

pub use connection::{Closed, Connection, Received};
pub use dial::{DialError, Patience, Target, dial, tls_connector};
pub use http::{AnswerBody, CallError, HttpClient, Reach};
