//! Egresses of the actors file in a whole daemon: read again on HUP, and over TLS with an authority of one's own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use greenroom::telemetry::trace_id;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::caller::{Stage, get, write};
use crate::double::Pool;

#[tokio::test]
async fn a_hangup_reads_egresses_again_and_keeps_the_old_ones_over_a_mistake() {
    let (first, second) = (Pool::start().await, Pool::start().await);
    let files = tempfile::tempdir().unwrap();
    write_secret(files.path(), "one", "canary-1");
    write_secret(files.path(), "two", "canary-2");
    let egress = |pool: &Pool, credential: &str| {
        format!("[egress.llm]\nurl = \"http://{}\"\ncredential_file = \"{credential}\"\n", pool.address)
    };
    write(files.path(), "egress = [\"llm\"]", &egress(&first, "one"));
    let mut stage = Stage::start(files.path(), &[], &[]).await;
    let pid = stage.ask("/pid", &[]).await.1;
    assert_eq!(stage.ask("/x", &[]).await.0, 200);
    assert_eq!(first.last().header("authorization"), Some("Bearer canary-1"));

    write(files.path(), "egress = [\"llm\"]", &egress(&second, "two"));
    stage.daemon.signal(Signal::HUP);
    let told = stage.daemon.find("calls of actors that begin from now on").await;
    assert_eq!((told["changed"].as_str(), told["added"].as_str()), (Some("llm"), Some("")), "{told}");
    assert_eq!(stage.ask("/x", &[]).await.0, 200);
    assert_eq!(second.last().header("authorization"), Some("Bearer canary-2"));
    assert_eq!(stage.ask("/pid", &[]).await.1, pid, "the actor runs on");

    for mistake in ["[egress.llm]\nurl = \"ftp://127.0.0.1\"\n", &egress(&first, "missing")] {
        write(files.path(), "egress = [\"llm\"]", mistake);
        stage.daemon.signal(Signal::HUP);
        let told = stage.daemon.record("not reloaded; everything stays as it was").await;
        assert!(told["error"].as_str().unwrap().contains("egress.llm"), "{told}");
        assert_eq!(stage.ask("/still", &[]).await.0, 200);
        assert_eq!(second.last().path, "/still");
    }

    write(files.path(), "", &egress(&second, "two"));
    stage.daemon.signal(Signal::HUP);
    stage.daemon.record("reloaded; actors that run go on as they are").await;
    assert_eq!(stage.ask("/x", &[]).await.0, 403, "the actor may not use it any more");
    let metrics = get(&format!("http://{}/metrics", stage.admin), &[]).await.1;
    for line in [
        "greenroom_config_reloads_total{result=\"ok\"} 2",
        "greenroom_config_reloads_total{result=\"refused\"} 2",
        "greenroom_egress_requests_total{egress=\"llm\",code=\"2xx\"} 4",
        "greenroom_egress_inflight{egress=\"llm\"} 0",
        "greenroom_runtime_workers 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "missing {line} in\n{metrics}");
    }
    stage.daemon.stop().await;
}

#[tokio::test]
async fn a_trace_context_passes_from_the_client_to_the_server_outside() {
    let pool = Pool::start().await;
    let files = tempfile::tempdir().unwrap();
    write(files.path(), "egress = [\"llm\"]", &format!("[egress.llm]\nurl = \"http://{}\"\n", pool.address));
    let stage = Stage::start(files.path(), &[], &[]).await;
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("traceparent", context), ("tracestate", "vendor=1")];
    assert_eq!(stage.ask("/x", &headers).await.0, 200);
    assert_eq!(pool.last().header("traceparent"), Some(context));
    assert_eq!(pool.last().header("tracestate"), Some("vendor=1"));
    // One that makes no sense is replaced, and who sends none gets one.
    for headers in [&[("traceparent", "00-0-0-0")][..], &[]] {
        assert_eq!(stage.ask("/x", headers).await.0, 200);
        let asked = pool.last();
        assert!(trace_id(asked.header("traceparent").unwrap()).is_some(), "{asked:?}");
    }
    stage.daemon.stop().await;
}

#[tokio::test]
async fn an_egress_over_tls_trusts_the_authorities_of_ssl_cert_file_and_nobody_else() {
    let files = tempfile::tempdir().unwrap();
    let server = Secure::start().await;
    std::fs::write(files.path().join("ca.pem"), &server.authority).unwrap();
    let egress = format!("[egress.llm]\nurl = \"https://localhost:{}/v1\"\n", server.port);
    write(files.path(), "egress = [\"llm\"]", &egress);

    let authority = files.path().join("ca.pem");
    let trusting = Stage::start(files.path(), &[], &[("SSL_CERT_FILE", authority.to_str().unwrap())]).await;
    assert_eq!(trusting.ask("/x", &[]).await.0, 200);
    trusting.daemon.stop().await;

    let another = Secure::start().await;
    std::fs::write(&authority, &another.authority).unwrap();
    let wary = Stage::start(files.path(), &[], &[("SSL_CERT_FILE", authority.to_str().unwrap())]).await;
    let (status, why) = wary.ask("/x", &[]).await;
    assert_eq!(status, 502);
    assert!(why.contains("egress_unreachable") && why.contains("TLS with localhost"), "{why}");
    wary.daemon.stop().await;
}

fn write_secret(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
    std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A server for `localhost` whose certificate an authority of its own has signed.
struct Secure {
    port: u16,
    /// The authority's certificate, PEM.
    authority: String,
}

impl Secure {
    async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let chain = vec![CertificateDer::from(leaf.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust the certificate leaves.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    stream.read_buf(&mut head).await.unwrap();
                }
                assert!(head.starts_with(b"GET /v1/x HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Secure { port, authority: authority.pem() }
    }
}
