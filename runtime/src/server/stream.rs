//! Answers on their way out: as server-sent events while they are generated, or whole.

use super::journal::Journal;
use super::openai::{Answer, ApiError, Usage, UsageChunks};
use super::record::Recorded;
use crate::generation::{Broken, Part};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use coterie_api::replay::Begun;
use futures::stream::{self, Stream};
use serde_json::Value;
use std::convert::Infallible;

/// The way in which a client asked for its answer.
pub(super) enum Way {
    /// In one piece.
    Whole,
    /// While it is generated.
    Streamed {
        usage: UsageChunks,
        /// Another rank has sent its beginning.
        goes_on: bool,
        /// Where a journal was asked for: how the answer began.
        journal: Option<Begun>,
    },
}

/// An answer being sent.
struct Sending<A> {
    recorded: Recorded,
    answer: A,
    usage: UsageChunks,
    journal: Option<Journal>,
    state: State,
}

enum State {
    Opening,
    Running,
    Done,
}

/// Sends the answer in the way that the client asked for.
pub(super) async fn send(recorded: Recorded, answer: impl Answer, way: Way) -> Result<Response, ApiError> {
    match way {
        Way::Whole => whole(recorded, answer).await,
        Way::Streamed { usage, goes_on, journal } => {
            let journal = journal.map(|begun| Journal::new(begun, &recorded.generation));
            let state = if goes_on { State::Running } else { State::Opening };
            Ok(streamed(Sending { recorded, answer, usage, journal, state }))
        }
    }
}

/// The answer as it comes. A reader that goes away drops the body, and with it the generation.
fn streamed(sending: Sending<impl Answer>) -> Response {
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(sending.events())).into_response()
}

/// The answer once it is finished. A client that goes away drops this future, and with it the generation.
async fn whole(mut recorded: Recorded, answer: impl Answer) -> Result<Response, ApiError> {
    let generation = &mut recorded.generation;
    let mut choices = vec![Vec::new(); generation.choices()];
    while let Some((choice, parts)) = generation.next().await.map_err(|why| ApiError::broken(&why))? {
        choices[choice].extend(parts);
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
            self.open(&mut out);
        }
        if matches!(self.state, State::Done) {
            return None;
        }
        while out.is_empty() {
            match self.recorded.generation.next().await {
                Ok(step) => {
                    if let Some((choice, parts)) = step {
                        self.step(&mut out, choice, parts);
                    }
                    if self.recorded.generation.ended() {
                        self.close(&mut out);
                    }
                }
                Err(why) => self.break_off(&mut out, &why),
            }
        }
        Some(out)
    }

    fn open(&mut self, out: &mut String) {
        let chunks = self.answer.opening();
        chunks.into_iter().for_each(|chunk| self.write(out, chunk));
        if let Some(journal) = &self.journal {
            journal.opened(out);
        }
    }

    /// A choice has come on.
    fn step(&mut self, out: &mut String, choice: usize, parts: Vec<Part>) {
        let mut events = String::new();
        for part in parts {
            let chunks = self.answer.chunks(choice, part);
            chunks.into_iter().for_each(|chunk| self.write(&mut events, chunk));
        }
        let generation = &self.recorded.generation;
        match &mut self.journal {
            None => out.push_str(&events),
            Some(journal) => {
                let settled = generation.is_settled(choice) && self.answer.is_settled(choice);
                journal.step(out, choice, &events, settled, generation);
            }
        }
    }

    /// What comes after the last choice has ended.
    fn close(&mut self, out: &mut String) {
        self.state = State::Done;
        if let Some(journal) = &mut self.journal {
            journal.rest(out);
        }
        if self.usage != UsageChunks::None {
            event(out, &self.answer.usage_chunk(Usage::of(&self.recorded.generation)));
        }
        out.push_str("data: [DONE]\n\n");
        if let Some(journal) = &self.journal {
            journal.ended(out);
        }
    }

    /// The last event of an answer that is not finished.
    fn break_off(&mut self, out: &mut String, why: &Broken) {
        self.state = State::Done;
        if let Some(journal) = &mut self.journal {
            journal.rest(out);
        }
        event(out, &ApiError::broken(why).json());
        // The answer's form follows from its tokens; what else broke need not break on another rank.
        if let (Some(journal), Broken::Form(_)) = (&self.journal, why) {
            journal.ended(out);
        }
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
