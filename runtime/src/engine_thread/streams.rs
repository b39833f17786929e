//! The events of requests that were submitted together, as they come.

use super::{Cut, Timing};
use coterie_engine::Event;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, watch};

/// The events of requests that were submitted together. Dropping it cancels those that have not ended.
#[derive(Debug)]
pub struct TokenStreams {
    /// In the order of submission; none once the request has ended.
    streams: Vec<Option<mpsc::UnboundedReceiver<Told>>>,
    /// As of the last event of each; none before its first.
    timings: Vec<Option<Timing>>,
    cut: watch::Receiver<Option<Cut>>,
    /// Who is asked first, so that none is kept waiting by a busy neighbour.
    first: usize,
}

/// An event, and the times of its request up to then.
#[derive(Debug)]
pub(super) struct Told {
    pub event: Event,
    pub timing: Timing,
}

impl TokenStreams {
    pub(super) fn new(
        streams: Vec<mpsc::UnboundedReceiver<Told>>,
        cut: watch::Receiver<Option<Cut>>,
    ) -> TokenStreams {
        let timings = vec![None; streams.len()];
        TokenStreams { streams: streams.into_iter().map(Some).collect(), timings, cut, first: 0 }
    }

    /// The next event of any of them, with the request's place in the submission; none once all have ended.
    pub async fn next(&mut self) -> Result<Option<(usize, Event)>, Cut> {
        if self.streams.iter().all(Option::is_none) {
            return Ok(None);
        }
        let TokenStreams { streams, timings, cut, first } = self;
        let told = tokio::select! {
            biased;
            _ = cut.wait_for(Option::is_some) => None,
            told = poll_fn(|context| poll_any(streams, *first, context)) => told,
        };
        let (at, Told { event, timing }) = told.ok_or_else(|| cut_of(cut))?;
        timings[at] = Some(timing);
        *first = (at + 1) % streams.len();
        if is_last(&event) {
            streams[at] = None;
        }
        Ok(Some((at, event)))
    }

    /// The times of one request as far as its events were read; none before the first.
    pub fn timing(&self, at: usize) -> Option<&Timing> {
        self.timings[at].as_ref()
    }

    /// Cancels one request; no event of it follows.
    pub fn cancel(&mut self, at: usize) {
        self.streams[at] = None;
    }
}

/// An event that is there, looked for from `first` on; none where a stream ended before its request did.
fn poll_any(
    streams: &mut [Option<mpsc::UnboundedReceiver<Told>>],
    first: usize,
    context: &mut Context<'_>,
) -> Poll<Option<(usize, Told)>> {
    let many = streams.len();
    for at in (first..many).chain(0..first) {
        if let Some(stream) = &mut streams[at]
            && let Poll::Ready(told) = stream.poll_recv(context)
        {
            return Poll::Ready(told.map(|told| (at, told)));
        }
    }
    Poll::Pending
}

/// Nothing follows `event` in its request.
pub(super) fn is_last(event: &Event) -> bool {
    match event {
        Event::Started { .. } => false,
        Event::Prompt { finish, .. } | Event::Token { finish, .. } => finish.is_some(),
        Event::Failed { .. } => true,
    }
}

pub(super) fn cut_of(cut: &watch::Receiver<Option<Cut>>) -> Cut {
    cut.borrow().clone().unwrap_or_else(|| Cut::EngineDied("the engine's thread ended".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coterie_engine::{Finish, RequestId};
    use std::time::Instant;

    fn token(token: u32, finish: Option<Finish>) -> Event {
        Event::Token { id: RequestId(0), token, logprobs: None, finish }
    }

    fn told(number: u32, finish: Option<Finish>) -> Told {
        Told { event: token(number, finish), timing: Timing::new(Instant::now()) }
    }

    /// Streams of `many` requests, and what feeds and cuts them.
    fn streams(many: usize) -> (Vec<mpsc::UnboundedSender<Told>>, watch::Sender<Option<Cut>>, TokenStreams) {
        let (senders, receivers) = (0..many).map(|_| mpsc::unbounded_channel()).unzip();
        let (cut, receiver) = watch::channel(None);
        (senders, cut, TokenStreams::new(receivers, receiver))
    }

    #[tokio::test]
    async fn a_busy_request_keeps_none_waiting() {
        let (senders, _cut, mut streams) = streams(3);
        for sender in &senders {
            sender.send(told(1, None)).unwrap();
            sender.send(told(2, None)).unwrap();
            sender.send(told(3, Some(Finish::Stop))).unwrap();
        }
        let mut order = Vec::new();
        while let Some((at, _)) = streams.next().await.unwrap() {
            order.push(at);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[tokio::test]
    async fn one_that_is_cancelled_is_closed_and_the_others_go_on() {
        let (senders, _cut, mut streams) = streams(2);
        senders[0].send(told(1, None)).unwrap();
        senders[1].send(told(1, Some(Finish::Length))).unwrap();
        streams.cancel(0);
        assert!(senders[0].is_closed() && !senders[1].is_closed());
        assert_eq!(streams.next().await, Ok(Some((1, token(1, Some(Finish::Length))))));
        assert_eq!(streams.next().await, Ok(None));
    }

    #[tokio::test]
    async fn a_cut_goes_before_what_still_waits() {
        let (senders, cut, mut streams) = streams(2);
        senders[0].send(told(1, None)).unwrap();
        cut.send_replace(Some(Cut::DrainDeadline));
        assert_eq!(streams.next().await, Err(Cut::DrainDeadline));
    }

    #[tokio::test]
    async fn a_stream_that_ends_before_its_request_is_a_dead_engine() {
        let (mut senders, _cut, mut streams) = streams(2);
        senders.pop();
        assert!(matches!(streams.next().await, Err(Cut::EngineDied(_))));
    }
}
