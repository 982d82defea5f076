use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

#[test]
fn ten_thousand_names_from_the_network_make_no_new_series() {
    let metrics = RunnerMetrics::default();
    metrics.know(["counter".into()]);
    use_all(&metrics, "counter");
    use_all(&metrics, "unknown");
    let before = metrics.encode(Format::OpenMetrics).lines().count();
    for number in 0..10_000 {
        use_all(&metrics, &format!("name-{number}"));
    }
    let text = metrics.encode(Format::OpenMetrics);
    assert_eq!(text.lines().count(), before);
    assert!(text.contains("greenroom_tunnel_requests_total{name=\"other\",code=\"2xx\"} 10001"), "{text}");
    assert!(text.contains("greenroom_tunnel_requests_total{name=\"counter\",code=\"2xx\"} 1"), "{text}");
}

#[test]
fn configured_names_are_bounded_too() {
    let metrics = RunnerMetrics::default();
    metrics.know((0..5000).map(|number| format!("name-{number}").into()));
    let text = metrics.encode(Format::OpenMetrics);
    assert!(text.matches("greenroom_tunnel_inflight{").count() <= 1001, "{text}");
}

#[test]
fn what_is_scraped_is_what_the_table_promises() {
    let runner = RunnerMetrics::default();
    use_all(&runner, "any");
    runner.outage(Duration::from_secs(1));
    runner.egress("any").called(EgressCall::Busy);
    watch_runtime(tokio::runtime::Runtime::new().unwrap().handle().clone());
    let gateway = GatewayMetrics::default();
    // Both have the numbers of the process and of its runtime.
    let text = runner.encode(Format::Text) + &gateway.encode(GatewayNumbers::default(), Format::Text);
    let (mut seen, mut kinds) = (BTreeMap::<String, BTreeSet<String>>::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# TYPE ") {
            let (name, kind) = comment.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let (sample, labels) = line.split_once('{').map_or((line, ""), |(name, rest)| (name, rest));
            let sample = sample.split(' ').next().unwrap();
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| sample.strip_suffix(suffix).filter(|_| sample.contains("_seconds_")))
                .unwrap_or(sample);
            let labels = labels.split('"').step_by(2).filter_map(|part| part.trim_start_matches(',').strip_suffix('='));
            let labels = labels.filter(|label| *label != "le").map(str::to_owned);
            seen.entry(name.to_owned()).or_default().extend(labels);
        }
    }
    for row in TABLE {
        let labels: BTreeSet<String> = row.labels.iter().map(|(label, _)| (*label).to_owned()).collect();
        assert_eq!(seen.remove(row.name), Some(labels), "{}", row.name);
        let kind = format!("{:?}", row.kind).to_lowercase();
        assert_eq!(kinds.get(row.name), Some(&kind), "{}", row.name);
        assert_eq!(row.name.ends_with("_total"), row.kind == Kind::Counter, "{}", row.name);
        assert_eq!(row.name.ends_with("_seconds"), row.kind == Kind::Histogram || is_age(row.name));
        assert!(row.name.starts_with("greenroom_") || row.name.starts_with("process_"));
    }
    assert!(seen.is_empty(), "not in the table: {seen:?}");
}

#[test]
fn a_histogram_counts_into_the_first_bucket_that_holds() {
    let metrics = RunnerMetrics::default();
    let actor = metrics.actor("any");
    for milliseconds in [1, 3, 60_000] {
        actor.request_ended(Some(200), Duration::from_millis(milliseconds));
    }
    let text = metrics.encode(Format::OpenMetrics);
    for line in [
        "greenroom_tunnel_request_seconds_bucket{le=\"0.0005\",name=\"other\"} 0",
        "greenroom_tunnel_request_seconds_bucket{le=\"0.001\",name=\"other\"} 1",
        "greenroom_tunnel_request_seconds_bucket{le=\"0.005\",name=\"other\"} 2",
        "greenroom_tunnel_request_seconds_bucket{le=\"+Inf\",name=\"other\"} 3",
        "greenroom_tunnel_request_seconds_count{name=\"other\"} 3",
    ] {
        assert!(text.contains(line), "missing {line} in\n{text}");
    }
}

#[test]
fn old_scrapers_get_the_old_format() {
    assert_eq!(Format::accepted(Some("application/openmetrics-text;version=1.0.0,*/*")), Format::OpenMetrics);
    assert_eq!(Format::accepted(Some("*/*")), Format::Text);
    assert_eq!(Format::accepted(None), Format::Text);
    let metrics = RunnerMetrics::default();
    let (new, old) = (metrics.encode(Format::OpenMetrics), metrics.encode(Format::Text));
    assert!(new.ends_with("# EOF\n") && !old.contains("EOF"));
    assert!(
        new.contains("# TYPE greenroom_events counter\n") && old.contains("# TYPE greenroom_events_total counter\n")
    );
    assert!(old.contains("\ngreenroom_events_total 0\n"));
}

/// A gauge of time.
fn is_age(name: &str) -> bool {
    name.contains("start_time") || name.ends_with("lag_seconds")
}

fn use_all(metrics: &RunnerMetrics, name: &str) {
    let actor = metrics.actor(name);
    actor.started("create", "ok");
    actor.stopped("sleep", "ok");
    actor.child_exit(ChildExit::Ok);
    actor.request_ended(Some(204), Duration::from_millis(1));
    actor.log_line(Source::Stderr);
    actor.state(State::Running).inc();
}
