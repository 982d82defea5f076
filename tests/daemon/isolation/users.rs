//! Actors that run as users of their own, without any sandbox: what the system itself keeps apart.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::DENIED;
use super::stage::{Plan, Stage};
use crate::process::Daemon;

#[tokio::test]
async fn actors_of_different_users_cannot_reach_each_other_without_a_sandbox() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (a, b) = (as_user("daemon"), as_user("nobody"));
    let stage = Stage::of(Plan { a: &a, b: &b, ..Plan::default() }).await;
    let own = async |who: &str, name: &str| stage.eval(who, &format!("os.environ[{name:?}]")).await;
    let uids = [stage.eval("a", "os.getresuid()").await, stage.eval("b", "os.getresuid()").await];
    assert!(uids[0] != uids[1] && uids.iter().all(|ids| !ids.contains("(0,") && !ids.contains(" 0")), "{uids:?}");
    assert_eq!(stage.eval("a", "os.setuid(0)").await, DENIED);
    assert_eq!(stage.eval("a", "os.setgroups([0])").await, DENIED);
    let status = stage.eval("a", "open('/proc/self/status').read()").await;
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("CapBnd:\t0000000000000000"), "{status}");
    assert_eq!(own("b", "HOME").await, "/nonexistent");

    for name in ["ACTOR_STATE_DIR", "TMPDIR"] {
        let place = own("b", name).await;
        assert_eq!(stage.eval("b", &format!("open('{place}/kept', 'w').write('x')")).await, "1", "{name}");
        assert_eq!(stage.eval("a", &format!("os.listdir({place:?})")).await, DENIED, "{name}");
        assert_eq!(stage.eval("a", &format!("open('{place}/kept').read()")).await, DENIED, "{name}");
        assert_eq!(stage.eval("a", &format!("os.listdir('{place}/..')")).await, DENIED, "{name}");
    }
    let (token, socket) = (own("b", "ACTOR_TOKEN_FILE").await, own("b", "ACTOR_SOCKET").await);
    assert_eq!(std::fs::metadata(&token).unwrap().mode() & 0o777, 0o400);
    assert_eq!(stage.eval("b", &format!("len(open({token:?}).read()) > 20")).await, "True");
    assert_eq!(stage.eval("a", &format!("open({token:?}).read()")).await, DENIED);
    let connect = |path: &str| format!("socket.socket(socket.AF_UNIX).connect({path:?})");
    assert_eq!(stage.eval("a", &connect(&socket)).await, DENIED);
    // What the daemon notes is neither's to change, and its own is closed.
    let life = Path::new(&token).parent().unwrap().to_str().unwrap();
    for closed in [
        format!("os.remove('{life}/process')"),
        format!("open('{life}/process').read()"),
        format!("os.listdir({life:?})"),
        format!("os.listdir({:?})", stage.path("data")),
        format!("open({:?}).read()", stage.path("data/runner-key")),
        format!("open({:?}).read()", stage.path("credential")),
    ] {
        for who in ["a", "b"] {
            assert_eq!(stage.eval(who, &closed).await, DENIED, "{closed}");
        }
    }
    // Of all that the daemon has made, each reads what is its own.
    let places = tree(&std::fs::canonicalize(stage.path("data")).unwrap());
    assert!(places.iter().any(|place| place.ends_with("runner-key")), "{places:?}");
    for who in ["a", "b"] {
        let readable = stage.eval(who, &format!("'\\n'.join(p for p in {places:?} if os.access(p, os.R_OK))")).await;
        let sockets = own(who, "ACTOR_SOCKET").await.trim_end_matches("/app.sock").to_owned();
        let mine =
            [own(who, "ACTOR_STATE_DIR").await, own(who, "TMPDIR").await, own(who, "ACTOR_TOKEN_FILE").await, sockets];
        assert!(mine.iter().all(|place| readable.lines().any(|line| line == place)), "{readable}");
        // Whoever calls the API shows a token.
        let stranger = |place: &&str| !mine.iter().any(|own| place.starts_with(own)) && !place.ends_with("/api.sock");
        assert_eq!(readable.lines().filter(stranger).collect::<Vec<_>>(), Vec::<&str>::new(), "{who}");
    }
    let (other, daemon) = (stage.eval("b", "os.getpid()").await, stage.eval("b", "os.getppid()").await);
    for pid in [&other, &daemon] {
        assert_eq!(stage.eval("a", &format!("os.kill({pid}, 0)")).await, DENIED);
        assert_eq!(stage.eval("a", &format!("open('/proc/{pid}/environ').read(1)")).await, DENIED);
    }
    // The API is there for both, for whoever has a token.
    assert_eq!(stage.eval("a", "api('PUT', '/v1/kv/x', body=b'1')[0]").await, "204");
    assert_eq!(stage.eval("b", "api('GET', '/v1/kv/x')[0]").await, "404");
    assert_eq!(stage.eval("a", &connect(&own("a", "ACTOR_API_SOCKET").await)).await, "None");

    // Asleep and awake again it has its state, and files of the life before are gone.
    let kept = own("b", "ACTOR_STATE_DIR").await;
    stage.eval("b", "api('POST', '/v1/sleep')").await;
    while stage.eval("b", "os.getpid()").await == other {}
    assert_eq!(stage.eval("b", &format!("open('{kept}/kept').read()")).await, "x");
    assert!(!Path::new(&token).exists());
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_user_works_with_a_sandbox_a_port_and_a_socket_that_is_handed_over() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let with = |more: &str| as_user("daemon").replace("sandbox = \"off\"", more);
    let (a, b) = (with("listen = \"fd\""), with("listen = \"port\"\nprocess = \"per-name\""));
    let stage = Stage::of(Plan { a: &a, b: &b, ..Plan::default() }).await;
    for who in ["a", "b"] {
        assert_ne!(stage.eval(who, "os.getuid()").await, "0");
        assert_eq!(stage.eval(who, "open(os.environ['TMPDIR'] + '/x', 'w').write('x')").await, "1");
        assert_eq!(stage.eval(who, "len(os.listdir('/var/log'))").await, DENIED);
        assert_eq!(stage.eval(who, "os.setuid(0)").await, DENIED);
    }
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_runner_that_is_root_takes_actors_that_have_users_of_their_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("actors.toml");
    std::fs::write(&file, "[actors.a]\ncommand = [\"true\"]\nuser = \"daemon\"\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    let arguments = ["run", "--endpoint", "http://127.0.0.1:1", "--admin", "off", "--actors", &file];
    let mut daemon = Daemon::start(dir, &arguments);
    daemon.record("not connected to the gateway").await;
    daemon.stop().await;
}

/// Everything in a directory, and the directory itself.
fn tree(path: &Path) -> Vec<String> {
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    let below =
        below.flat_map(|entry| if entry.path().is_dir() { tree(&entry.path()) } else { vec![shown(&entry.path())] });
    below.chain([shown(path)]).collect()
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The lines of an actor that is kept apart by its user alone, with a Python that everybody may run.
fn as_user(name: &str) -> String {
    format!("user = {name:?}\nsandbox = \"off\"\nenv = {{ PATH = \"/usr/local/bin:/usr/bin:/bin\" }}")
}
