//! The runner: a session with its gateway, a socket, and the actors it runs.
//!
//! ```no_run
//! use greenroom::host::in_process::{Actor, InProcess, Response};
//! use greenroom::host::{ActorContext, Request};
//! use greenroom::runner::Runner;
//!
//! struct Hello;
//!
//! impl Actor for Hello {
//!     async fn request(&self, _: Request) -> Response {
//!         Response::text("hello")
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let runner = Runner::builder("http://127.0.0.1:6420".parse()?)
//!     .actor("hello", InProcess::new(|_: ActorContext| async { Ok(Hello) }))
//!     .start()?;
//! runner.connected().await;
//! println!("{:?}", runner.wait().await);
//! # Ok(()) }
//! ```
//!
//! One driver task owns the session core by value; everything else talks to it over bounded channels.

mod builder;
mod driver;
mod effects;
mod gathering;
mod handle;
mod journal;
mod observer;
mod streams;

pub use builder::{Builder, StartFailure};
pub use handle::{ActorInfo, Identity, RunnerHandle, Status};
pub use observer::{ActorLife, Census, LifeState, LifeWish};

pub use crate::session::{Exit, LinkStatus};

use crate::config::Endpoint;

/// A runner in this process; begins with [`Runner::builder`].
#[derive(Debug)]
pub struct Runner;

impl Runner {
    /// Collects what a runner needs, beginning with its gateway.
    #[must_use]
    pub fn builder(endpoint: Endpoint) -> Builder {
        Builder::new(endpoint)
    }
}
