//! Gateways that ask for more than they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::host::in_process::{Actor, InProcess, Response};
use greenroom::host::{ActorContext, Request};
use greenroom::protocol::{MessageId, ToClient, ToServer, ToServerTunnel};
use greenroom::runner::Runner;

use crate::gateway::{Gateway, request, stream};

/// Counts what it answers; `/large` are a mebibyte.
struct Baker {
    served: Arc<AtomicUsize>,
}

impl Actor for Baker {
    async fn request(&self, request: Request) -> Response {
        self.served.fetch_add(1, Ordering::Relaxed);
        Response::bytes(vec![b'x'; if request.route() == "/large" { 1 << 20 } else { 1 }])
    }
}

#[tokio::test]
async fn a_gateway_that_reads_nothing_gets_no_more_work_done_and_everything_when_it_reads_again() {
    let gateway = Gateway::listen().await;
    let served = Arc::new(AtomicUsize::new(0));
    let counter = served.clone();
    let host = InProcess::new(move |_: ActorContext| {
        let served = counter.clone();
        async { Ok(Baker { served }) }
    });
    let _runner = Runner::builder(gateway.endpoint()).actor("baker", host).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "baker").await;

    const ASKED: u32 = 4000;
    // The first answers are more than the sockets and the runner hold; then requests pile up, first there, then here.
    let mut accepted = 0;
    let padding = "p".repeat(8 * 1024);
    for number in 0..ASKED {
        let id = MessageId { stream: stream(number), index: 0 };
        let path = if number < 64 { "/large" } else { "/small" };
        let message = request("a", &format!("{path}?{padding}"), None, false);
        if !wire.try_send(ToClient::Tunnel { id, message }, Duration::from_millis(400)).await {
            break;
        }
        accepted = number + 1;
    }
    assert!(accepted < ASKED, "the runner reads for ever");
    let served_unread = served.load(Ordering::Relaxed);
    assert!(served_unread < 300, "{served_unread} of {accepted} requests were answered for a gateway that reads none");

    let mut answered = 0;
    while answered < accepted {
        answered += wire
            .pick("an answer", |message| match message {
                ToServer::Tunnel { message: ToServerTunnel::ResponseStart { status: 200, .. }, .. } => Some(1),
                _ => None,
            })
            .await;
    }
    wire.finish_sending().await;
    assert_eq!(wire.get(stream(ASKED), "a", "/small").await.0, 200);
}
