//! Servers of actors that no runner started.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use greenroom::config::UpstreamUrl;
use greenroom::host::upstream::{Settings, Upstream};
use greenroom::host::{ActorContext, ActorHost, EventSettings, HostedActor, StartActor, StartError};
use tempfile::TempDir;

use crate::stage::app;

/// The suite's app, for as long as this is there.
pub struct Elsewhere {
    process: Child,
    directory: TempDir,
}

/// An upstream host that keeps its server running.
struct Kept {
    upstream: Upstream,
    _server: Elsewhere,
}

impl Elsewhere {
    /// Starts the app with these variables, and returns when it serves.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = app();
        let process = Command::new(&settings.command[0])
            .args(&settings.command[1..])
            .current_dir(settings.cwd)
            .envs(variables.iter().copied())
            .env("ACTOR_SOCKET", directory.path().join("app.sock"))
            .env("TMPDIR", directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let elsewhere = Elsewhere { process, directory };
        while UnixStream::connect(elsewhere.directory.path().join("app.sock")).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        elsewhere
    }

    pub fn url(&self) -> String {
        format!("unix:{}/app.sock", self.directory.path().display())
    }

    pub fn pid(&self) -> String {
        self.process.id().to_string()
    }

    /// A host that ends this server with itself.
    pub fn with(self, upstream: Upstream) -> Arc<dyn ActorHost> {
        Arc::new(Kept { upstream, _server: self })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

impl ActorHost for Kept {
    fn start(
        &self,
        start: Arc<StartActor>,
        context: ActorContext,
    ) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>> {
        self.upstream.start(start, context)
    }

    fn start_timeout(&self) -> Duration {
        self.upstream.start_timeout()
    }

    fn stop_grace(&self) -> Duration {
        self.upstream.stop_grace()
    }

    fn events(&self) -> EventSettings {
        self.upstream.events()
    }
}

/// The suite's sockets go to the server itself.
pub fn at<const N: usize>(urls: [String; N]) -> Settings {
    let urls = urls.iter().map(|url| url.parse::<UpstreamUrl>().unwrap()).collect();
    let websocket = greenroom::host::child_process::WebSocketMode::Proxy;
    Settings { websocket, start_timeout: Duration::from_secs(60), ..Settings::new(urls) }
}

/// A server on a port that says the same to everybody, once per connection; its URL.
pub fn parrot(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                    head.push(byte[0]);
                }
                // Whoever only looked has gone.
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    url
}
