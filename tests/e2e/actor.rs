//! The actor under load: writes what it is told, and notes each of its lives.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use greenroom::config::Endpoint;
use greenroom::host::in_process::{Actor, InProcess, Response};
use greenroom::host::{ActorContext, Request, StartError};
use greenroom::runner::{Runner, RunnerHandle};

/// The pool of the runner.
pub const POOL: &str = "e2e";
/// The name of the actors.
pub const NAME: &str = "clerk";
/// Where an actor keeps how often it was started.
pub const LIVES: &str = "lives";

/// A runner inside this process that serves [`NAME`].
pub fn runner(authority: &str) -> RunnerHandle {
    let address: SocketAddr = authority.parse().expect("an address");
    let runner = Runner::builder(Endpoint::of_listener(address)).name(POOL).key("e2e").slots(10_000);
    runner.actor(NAME, InProcess::new(Clerk::start)).start().expect("a runner")
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    i64::try_from(since.as_millis()).expect("a time")
}

struct Clerk {
    context: ActorContext,
}

impl Clerk {
    async fn start(context: ActorContext) -> Result<Self, StartError> {
        let lives = context.key().generation.to_string();
        context.put(LIVES, lives).await.map_err(StartError::new)?;
        Ok(Clerk { context })
    }
}

impl Actor for Clerk {
    async fn request(&self, request: Request) -> Response {
        let argument = request.query().to_owned();
        let done = match request.route() {
            "/put" => {
                let key = Bytes::from(argument);
                let body = request.body.collect().await.unwrap_or_default();
                self.context.put(key, body).await.map_err(|error| error.to_string())
            }
            "/sleep" => self.context.sleep().await.map_err(|gone| gone.to_string()),
            "/sleep-until" => {
                let at = argument.parse().ok();
                match self.context.set_alarm(at).await {
                    Ok(()) => self.context.sleep().await.map_err(|gone| gone.to_string()),
                    Err(gone) => Err(gone.to_string()),
                }
            }
            _ => Err("no such route".to_owned()),
        };
        match done {
            Ok(()) => Response::text("ok"),
            Err(error) => Response::text(error).status(500),
        }
    }
}
