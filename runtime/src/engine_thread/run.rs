//! What happens on the engine's thread.

use super::streams::{Told, is_last};
use super::{NotSubmitted, Shared, Submission, Submitted, Timing, TokenSource};
use crate::metrics::Metrics;
use coterie_engine::{Event, Load, Rejected, RequestId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// A source, and who waits for what it generates.
pub(super) struct Running<S> {
    source: S,
    readers: HashMap<RequestId, Reader>,
    metrics: Arc<Metrics>,
    /// What was last reported.
    load: Load,
}

/// Who reads one request's events.
struct Reader {
    events: UnboundedSender<Told>,
    timing: Timing,
}

impl<S: TokenSource> Running<S> {
    pub(super) fn new(source: S, metrics: Arc<Metrics>) -> Self {
        let load = source.load_now();
        Running { source, readers: HashMap::new(), metrics, load }
    }

    /// Steps while there is work, sleeps while there is none, returns when nobody can send any more.
    pub(super) fn until_unused(&mut self, submissions: &Receiver<Submission>, shared: &Shared) {
        let mut events = Vec::new();
        loop {
            if self.source.is_idle() {
                match submissions.recv() {
                    Ok(submission) => self.take(submission, shared),
                    Err(_) => return,
                }
            }
            while let Ok(submission) = submissions.try_recv() {
                self.take(submission, shared);
            }
            self.cancel_unread();
            self.report(shared);
            if !self.source.is_idle() {
                let began = Instant::now();
                self.source.step(&mut events);
                let ended = Instant::now();
                shared.load.add_step(ended - began);
                let finished = self.deliver(&mut events, began, ended);
                let before = self.load;
                self.report(shared);
                self.observe_step(ended - began, finished, before);
            }
        }
    }

    /// Ends every stream. A source that panicked may be in any state, so it is left as it is, not dropped.
    pub(super) fn end_streams_and_forget_source(self) {
        std::mem::forget(self.source);
    }

    fn take(&mut self, submission: Submission, shared: &Shared) {
        let Submission { requests, arrived, accepted } = submission;
        let many = requests.len();
        let answer = (!accepted.is_closed()).then(|| self.take_all_or_none(requests, arrived));
        // Who has the answer finds it in the load.
        self.report(shared);
        shared.arriving.fetch_sub(many, Ordering::Relaxed);
        if let Some(answer) = answer {
            // If nobody waits for it, nobody reads the events either, and the requests are cancelled below.
            let _ = accepted.send(answer);
        }
    }

    fn take_all_or_none(&mut self, requests: Vec<Submitted>, arrived: Instant) -> Result<(), NotSubmitted> {
        let many = requests.len();
        let tokens = requests.iter().map(|submitted| submitted.request.given()).sum();
        let mut taken = Vec::with_capacity(many);
        for Submitted { request, events } in requests {
            match self.source.submit(request) {
                Ok(id) => taken.push((id, Reader { events, timing: Timing::new(arrived) })),
                Err(rejected) => {
                    taken.iter().for_each(|(id, _)| self.source.cancel(*id));
                    return Err(self.refusal(rejected, many, tokens));
                }
            }
        }
        self.readers.extend(taken);
        Ok(())
    }

    /// Why `requests` that came with `tokens` were not taken. They themselves do not count as waiting, and
    /// need not come again where they could not wait even alone.
    fn refusal(&self, rejected: Rejected, requests: usize, tokens: usize) -> NotSubmitted {
        let load = self.source.load_now();
        match rejected {
            Rejected::QueueFull { limit, .. } if requests > limit => {
                NotSubmitted::TooMany { requests, limit }
            }
            Rejected::TokensFull { limit, .. } if requests > 1 && tokens > limit => {
                NotSubmitted::TooManyTokens { tokens, limit }
            }
            Rejected::QueueFull { limit, .. } => {
                NotSubmitted::Rejected(Rejected::QueueFull { waiting: load.waiting, limit })
            }
            Rejected::TokensFull { limit, .. } => {
                NotSubmitted::Rejected(Rejected::TokensFull { waiting: load.waiting_tokens, limit })
            }
            other => NotSubmitted::Rejected(other),
        }
    }

    fn cancel_unread(&mut self) {
        let source = &mut self.source;
        self.readers.retain(|id, reader| {
            let read = !reader.events.is_closed();
            if !read {
                source.cancel(*id);
            }
            read
        });
    }

    /// Passes on what a step that lasted from `began` to `ended` told; gives how many requests it was the last step of.
    fn deliver(&mut self, events: &mut Vec<Event>, began: Instant, ended: Instant) -> usize {
        let mut finished = 0;
        for event in events.drain(..) {
            let last = is_last(&event);
            finished += usize::from(last);
            let (Event::Started { id, .. }
            | Event::Prompt { id, .. }
            | Event::Token { id, .. }
            | Event::Failed { id, .. }) = event;
            let Some(reader) = self.readers.get_mut(&id) else { continue };
            reader.time(&event, began, ended, &self.metrics);
            // A closed channel is noticed by `cancel_unread` before the next step.
            let _ = reader.events.send(Told { event, timing: reader.timing });
            if last {
                self.readers.remove(&id);
            }
        }
        finished
    }

    /// Tells `shared` and the next step what the source does now.
    fn report(&mut self, shared: &Shared) {
        self.load = self.source.load_now();
        shared.load.set(&self.load);
    }

    /// Counts a step that took `time`, after which `finished` requests were done; `before` it the source did that.
    fn observe_step(&self, time: Duration, finished: usize, before: Load) {
        let (now, metrics) = (&self.load, &self.metrics);
        let computed = now.scheduled.prompt_tokens.saturating_sub(before.scheduled.prompt_tokens);
        let generated = now.generated_tokens.saturating_sub(before.generated_tokens);
        metrics.step_time.observe(time);
        metrics.step_tokens.observe_number((computed + generated) as usize);
        metrics.step_requests.observe_number(now.running + finished);
    }
}

impl Reader {
    fn time(&mut self, event: &Event, began: Instant, ended: Instant, metrics: &Metrics) {
        match event {
            Event::Started { .. } => {
                self.timing.start(began);
                metrics.queue_time.observe(self.timing.queue().unwrap_or_default());
            }
            Event::Token { .. } => match self.timing.token(ended) {
                Some(gap) => metrics.inter_token_latency.observe(gap),
                None => metrics.time_to_first_token.observe(self.timing.first_token().unwrap_or_default()),
            },
            Event::Prompt { .. } | Event::Failed { .. } => {}
        }
    }
}
