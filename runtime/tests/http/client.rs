//! Just enough HTTP/1.1 to see exactly what a server sends.

use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// No test waits longer for the server.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The `data:` lines, parsed, without the last `[DONE]`; that it is there is checked.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{self:?}");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    pub fn events(&self) -> Vec<String> {
        assert!(self.body.ends_with("\n\n"), "{self:?}");
        let events = self.body.trim_end_matches("\n\n").split("\n\n");
        events
            .map(|event| event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event:?}")).to_owned())
            .collect()
    }
}

/// A connection whose reply is read bit by bit.
pub struct Exchange {
    stream: BufReader<TcpStream>,
}

impl Exchange {
    pub async fn start(address: SocketAddr, method: &str, path: &str, body: &str) -> Exchange {
        Exchange::with_header(address, method, path, "accept: */*", body).await
    }

    pub async fn with_header(
        address: SocketAddr,
        method: &str,
        path: &str,
        header: &str,
        body: &str,
    ) -> Exchange {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\n{header}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        Exchange { stream: BufReader::new(stream) }
    }

    /// Reads on until `text` has come; gives what came.
    pub async fn read_until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(text.as_bytes()) {
            let byte = tokio::time::timeout(PATIENCE, self.stream.read_u8()).await.expect("too slow");
            seen.push(
                byte.unwrap_or_else(|_| {
                    panic!("ended before {text:?}: {:?}", String::from_utf8_lossy(&seen))
                }),
            );
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads to the end of the connection.
    pub async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("too slow").unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }
}

pub async fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> Reply {
    parse(&Exchange::start(address, method, path, body).await.rest().await)
}

pub async fn exchange_with(address: SocketAddr, method: &str, path: &str, header: &str, body: &str) -> Reply {
    parse(&Exchange::with_header(address, method, path, header, body).await.rest().await)
}

fn parse(raw: &str) -> Reply {
    let (head, body) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {raw:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { dechunked(body) } else { body.to_owned() };
    Reply { status, headers, body }
}

fn dechunked(body: &str) -> String {
    let (mut out, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return out;
        }
        out.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    panic!("the body broke off: {body:?}");
}
