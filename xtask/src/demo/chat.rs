//! One streamed chat request, printed as it arrives.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// What arrived.
pub struct Answer {
    /// The assistant's text.
    pub text: String,
    /// Pieces that the text came in; one a token, but for characters that span several.
    pub tokens: usize,
    /// From the request to the first piece.
    pub first: Duration,
    /// From the first piece to the last.
    pub rest: Duration,
}

impl Answer {
    /// Tokens per second after the first.
    pub fn rate(&self) -> f64 {
        self.tokens.saturating_sub(1) as f64 / self.rest.as_secs_f64().max(1e-3)
    }
}

/// Asks through a port on this machine; prints each piece of the answer to stdout as it comes.
pub fn ask(port: u16, model: &str, question: &str) -> Result<Answer> {
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 64,
        "stream": true,
    })
    .to_string();
    let started = Instant::now();
    let mut connection =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot reach the model's Service")?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    // HTTP/1.0: the answer ends with the connection, so there are no chunks to take apart.
    write!(
        connection,
        "POST /v1/chat/completions HTTP/1.0\r\nHost: {model}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;

    let mut lines = BufReader::new(connection).lines();
    let status = lines.next().context("the connection was closed without an answer")??;
    if status.split(' ').nth(1) != Some("200") {
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        bail!("the model answered {status}: {}", rest.last().map_or("", String::as_str));
    }
    let (mut text, mut tokens, mut first, mut last) = (String::new(), 0, None, started);
    for line in lines {
        let line = line.context("the stream broke")?;
        let Some(event) = line.strip_prefix("data: ") else { continue };
        if event == "[DONE]" {
            println!();
            let first = first.context("the answer is empty")?;
            return Ok(Answer { text, tokens, first: first - started, rest: last - first });
        }
        let event: Value = serde_json::from_str(event).with_context(|| format!("not JSON: {event}"))?;
        if let Some(error) = event.get("error") {
            bail!("the stream ended with an error: {error}");
        }
        let Some(piece) = event["choices"][0]["delta"]["content"].as_str().filter(|p| !p.is_empty()) else {
            continue;
        };
        print!("{piece}");
        std::io::stdout().flush()?;
        text.push_str(piece);
        tokens += 1;
        last = Instant::now();
        first.get_or_insert(last);
    }
    bail!("the stream ended without [DONE] after {text:?}")
}
