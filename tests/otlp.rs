//! Traces on their way to a collector: what it is told, and that it can hold nobody up.

#[path = "daemon/caller.rs"]
mod caller;
#[expect(dead_code, reason = "the daemon tests use more of it")]
#[path = "daemon/double.rs"]
mod double;
#[path = "daemon/http.rs"]
mod http;
#[expect(dead_code, reason = "the daemon tests use more of it")]
#[path = "daemon/process.rs"]
mod process;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use caller::{Stage, get, write};
use double::Pool;
use greenroom::telemetry::metrics::{self, Format, GatewayNumbers};
use greenroom::telemetry::{Span, SpanKind, collect_spans};
use process::Daemon;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::test]
async fn a_request_is_one_trace_from_the_client_to_the_server_outside() {
    let (collector, pool) = (Collector::start("200 OK").await, Pool::start().await);
    let files = tempfile::tempdir().unwrap();
    let stage = start(files.path(), &collector, &pool).await;
    let (trace, client) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    assert_eq!(stage.ask("/x", &[("traceparent", &format!("00-{trace}-{client}-01"))]).await.0, 200);
    let told = pool.last().header("traceparent").unwrap().to_owned();
    let spans = collector.until(3).await;
    let span = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{spans:#?}"));
    let (gateway, actor, egress) = (span("gateway request"), span("actor request"), span("egress call"));
    assert!(spans.iter().all(|span| span["traceId"] == trace), "{spans:#?}");
    assert_eq!((&gateway["parentSpanId"], &gateway["kind"]), (&Value::from(client), &Value::from(2)));
    assert_eq!((&actor["parentSpanId"], &actor["kind"]), (&gateway["spanId"], &Value::from(3)));
    assert_eq!(egress["parentSpanId"], actor["spanId"]);
    assert_eq!(told, format!("00-{trace}-{}-01", egress["spanId"].as_str().unwrap()));
    assert_eq!(attribute(gateway, "http.response.status_code")["intValue"], "200");
    assert_eq!(attribute(actor, "greenroom.actor.name")["stringValue"], "caller");
    assert_eq!(attribute(egress, "greenroom.egress")["stringValue"], "llm");
    let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(time(gateway, "startTimeUnixNano") <= time(actor, "startTimeUnixNano"));
    assert!(time(egress, "endTimeUnixNano") <= time(actor, "endTimeUnixNano"));

    // Who does not want to be traced is not.
    let unsampled = format!("00-{trace}-{client}-00");
    assert_eq!(stage.ask("/x", &[("traceparent", &unsampled)]).await.0, 200);
    assert_eq!(pool.last().header("traceparent"), Some(&*unsampled));
    // Who says nothing begins a trace; and what is there at the end is told.
    assert_eq!(stage.ask("/x", &[]).await.0, 200);
    stage.daemon.stop().await;
    let spans = collector.until(6).await;
    assert_eq!(spans.len(), 6, "{spans:#?}");
    let root = spans[3..].iter().find(|span| span["name"] == "gateway request").unwrap();
    assert!(root["parentSpanId"].is_null() && root["traceId"] != trace, "{root}");
    assert!(spans[3..].iter().all(|span| span["traceId"] == root["traceId"]));

    let seen = collector.seen.borrow();
    assert!(seen.heads.iter().all(|head| head.starts_with("POST /base/v1/traces HTTP/1.1\r\n")), "{:?}", seen.heads);
    assert!(seen.heads.iter().all(|head| head.contains("x-account: canary key\r\n")), "{:?}", seen.heads);
    assert!(seen.resource["attributes"].to_string().contains("\"service.name\""), "{}", seen.resource);
}

#[tokio::test]
async fn a_collector_that_refuses_costs_one_warning_and_its_spans() {
    let (collector, pool) = (Collector::start("503 Service Unavailable").await, Pool::start().await);
    let files = tempfile::tempdir().unwrap();
    let mut stage = start(files.path(), &collector, &pool).await;
    for round in 1..=2 {
        assert_eq!(stage.ask("/x", &[]).await.0, 200);
        collector.until(3 * round).await;
    }
    let told = stage.daemon.find("traces were not taken").await;
    assert!(told["level"] == "WARN" && told["error"].as_str().unwrap().contains("503"), "{told}");
    let failed = async || {
        let metrics = get(&format!("http://{}/metrics", stage.admin), &[]).await.1;
        metrics.contains("\ngreenroom_trace_spans_total{result=\"failed\"} 6\n")
    };
    while !failed().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.daemon.signal(rustix::process::Signal::TERM);
    for record in stage.daemon.records_until("stopped", PATIENCE).await {
        assert_ne!(record["level"], "WARN", "once is enough: {record}");
    }
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    let (collector, pool) = (Collector::start("").await, Pool::start().await);
    let files = tempfile::tempdir().unwrap();
    let stage = start(files.path(), &collector, &pool).await;
    assert_eq!(stage.ask("/x", &[]).await.0, 200);
    // It has the first, and does not answer.
    collector.until(3).await;
    for _ in 0..20 {
        assert_eq!(stage.ask("/pid", &[]).await.0, 200);
    }
    let began = Instant::now();
    stage.daemon.stop().await;
    assert!(began.elapsed() < PATIENCE, "it ends without the collector");
}

#[tokio::test]
async fn an_actor_in_the_daemons_process_is_part_of_the_trace() {
    let collector = Collector::start("200 OK").await;
    let endpoint = format!("http://{}/base", collector.address);
    let arguments = ["dev", "--listen=127.0.0.1:0", "--admin=off", "--otlp-endpoint", &endpoint];
    let mut dev = Daemon::start(tempfile::tempdir().unwrap(), &arguments);
    let url = dev.line("curl http").await.trim_start_matches("curl ").to_owned();
    assert_eq!(get(&url, &[]).await.0, 200);
    dev.stop().await;
    let spans = collector.until(2).await;
    let span = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{spans:#?}"));
    let (gateway, actor) = (span("gateway request"), span("actor request"));
    assert_eq!((&actor["parentSpanId"], &actor["kind"]), (&gateway["spanId"], &Value::from(2)));
    assert_eq!(attribute(actor, "http.response.status_code")["intValue"], "200");
}

#[test]
fn what_finds_the_queue_full_is_dropped_and_counted() {
    // The daemons of the other tests are processes of their own.
    let mut spans = collect_spans().expect("nobody collects here");
    for _ in 0..5000 {
        drop(Span::start(SpanKind::Server, "any", || None));
    }
    let counted = metrics::gateway().encode(GatewayNumbers::default(), Format::Text);
    assert!(counted.contains("\ngreenroom_trace_spans_total{result=\"dropped\"} 904\n"), "{counted}");
    assert_eq!(std::iter::from_fn(|| spans.try_recv().ok()).count(), 4096);
}

async fn start(files: &Path, collector: &Collector, pool: &Pool) -> Stage {
    write(files, "egress = [\"llm\"]", &format!("[egress.llm]\nurl = \"http://{}\"\n", pool.address));
    let endpoint = format!("http://{}/base", collector.address);
    let variables = [("OTEL_EXPORTER_OTLP_HEADERS", "x-account=canary%20key")];
    Stage::start(files, &["--otlp-endpoint", &endpoint], &variables).await
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    &found.unwrap_or_else(|| panic!("{key}: {span}"))["value"]
}

/// A collector that answers with this status line, or never when there is none.
struct Collector {
    address: SocketAddr,
    seen: watch::Sender<Seen>,
}

#[derive(Default)]
struct Seen {
    heads: Vec<String>,
    resource: Value,
    spans: Vec<Value>,
}

impl Collector {
    async fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Collector { address: listener.local_addr().unwrap(), seen: watch::Sender::default() };
        let seen = collector.seen.clone();
        tokio::spawn(async move {
            let mut hung = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                let (head, body) = loop {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8(request[..end + 4].to_vec()).unwrap();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    if request.len() == end + 4 + length.parse::<usize>().unwrap() {
                        break (head, request[end + 4..].to_vec());
                    }
                };
                let body: Value = serde_json::from_slice(&body).unwrap();
                if !status.is_empty() {
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                hung.push(stream);
                seen.send_modify(|seen| {
                    seen.heads.push(head);
                    seen.resource = body["resourceSpans"][0]["resource"].clone();
                    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
                    seen.spans.extend(spans.iter().cloned());
                });
            }
        });
        collector
    }

    /// Waits until it has been told of so many spans.
    async fn until(&self, spans: usize) -> Vec<Value> {
        let mut seen = self.seen.subscribe();
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.spans.len() >= spans)).await;
        found.unwrap_or_else(|_| panic!("{:#?}", self.seen.borrow().spans)).unwrap().spans.clone()
    }
}

/// Far more than any of this takes; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);
