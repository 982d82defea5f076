//! A network that can fail: a TCP proxy between runner and gateway.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::try_join;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What the network does at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weather {
    /// Bytes pass.
    Fair,
    /// Nothing passes and nobody is told: connections stay, bytes wait. What was held back flows when it clears up.
    Silent,
    /// Open connections are reset and new ones are reset at once.
    Down,
}

/// The proxy; connections end when it is dropped.
pub struct Cut {
    pub port: u16,
    weather: Arc<watch::Sender<Weather>>,
    _accepting: JoinSet<()>,
}

impl Cut {
    /// Listens on a free port and forwards to `target` on the loopback.
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let mut accepting = JoinSet::new();
        let sender = weather.clone();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(forward(stream, SocketAddr::from(([127, 0, 0, 1], target)), sender.subscribe()));
            }
        });
        Self { port, weather, _accepting: accepting }
    }

    /// The given weather for a while, then fair again. Starts before this returns, ends on its own.
    pub fn spell(&self, weather: Weather, length: Duration) -> tokio::task::JoinHandle<()> {
        self.weather.send_replace(weather);
        let sender = self.weather.clone();
        tokio::spawn(async move {
            tokio::time::sleep(length).await;
            sender.send_replace(Weather::Fair);
        })
    }
}

async fn forward(client: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    if *weather.borrow() == Weather::Down {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = pipe(&mut from_client, &mut to_server, weather.clone());
    let down = pipe(&mut from_server, &mut to_client, weather);
    if try_join(up, down).await.is_err() {
        let _ = (to_client.as_ref().set_zero_linger(), to_server.as_ref().set_zero_linger());
    }
}

/// Copies until the sender has finished; the error means that both connections are to be reset.
async fn pipe(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> Result<(), Reset> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = weather.wait_for(|now| *now == Weather::Down) => return Err(Reset),
        };
        let count = match read {
            Ok(0) => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            Ok(count) => count,
            Err(_) => return Err(Reset),
        };
        match weather.wait_for(|now| *now != Weather::Silent).await.map(|now| *now) {
            Ok(Weather::Fair) => {}
            Ok(Weather::Silent | Weather::Down) | Err(_) => return Err(Reset),
        }
        to.write_all(&buffer[..count]).await.map_err(|_| Reset)?;
    }
}

struct Reset;
