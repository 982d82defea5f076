//! One process for all actors of a name: its sandbox, and where its lines are found.

use super::DENIED;
use super::stage::{Stage, eval};

#[tokio::test]
async fn one_process_for_many_actors_is_in_a_sandbox_too() {
    let stage = Stage::start("process = \"per-name\"", "").await;
    let (first, second) = (&stage.urls[0], &stage.another("a", "second").await);
    assert_eq!(eval(first, "os.getpid()").await, eval(second, "os.getpid()").await);
    assert!(eval(first, "open('/proc/self/status').read()").await.contains("NoNewPrivs:\t1"));

    for name in ["ACTOR_STATE_DIR", "TMPDIR"] {
        let own = eval(first, &format!("open(os.environ[{name:?}] + '/kept', 'w').write('x')")).await;
        assert_eq!(own, "1", "{name}");
        let of_other = stage.eval("b", &format!("os.environ[{name:?}]")).await;
        assert_eq!(stage.eval("b", &format!("open('{of_other}/kept', 'w').write('x')")).await, "1", "{name}");
        assert_eq!(eval(first, &format!("open('{of_other}/kept').read()")).await, DENIED, "{name}");
    }
    let place = stage.eval("b", "os.environ['ACTOR_TOKEN_FILE']").await;
    assert_eq!(eval(first, &format!("open({place:?}).read()")).await, DENIED);
    for path in ["actors.toml", "credential", "data/runner-key"] {
        assert_eq!(eval(first, &format!("open({:?}).read()", stage.path(path))).await, DENIED, "{path}");
    }
    let other = stage.eval("b", "os.getpid()").await;
    assert_eq!(eval(first, &format!("os.kill({other}, 0)")).await, DENIED);

    // Each request brings the token of its actor, which is nobody else.
    for (url, who) in [(first, "first"), (second, "second")] {
        assert_eq!(eval(url, &format!("api('PUT', '/v1/kv/own', body=b'of the {who}')[0]")).await, "204");
    }
    assert_eq!(eval(first, "api('GET', '/v1/kv/own')").await, "(200, 'of the first')");
    assert_eq!(eval(second, "api('GET', '/v1/kv/own')").await, "(200, 'of the second')");
    stage.daemon.stop().await;
}

#[tokio::test]
async fn the_lines_of_a_shared_process_are_found_by_each_of_its_actors_and_by_its_name() {
    let stage = Stage::start("process = \"per-name\"", "").await;
    let second = stage.another("a", "second").await;
    eval(&second, "print('a line of the process', file=sys.stderr, flush=True)").await;
    let id = |url: &str| url.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
    for asked in [&id(&stage.urls[0]), &id(&second), "second", "a", "process%20of%20a"] {
        let url = format!("{}/actors/{asked}/logs?format=json", stage.admin);
        // A line arrives on its own way.
        let found = async {
            loop {
                let (status, lines) = crate::dev::get(&url).await;
                assert_eq!(status, 200, "{asked}: {lines}");
                if lines.contains("a line of the process") {
                    return lines;
                }
            }
        };
        let lines = tokio::time::timeout(std::time::Duration::from_secs(30), found).await.expect(asked);
        let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(line["shared"], true, "{line}");
    }
    let (_, lines) = crate::dev::get(&format!("{}/actors/{}/logs", stage.admin, id(&stage.urls[1]))).await;
    assert_eq!(lines, "", "an actor with a process of its own has its own lines");
    stage.daemon.stop().await;
}
