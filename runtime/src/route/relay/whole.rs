//! An answer that is sent when it is finished. Until then nothing has been sent, so whatever happens to its rank,
//! another one begins anew. Without a seed of the client's that may be another answer; nobody has seen the first one.

use super::tries::{Answer, Tries};
use crate::route::door::{Door, Order};
use crate::route::headers::back;
use crate::server::ApiError;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde::Deserialize;
use std::io;
use std::sync::Arc;

/// Bytes of an answer that are held back, so that it can be begun anew. What is longer (many choices with log
/// probabilities) is sent on from there, and breaks off with its rank.
const HELD: usize = 16 << 20;

/// Answers in one piece.
pub(in crate::route) async fn whole(door: Arc<Door>, order: Order) -> Result<Response, ApiError> {
    let mut tries = Tries::new(door, order);
    match first_whole(&mut tries).await {
        Ok((answer, held, ended)) => {
            let usage = usage(&held);
            tries.order.record.tokens = usage.completion_tokens;
            tries.order.record.prompt = usage.prompt_tokens;
            tries.order.record.answered();
            Ok(response(tries, answer, held, ended))
        }
        Err(error) => {
            tries.order.record.failed(&error, false);
            Err(error)
        }
    }
}

/// The first answer that does not break off, as far as it is held, and whether that is all of it.
async fn first_whole(tries: &mut Tries) -> Result<(Answer, Vec<u8>, bool), ApiError> {
    loop {
        let mut answer = tries.next(None).await?;
        let mut held = Vec::new();
        match hold(&mut answer, &mut held).await {
            Ok(ended) => return Ok((answer, held, ended)),
            Err(why) => {
                answer.shun();
                tries.broke(answer.rank(), &why, false)?;
            }
        }
    }
}

/// What an answer says that it took.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: u64,
}

fn usage(answer: &[u8]) -> Usage {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Counted {
        usage: Usage,
    }
    serde_json::from_slice::<Counted>(answer).unwrap_or_default().usage
}

/// Reads the answer to its end, if that is not too far.
async fn hold(answer: &mut Answer, held: &mut Vec<u8>) -> Result<bool, String> {
    while let Some(piece) = answer.read().await? {
        held.extend_from_slice(&piece);
        if held.len() > HELD {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `tries` lives as long as the answer does: its request is running.
fn response(tries: Tries, answer: Answer, held: Vec<u8>, ended: bool) -> Response {
    let (status, headers) = (answer.head.status, back(&answer.head.headers));
    if ended {
        return (status, headers, held).into_response();
    }
    let rest = stream::unfold(Some((answer, tries)), |still| async {
        let (mut answer, tries) = still?;
        match answer.read().await {
            Ok(piece) => Some((Ok(piece?), Some((answer, tries)))),
            Err(why) => Some((Err(io::Error::other(why)), None)),
        }
    });
    let all = stream::once(async { Ok::<Bytes, io::Error>(held.into()) }).chain(rest);
    (status, headers, Body::from_stream(all)).into_response()
}
