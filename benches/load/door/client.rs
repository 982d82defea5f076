//! An HTTP client for load: one connection, nothing but what is needed.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub struct Client {
    stream: TcpStream,
    unread: BytesMut,
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Client { stream, unread: BytesMut::new() })
    }

    /// The answer to a request that must succeed.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Bytes, String> {
        let answer = self.send(&request(method, path, body)).await?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(format!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)))
    }

    /// Sends a request as it is and answers what comes back.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer, String> {
        self.stream.write_all(request).await.map_err(|error| error.to_string())?;
        let (status, length) = loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.unread.split_to(end + 4);
                break read_head(&head)?;
            }
            self.read().await?;
        };
        let Some(length) = length else { return Ok(Answer { status, body: self.chunks().await? }) };
        while self.unread.len() < length {
            self.read().await?;
        }
        Ok(Answer { status, body: self.unread.split_to(length).freeze() })
    }

    /// Asks for a socket and leaves the connection to it.
    pub async fn upgrade(mut self, path: &str) -> Result<TcpStream, String> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: rivet\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        while !self.unread.windows(4).any(|window| window == b"\r\n\r\n") {
            self.read().await?;
        }
        match read_head(&self.unread)? {
            (101, _) => Ok(self.stream),
            (status, _) => Err(format!("the socket {path} is refused with {status}")),
        }
    }

    async fn chunks(&mut self) -> Result<Bytes, String> {
        let mut body = BytesMut::new();
        loop {
            let Some(end) = self.unread.windows(2).position(|window| window == b"\r\n") else {
                self.read().await?;
                continue;
            };
            let size =
                std::str::from_utf8(&self.unread[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            let size = size.ok_or("not the size of a chunk")?;
            while self.unread.len() < end + 2 + size + 2 {
                self.read().await?;
            }
            self.unread.advance(end + 2);
            body.extend_from_slice(&self.unread.split_to(size));
            self.unread.advance(2);
            if size == 0 {
                return Ok(body.freeze());
            }
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        self.unread.reserve(4096);
        match self.stream.read_buf(&mut self.unread).await {
            Ok(0) => Err("the connection ended".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A request as it goes over the wire.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = match body {
        "" => String::new(),
        body => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{length}\r\n{body}").into_bytes()
}

/// Status and length of the body; no length when it comes in chunks.
fn read_head(head: &[u8]) -> Result<(u16, Option<usize>), String> {
    let head = std::str::from_utf8(head).map_err(|error| error.to_string())?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or("not an HTTP answer")?;
    let mut length = Some(0);
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            length = None;
        }
    }
    Ok((status, length))
}
