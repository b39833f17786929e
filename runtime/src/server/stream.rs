//! Answers on their way out: as server-sent events while they are generated, or whole.

use super::openai::{Answer, ApiError, Streamed, Usage, UsageChunks};
use super::record::Recorded;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use serde_json::Value;
use std::convert::Infallible;

/// An answer being sent.
struct Sending<A> {
    recorded: Recorded,
    answer: A,
    usage: UsageChunks,
    state: State,
}

enum State {
    Opening,
    Running,
    Done,
}

/// Sends the answer in the way that the client asked for.
pub(super) async fn send(
    recorded: Recorded,
    answer: impl Answer,
    way: Option<Streamed>,
) -> Result<Response, ApiError> {
    match way {
        Some(Streamed { usage }) => Ok(streamed(recorded, answer, usage)),
        None => whole(recorded, answer).await,
    }
}

/// The answer as it comes. A reader that goes away drops the body, and with it the generation.
fn streamed(recorded: Recorded, answer: impl Answer, usage: UsageChunks) -> Response {
    let sending = Sending { recorded, answer, usage, state: State::Opening };
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(sending.events())).into_response()
}

/// The answer once it is finished. A client that goes away drops this future, and with it the generation.
async fn whole(mut recorded: Recorded, answer: impl Answer) -> Result<Response, ApiError> {
    let generation = &mut recorded.generation;
    let mut choices = vec![Vec::new(); generation.choices()];
    while !generation.ended() {
        for (choice, part) in generation.next().await.map_err(|why| ApiError::broken(&why))? {
            choices[choice].push(part);
        }
    }
    Ok(Json(answer.whole(choices, Usage::of(generation))).into_response())
}

impl<A: Answer> Sending<A> {
    fn events(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut sending| async {
            let events = sending.next().await?;
            Some((Ok(Bytes::from(events)), sending))
        })
    }

    /// The next events, one or several; `None` after the last.
    async fn next(&mut self) -> Option<String> {
        let mut out = String::new();
        if matches!(self.state, State::Opening) {
            self.state = State::Running;
            let opening = self.answer.opening();
            if !opening.is_empty() {
                opening.into_iter().for_each(|chunk| self.write(&mut out, chunk));
                return Some(out);
            }
        }
        if matches!(self.state, State::Done) {
            return None;
        }
        while out.is_empty() {
            match self.recorded.generation.next().await {
                Ok(parts) => {
                    for (choice, part) in parts {
                        let chunks = self.answer.chunks(choice, part);
                        chunks.into_iter().for_each(|chunk| self.write(&mut out, chunk));
                    }
                    if self.recorded.generation.ended() {
                        self.close(&mut out);
                    }
                }
                Err(why) => {
                    self.state = State::Done;
                    event(&mut out, &ApiError::broken(&why).json());
                }
            }
        }
        Some(out)
    }

    /// What comes after the last choice has ended.
    fn close(&mut self, out: &mut String) {
        self.state = State::Done;
        if self.usage != UsageChunks::None {
            event(out, &self.answer.usage_chunk(Usage::of(&self.recorded.generation)));
        }
        out.push_str("data: [DONE]\n\n");
    }

    /// Where only the last chunk counts tokens, the others say that they do not.
    fn write(&self, out: &mut String, mut chunk: Value) {
        match self.usage {
            UsageChunks::None => {}
            UsageChunks::Last => chunk["usage"] = Value::Null,
            UsageChunks::All => {
                chunk["usage"] = self.answer.counted(Usage::of(&self.recorded.generation)).json()
            }
        }
        event(out, &chunk);
    }
}

fn event(out: &mut String, value: &Value) {
    out.push_str("data: ");
    out.push_str(&value.to_string());
    out.push_str("\n\n");
}
