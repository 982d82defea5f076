//! The runner that is measured: actors that do nothing.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::config::Endpoint;
use greenroom::host::in_process::{Actor, InProcess, Response};
use greenroom::host::{ActorContext, Request, WebSocket, WebSocketRequest};
use greenroom::runner::Runner;

/// Serves until it is killed. Says how many actors run whenever that changes, a line each.
pub fn serve(gateway: SocketAddr) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("runner: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let running = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&running);
        let host = InProcess::new(move |context| {
            let life = Idle { context, running: Arc::clone(&counted) };
            life.running.fetch_add(1, Ordering::Relaxed);
            async { Ok(life) }
        });
        let runner = Runner::builder(Endpoint::of_listener(gateway)).name("scale").slots(4_000_000).actor("idle", host);
        let runner = match runner.start() {
            Ok(runner) => runner,
            Err(error) => {
                eprintln!("runner: {error}");
                return ExitCode::FAILURE;
            }
        };
        runner.connected().await;
        let mut said = 0;
        println!("{said}");
        loop {
            let now = running.load(Ordering::Relaxed);
            if now != said {
                println!("{now}");
                said = now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

struct Idle {
    context: ActorContext,
    running: Arc<AtomicUsize>,
}

impl Actor for Idle {
    async fn request(&self, request: Request) -> Response {
        if request.route() == "/sleep" {
            // Fails only when the runner has stopped, and then nobody waits for the answer.
            let _ = self.context.sleep().await;
        }
        Response::text("ok")
    }

    async fn websocket(&self, _: WebSocketRequest, mut socket: WebSocket) {
        if socket.accept().await.is_ok() {
            while socket.receive().await.is_some() {}
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}
