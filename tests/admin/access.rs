//! Who may come in, and who may change something.

use std::os::unix::fs::PermissionsExt;

use crate::client::{Dev, get, request, tcp};
use crate::process::Daemon;

#[tokio::test]
async fn an_address_can_only_be_read_and_the_socket_may_write() {
    let dev = Dev::start(&[]).await;
    let answer = tcp(&dev.admin, &request("POST", "/drain", &dev.admin, "", "")).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("admin.sock") && answer.body.contains("--admin-write-token-file"), "{}", answer.body);
    let mode = std::fs::metadata(&dev.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(dev.ask("PUT", "/log", "debug").await.status, 200);
    assert_eq!(dev.ask("GET", "/log", "").await.json()["filter"], "debug");
    dev.daemon.stop().await;
}

#[tokio::test]
async fn a_write_token_opens_the_address_to_whoever_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "right").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let dev = Dev::start(&["--admin-write-token-file", path.to_str().unwrap()]).await;
    for (header, status) in
        [("", 401), ("authorization: Bearer wrong\r\n", 401), ("authorization: Bearer right\r\n", 200)]
    {
        let answer = tcp(&dev.admin, &request("PUT", "/log", &dev.admin, header, "warn")).await;
        assert_eq!(answer.status, status, "{header:?}: {}", answer.body);
    }
    assert_eq!(get(&dev.admin, "/status").await.status, 200, "reading takes no token");
    dev.daemon.stop().await;
}

#[tokio::test]
async fn no_page_of_another_site_reads_the_address() {
    let dev = Dev::start(&[]).await;
    for (host, status) in [("evil.example:6490", 403), ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:9", 200)] {
        assert_eq!(tcp(&dev.admin, &request("GET", "/status", host, "", "")).await.status, status, "{host}");
    }
    dev.daemon.stop().await;
}

#[tokio::test]
async fn unknown_routes_and_methods_are_told() {
    let dev = Dev::start(&[]).await;
    assert_eq!(get(&dev.admin, "/nothing").await.status, 404);
    assert_eq!(dev.ask("POST", "/status", "").await.status, 405);
    assert_eq!(dev.ask("PUT", "/log", "inof").await.status, 400);
    assert_eq!(dev.ask("PUT", "/log?for=soon", "info").await.status, 400);
    assert_eq!(dev.ask("GET", "/actors/nobody", "").await.status, 404);
    dev.daemon.stop().await;
}

#[tokio::test]
async fn an_address_that_was_asked_for_and_is_taken_ends_with_78() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["run", "--endpoint", "http://127.0.0.1:1", "--admin", &address];
    let mut daemon = Daemon::start(tempfile::tempdir().unwrap(), &arguments);
    let record = daemon.record("the admin address does not serve").await;
    assert!(record["error"].as_str().unwrap().contains("--admin"), "{record}");
    assert_eq!(daemon.exit_code().await, 78);
}
