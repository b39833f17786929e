//! An answer that is sent while it is generated, and outlives the rank that generates it.

use super::ledger::{Ledger, Nonsense};
use super::splitter::Splitter;
use super::tries::{Answer, Tries};
use crate::route::door::{Door, Order};
use crate::route::headers::back;
use crate::server::ApiError;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What a stream that is silent gets, so that nobody between us and the client takes it for dead.
const COMMENT: &str = ": waiting\n\n";
/// How long a complete answer's last chunk is waited for: with it, the connection to the rank can be used again.
const LAST_CHUNK: Duration = Duration::from_millis(100);
/// Bytes of a rank's refusal that are read.
const REFUSAL: usize = 1 << 20;

/// What becomes of the request, in this order: at most one `Begun` or `Refused`, any number of `Events`.
enum Out {
    /// The rank answers with events, with these headers.
    Begun(HeaderMap),
    /// It is answered in one piece; before anything else a response, later an event.
    Refused { response: Response, event: String },
    /// Whole events.
    Events(Bytes),
}

/// Answers with a stream. If no rank has answered soon, the headers are sent nevertheless: from then on, a refusal can
/// only be an event.
pub(in crate::route) async fn streamed(door: Arc<Door>, order: Order) -> Response {
    let quiet = door.patience.quiet;
    let relayed = Relayed {
        tries: Tries::new(door, order),
        ledger: Ledger::default(),
        state: State::Waiting,
        trouble: None,
        begun: false,
    };
    let mut outs = relayed.outs().boxed();
    match timeout(quiet, outs.next()).await {
        Ok(Some(Out::Refused { response, .. })) => response,
        Ok(Some(Out::Begun(headers))) => events(headers, outs, quiet),
        Ok(Some(Out::Events(_)) | None) => ApiError::nonsense("no answer at all").into_response(),
        Err(_) => {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            events(headers, outs, quiet)
        }
    }
}

/// The response with all that is still to come.
fn events(headers: HeaderMap, outs: BoxStream<'static, Out>, quiet: Duration) -> Response {
    let body = stream::unfold(outs, move |mut outs| async move {
        loop {
            let bytes = match timeout(quiet, outs.next()).await {
                Err(_) => Bytes::from_static(COMMENT.as_bytes()),
                Ok(None) => return None,
                Ok(Some(Out::Begun(_))) => continue,
                Ok(Some(Out::Refused { event, .. })) => event.into(),
                Ok(Some(Out::Events(events))) => events,
            };
            return Some((Ok::<Bytes, Infallible>(bytes), outs));
        }
    });
    (headers, Body::from_stream(body)).into_response()
}

/// A request and what is known of its answer. Dropping it ends the request wherever it is.
struct Relayed {
    tries: Tries,
    ledger: Ledger,
    state: State,
    /// What the rank wrote after the last that could be passed on.
    trouble: Option<Nonsense>,
    /// A rank's headers were passed on.
    begun: bool,
}

enum State {
    /// For a rank to begin, or to go on.
    Waiting,
    /// A rank answers.
    Running(Box<Answer>, Splitter),
    /// A rank answers that keeps no journal: what it sends is passed on as it comes, and lost with it.
    Plain(Box<Answer>),
    /// The answer is complete; only its last chunk, which has no bytes, may not have come.
    Ending(Box<Answer>),
    Done,
}

impl Relayed {
    fn outs(self) -> impl futures::Stream<Item = Out> + Send {
        stream::unfold(self, |mut relayed| async { Some((relayed.next().await?, relayed)) })
    }

    async fn next(&mut self) -> Option<Out> {
        loop {
            let out = match std::mem::replace(&mut self.state, State::Done) {
                State::Waiting => self.begin().await,
                State::Running(answer, splitter) => self.run(answer, splitter).await,
                State::Plain(answer) => self.pass(answer).await,
                State::Ending(answer) => {
                    let _ = timeout(LAST_CHUNK, answer.finish()).await;
                    return None;
                }
                State::Done => return None,
            };
            match out {
                Ok(Some(out)) => return Some(out),
                Ok(None) => {}
                Err(error) => {
                    self.tries.order.record.failed(&error, self.begun);
                    return Some(refused(error));
                }
            }
        }
    }

    /// Waits for a rank that answers.
    async fn begin(&mut self) -> Result<Option<Out>, ApiError> {
        let answer = self.tries.next(self.ledger.journal()).await?;
        let is_stream = answer
            .head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if answer.head.status != StatusCode::OK || !is_stream {
            return self.other(answer).await;
        }
        let headers = back(&answer.head.headers);
        self.state = State::Running(Box::new(answer), Splitter::default());
        if self.begun {
            return Ok(None);
        }
        self.begun = true;
        Ok(Some(Out::Begun(headers)))
    }

    /// Reads until something may be passed on.
    async fn run(
        &mut self,
        mut answer: Box<Answer>,
        mut splitter: Splitter,
    ) -> Result<Option<Out>, ApiError> {
        let why = loop {
            if let Some(Nonsense(what)) = self.trouble.take() {
                break what;
            }
            let piece = match answer.read().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break "the answer has no end".to_owned(),
                Err(why) => break why,
            };
            match self.enter(&mut splitter, &piece) {
                Ok(passed) if passed.is_empty() && !self.ledger.ended() => {
                    if let Some(held) = self.ledger.without_journal() {
                        self.state = State::Plain(answer);
                        return Ok(Some(Out::Events([&held, &*splitter.rest()].concat().into())));
                    }
                }
                Ok(passed) => {
                    self.state = match self.ledger.ended() {
                        true => State::Ending(answer),
                        false => State::Running(answer, splitter),
                    };
                    return Ok((!passed.is_empty()).then(|| Out::Events(passed.into())));
                }
                Err(Nonsense(what)) => break what,
            }
        };
        let further = self.ledger.break_off();
        self.again(&answer, &why, further)
    }

    /// The rank is gone; another one is waited for.
    fn again(&mut self, answer: &Answer, why: &str, further: bool) -> Result<Option<Out>, ApiError> {
        answer.shun();
        self.tries.broke(answer.rank(), why, further)?;
        self.state = State::Waiting;
        Ok(None)
    }

    /// What may be passed on now that `piece` has come. What came before nonsense has happened.
    fn enter(&mut self, splitter: &mut Splitter, piece: &[u8]) -> Result<Vec<u8>, Nonsense> {
        let passed = self.split(splitter, piece);
        self.tries.order.record.tokens = self.ledger.tokens();
        self.tries.order.record.prompt = self.ledger.prompt();
        if self.ledger.ended() {
            self.tries.order.record.answered();
        }
        passed
    }

    fn split(&mut self, splitter: &mut Splitter, piece: &[u8]) -> Result<Vec<u8>, Nonsense> {
        let mut passed = Vec::new();
        for event in splitter.push(piece)? {
            match self.ledger.take(&event) {
                Ok(events) => passed.extend_from_slice(&events.unwrap_or_default()),
                Err(nonsense) => {
                    self.trouble = Some(nonsense);
                    break;
                }
            }
        }
        match self.trouble.take_if(|_| passed.is_empty()) {
            Some(nonsense) => Err(nonsense),
            None => Ok(passed),
        }
    }

    async fn pass(&mut self, mut answer: Box<Answer>) -> Result<Option<Out>, ApiError> {
        match answer.read().await {
            Ok(None) => {
                self.tries.order.record.answered();
                Ok(None)
            }
            Ok(Some(piece)) => {
                self.state = State::Plain(answer);
                Ok(Some(Out::Events(piece)))
            }
            Err(why) => {
                answer.shun();
                Err(ApiError::not_continued(&format!("it keeps no journal, and broke off: {why}")))
            }
        }
    }

    /// The rank answers with something else than events.
    async fn other(&mut self, mut answer: Answer) -> Result<Option<Out>, ApiError> {
        let mut body = Vec::new();
        loop {
            match answer.read().await {
                Ok(None) => break,
                Ok(Some(piece)) if body.len() + piece.len() <= REFUSAL => body.extend_from_slice(&piece),
                Ok(Some(_)) => return Err(ApiError::nonsense("no events, and more than fits")),
                Err(why) => return self.again(&answer, &why, false),
            }
        }
        if self.ledger.journal().is_some() {
            let status = answer.head.status.as_u16();
            return Err(ApiError::not_continued(&format!(
                "it refuses with status {status}: {}",
                sentence(&body)
            )));
        }
        self.tries.order.record.answered();
        let value = serde_json::from_slice::<Value>(&body).ok().filter(|value| value.get("error").is_some());
        let value = value.unwrap_or_else(|| ApiError::nonsense("no events").json());
        let response = (answer.head.status, back(&answer.head.headers), body).into_response();
        Ok(Some(Out::Refused { response, event: format!("data: {value}\n\n") }))
    }
}

fn refused(error: ApiError) -> Out {
    let event = format!("data: {}\n\n", error.json());
    Out::Refused { response: error.into_response(), event }
}

/// What an error's body says, or as much of it as a person needs.
fn sentence(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = value["error"]["message"].as_str().unwrap_or("it does not say why");
    said.chars().take(300).collect()
}
