//! A request's body, bounded in size, time, and in what it would take as a value.

use super::error::ApiError;
use crate::server::Front;
use axum::body::{BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use futures::StreamExt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Larger bodies are refused, bytes.
pub(super) const LIMIT: usize = 10 << 20;
/// JSON values and names in one body at most. A value takes up to 360 bytes (`[0]` in a list), so 10 MiB of them would
/// take a gigabyte; this many take 94 MB, and are a prompt of as many tokens.
const MOST_VALUES: usize = 1 << 18;
/// Up to here a body needs no permit, bytes: a usual chat is served also when large ones fill the room for them.
const SMALL: usize = 64 << 10;
/// Bytes of all larger bodies that are held at once.
const ROOM: usize = 64 << 20;
/// Bytes of a permit.
const UNIT: usize = 64 << 10;
/// Of a body that is refused so much more is read and thrown away: a client that is still sending would not see
/// our answer but a broken connection.
const THROWN_AWAY: usize = 64 << 20;
const THROWING_TIME: Duration = Duration::from_secs(5);

/// Room for large bodies, shared by all requests.
#[derive(Clone, Debug)]
pub(in crate::server) struct BodyRoom(Arc<Semaphore>);

impl Default for BodyRoom {
    fn default() -> Self {
        BodyRoom(Arc::new(Semaphore::new(ROOM / UNIT)))
    }
}

/// A body that has come whole, and the room that it holds until its prompt is tokens.
#[derive(Debug, Default)]
pub(super) struct Whole {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The whole body. One whose length is said to be too large is refused before a byte of it is waited for.
pub(super) async fn read(request: Request, front: &Front) -> Result<Whole, ApiError> {
    let asks_first = request.headers().contains_key(EXPECT);
    let body = request.into_body();
    let too_large = body.size_hint().lower() > LIMIT as u64;
    let mut stream = body.into_data_stream();
    if too_large {
        // Reading on would tell a client that asks first to send it.
        if !asks_first {
            tokio::spawn(async move { timeout(THROWING_TIME, throw_away(&mut stream)).await });
        }
        return Err(ApiError::too_large(LIMIT));
    }
    let Ok(whole) = timeout(front.limits.body, collect(&mut stream, &front.bodies)).await else {
        return Err(ApiError::too_slow());
    };
    match whole {
        Ok(whole) if values(&whole) > MOST_VALUES => Err(ApiError::too_many_values(MOST_VALUES)),
        Ok(whole) => Ok(whole),
        Err(refused) => {
            let _ = timeout(THROWING_TIME, throw_away(&mut stream)).await;
            Err(refused)
        }
    }
}

/// Reads the body of a request that is refused, within bounds, so that the client sees the answer.
pub(in crate::server) async fn discard(request: Request) {
    // Reading on would tell a client that asks first to send it.
    if !request.headers().contains_key(EXPECT) {
        let _ = timeout(THROWING_TIME, throw_away(&mut request.into_body().into_data_stream())).await;
    }
}

async fn collect(stream: &mut BodyDataStream, room: &BodyRoom) -> Result<Whole, ApiError> {
    let mut whole = Whole::default();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::body_broke())?;
        let length = whole.bytes.len() + chunk.len();
        if length > LIMIT {
            return Err(ApiError::too_large(LIMIT));
        }
        whole.make_room(length, room)?;
        whole.bytes.extend_from_slice(&chunk);
    }
    Ok(whole)
}

impl Whole {
    /// Takes permits for `length` bytes in all.
    fn make_room(&mut self, length: usize, room: &BodyRoom) -> Result<(), ApiError> {
        let held = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = if length > SMALL { length.div_ceil(UNIT) } else { 0 };
        if wanted > held {
            let more = room.0.clone().try_acquire_many_owned((wanted - held) as u32);
            let more = more.map_err(|_| ApiError::no_room_for_body())?;
            match &mut self.room {
                Some(room) => room.merge(more),
                None => self.room = Some(more),
            }
        }
        Ok(())
    }
}

async fn throw_away(stream: &mut BodyDataStream) {
    let mut thrown = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        thrown += chunk.len();
        if thrown > THROWN_AWAY {
            return;
        }
    }
}

/// About how many values JSON text holds: what opens or parts them, outside of strings. Counted before they are made.
fn values(json: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b':' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_of_strings_counts() {
        assert_eq!(values(br#"{"a": [1, 2], "b": {}}"#), 7);
        assert_eq!(values(br#""[,,,:{\"[[[\\""#), 0);
        assert_eq!(values(br#"["\\", "[" ]"#), 2);
        assert_eq!(values(b"\"["), 0);
    }

    #[test]
    fn small_bodies_pass_when_large_ones_fill_the_room() {
        let room = BodyRoom::default();
        let mut held = Vec::new();
        let refused = loop {
            let mut large = Whole::default();
            match large.make_room(LIMIT, &room) {
                Ok(()) => held.push(large),
                Err(refused) => break refused,
            }
        };
        assert_eq!((held.len(), refused), (ROOM / LIMIT, ApiError::no_room_for_body()));
        assert_eq!(Whole::default().make_room(SMALL, &room), Ok(()));
        held.pop();
        assert_eq!(Whole::default().make_room(LIMIT, &room), Ok(()));
    }
}
