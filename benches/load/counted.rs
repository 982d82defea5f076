//! A runner in a process whose allocations are counted.

use std::net::SocketAddr;
use std::process::Command;

use greenroom::config::Endpoint;
use greenroom::host::in_process::{Actor, InProcess, Response};
use greenroom::host::{Request, StartError};
use greenroom::protocol::{ToServer, ToServerTunnel};
use greenroom::runner::Runner;

use crate::allocator;
use crate::app::App;
use crate::figures::{Figures, Part, Quantity, Side};
use crate::load::actors;
use crate::wire::Wire;

/// Becomes that runner, until it is killed.
pub async fn serve() -> Result<(), String> {
    let endpoint = std::env::var("GREENROOM_ENDPOINT").map_err(|error| error.to_string())?;
    let gateway: SocketAddr = endpoint.trim_start_matches("http://").parse().map_err(|error| format!("{error}"))?;
    let host = InProcess::new(|_| async { Ok::<_, StartError>(Counted) });
    let runner = Runner::builder(Endpoint::of_listener(gateway)).name("bench").slots(10).actor("bench", host);
    let runner = runner.start().map_err(|error| error.to_string())?;
    runner.wait().await;
    Ok(())
}

/// One round: allocations of the whole runner for each request.
pub fn measure(requests: usize, figures: &mut Figures) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    command.arg("--become-runner");
    let mut app = App::start(Side::Ours, command)?;
    let ids = actors::start(&mut app.wire, 1);
    pings(&mut app.wire, &ids[0], requests / 4);
    let before = allocations(&mut app.wire, &ids[0])?;
    pings(&mut app.wire, &ids[0], requests);
    let each = (allocations(&mut app.wire, &ids[0])? - before) / requests as f64;
    eprintln!("{:<48} {each:.1} allocations", ROW);
    figures.add(Part::Codec, ROW, Quantity::Allocations, Side::Ours, each);
    figures.add(Part::Codec, ROW, Quantity::Allocations, Side::Budget, HANDFUL);
    Ok(())
}

fn pings(wire: &mut Wire, id: &str, count: usize) {
    for number in 0..count + OPEN {
        if number < count {
            wire.request(id, "/ping");
        }
        if number >= OPEN {
            answer(wire);
        }
    }
}

fn allocations(wire: &mut Wire, id: &str) -> Result<f64, String> {
    wire.request(id, "/allocations");
    answer(wire).parse().map_err(|_| "the runner does not say its allocations".to_owned())
}

fn answer(wire: &mut Wire) -> String {
    loop {
        if let ToServer::Tunnel { message: ToServerTunnel::ResponseStart { status: 200, body, .. }, .. } = wire.next() {
            return String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
        }
    }
}

struct Counted;

impl Actor for Counted {
    async fn request(&self, request: Request) -> Response {
        match request.route() {
            "/allocations" => Response::text(allocator::count().to_string()),
            _ => Response::text("pong"),
        }
    }
}

const ROW: &str = "a request through the runner";
const OPEN: usize = 64;
/// A handful for each of its two messages.
const HANDFUL: f64 = 10.0;
