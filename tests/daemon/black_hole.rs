//! A network that swallows everything between runner and gateway: what an operator sees of it, what it costs, and how
//! it ends. `BLACK_HOLE_SECS=600` makes it last for ten minutes; the numbers are printed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, copy, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::dev::request;
use crate::process::Daemon;

#[tokio::test]
async fn a_gateway_in_a_black_hole_costs_one_warning_and_no_actor() {
    let mut gateway = Daemon::start(
        tempfile::tempdir().unwrap(),
        &["gateway", "--listen", "127.0.0.1:0", "--runner-lost-after", "1h", "--rate-limit", "off"],
    );
    let authority = gateway.record("gateway serves").await["address"].as_str().unwrap().to_owned();
    let network = Network::before(authority.parse().unwrap()).await;
    let (mut runner, admin) = runner(network.address).await;
    runner.record("connected to the gateway").await;
    let actor = actor(&authority).await;
    let pid = get(&actor).await;
    assert!(ready(&admin).await.starts_with("ready since 20"));

    let length =
        std::env::var("BLACK_HOLE_SECS").map_or(Duration::ZERO, |text| Duration::from_secs(text.parse().unwrap()));
    let (began, before) = (Instant::now(), (runner.cpu_time(), gateway.cpu_time()));
    network.weather.send_replace(Weather::Swallows);
    let red = red(&admin, "the gateway was silent for 15 s").await;
    let since = red.split_once(", since ").unwrap().1.split_once(' ').unwrap().0.to_owned();
    // Connections do not even open, then they open and nothing else happens, and so on.
    network.weather.send_replace(Weather::Deaf);
    self::red(&admin, "did not answer within 10 s").await;
    for round in 0.. {
        let Some(left) = length.checked_sub(began.elapsed()) else { break };
        network.weather.send_replace(if round % 12 < 6 { Weather::Swallows } else { Weather::Deaf });
        tokio::time::sleep(left.min(Duration::from_secs(5))).await;
        let text = ready(&admin).await;
        assert!(text.starts_with("not ready: ") && text.contains(&format!("since {since} (")), "{text}");
    }
    let lasted = began.elapsed();
    let used = (runner.cpu_time() - before.0, gateway.cpu_time() - before.1);

    network.weather.send_replace(Weather::Fair);
    let healed = Instant::now();
    let told = runner.records_until("connected to the gateway", Duration::from_secs(120)).await;
    eprintln!(
        "black hole of {lasted:.0?}: the runner used {:?} of processor time ({:.3} % of a core), the gateway {:?}; \
         the runner wrote {} records and was back after {:.1?}",
        used.0,
        used.0.as_secs_f64() / lasted.as_secs_f64() * 100.0,
        used.1,
        told.len(),
        healed.elapsed(),
    );
    let loud: Vec<_> = told.iter().filter(|record| record["level"] == "WARN" || record["level"] == "ERROR").collect();
    assert!(loud.len() == 1 && loud[0]["message"] == "not connected to the gateway", "{told:#?}");
    assert!(told.len() < 10, "what repeats is not told: {told:#?}");
    assert!(used.0 < lasted / 100, "{:?} in {lasted:?}", used.0);
    assert!(used.1 < lasted / 100, "the gateway: {:?} in {lasted:?}", used.1);

    // The same process as before, so the actor ran on.
    assert_eq!(get(&actor).await, pid);
    assert!(ready(&admin).await.starts_with("ready since 20"));
    let metrics = request("GET", &format!("http://{admin}/metrics"), "").await.1;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{metrics}"));
        line.trim().parse().unwrap()
    };
    assert!(value("greenroom_gateway_outage_seconds_total ") > (lasted - Duration::from_secs(20)).as_secs_f64());
    assert!(value("greenroom_gateway_connects_total{result=\"failed\"} ") >= 1.0);
    runner.stop().await;
    gateway.stop().await;
}

/// A runner behind this address, with one kind of actor, and its admin address.
async fn runner(gateway: SocketAddr) -> (Daemon, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pid.py"), PID).unwrap();
    let file = dir.path().join("actors.toml");
    std::fs::write(&file, "[actors.pid]\ncommand = [\"python3\", \"pid.py\"]\nstart_timeout = \"29s\"\n").unwrap();
    let endpoint = format!("http://{gateway}");
    let file = file.to_str().unwrap().to_owned();
    let arguments = ["run", "--endpoint", &endpoint, "--admin", "127.0.0.1:0", "--actors", &file, "--allow-root"];
    let mut runner = Daemon::start(dir, &arguments);
    let admin = runner.record("admin address serves").await["address"].as_str().unwrap().to_owned();
    (runner, admin)
}

/// Makes an actor, and answers with its address.
async fn actor(gateway: &str) -> String {
    let body = r#"{"name":"pid","key":"k","runner_name_selector":"default","crash_policy":"sleep"}"#;
    let (status, answer) = request("PUT", &format!("http://{gateway}/actors?namespace=default"), body).await;
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    format!("http://{gateway}/gateway/{}/", answer["actor"]["actor_id"].as_str().unwrap())
}

async fn get(url: &str) -> String {
    let (status, answer) = request("GET", url, "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn ready(admin: &str) -> String {
    request("GET", &format!("http://{admin}/readyz"), "").await.1
}

/// Waits until the probe is red and names this reason.
async fn red(admin: &str, reason: &str) -> String {
    let began = Instant::now();
    loop {
        let text = ready(admin).await;
        if text.starts_with("not ready: ") && text.contains(reason) {
            return text;
        }
        assert!(began.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weather {
    Fair,
    /// Takes connections and what is said on them, and answers nothing.
    Swallows,
    /// Connections that are there swallow; new ones do not come about, and nobody says so.
    Deaf,
}

/// A proxy before the gateway; connections that were open in bad weather do not come back.
struct Network {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Network {
    async fn before(gateway: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        // Few may wait to be accepted, so that it is soon full.
        let listener = socket.listen(1).unwrap();
        let weather = watch::Sender::new(Weather::Fair);
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, gateway, weather.subscribe()));
        Network { address, weather, task }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, gateway: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    let mut waiting = Vec::new();
    let address = listener.local_addr().unwrap();
    loop {
        let deaf = *weather.borrow_and_update() == Weather::Deaf;
        if !deaf {
            waiting.clear();
        } else if waiting.is_empty() {
            while let Ok(Ok(stream)) = tokio::time::timeout(FULL, TcpStream::connect(address)).await {
                waiting.push(stream);
            }
        }
        tokio::select! {
            accepted = listener.accept(), if !deaf => {
                drop(connections.spawn(forward(accepted.unwrap().0, gateway, weather.clone())));
            }
            changed = weather.changed() => if changed.is_err() { return },
        }
    }
}

async fn forward(mut near: TcpStream, gateway: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(mut far) = TcpStream::connect(gateway).await else { return };
    tokio::select! {
        biased;
        _ = weather.wait_for(|now| *now != Weather::Fair) => {}
        _ = copy_bidirectional(&mut near, &mut far) => return,
    }
    let swallowed = async { tokio::join!(swallow(near), swallow(far), std::future::pending::<()>()) };
    tokio::select! {
        _ = swallowed => {}
        _ = weather.wait_for(|now| *now == Weather::Fair) => {}
    }
}

/// Reads to the end and keeps the connection, so that the other side learns nothing.
async fn swallow(mut stream: TcpStream) {
    // However it ends, nobody is told.
    let _ = copy(&mut stream as &mut (dyn AsyncRead + Unpin + Send), &mut sink()).await;
    std::future::pending::<()>().await;
}

/// How long a connection may take on loopback before the queue of the listener is full.
const FULL: Duration = Duration::from_millis(500);
/// Far more than it takes to notice.
const PATIENCE: Duration = Duration::from_secs(60);

const PID: &str = r#"
import os, socketserver
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def do_POST(self):
        self.send_error(404)
    def address_string(self):
        return ""
    def log_message(self, *_):
        pass

socketserver.UnixStreamServer(os.environ["ACTOR_SOCKET"], Handler).serve_forever()
"#;
