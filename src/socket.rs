//! One WebSocket to a gateway: dialled with a deadline, pumped by two tasks, watched for silence.
//!
//! [`dial`] opens it; the reader task decodes messages and answers pings at once, so that nothing an actor does can
//! delay them; the writer task gathers frames and flushes when there is nothing more to gather. What the messages mean
//! is no concern of this layer. [`HttpClient`] is for everything else that the daemon calls.

mod dial;
mod http;
mod pump;
mod round_trip;

pub use dial::{DialError, Patience, Target, dial, tls_connector};
pub use http::{AnswerBody, CallError, HttpClient, Reach};
pub use pump::{Closed, Connection, Outgoing, Received};
