//! What happens on the engine's thread.

use super::{Shared, Submission, TokenSource};
use crate::metrics::Metrics;
use coterie_engine::{Event, Load, RequestId};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::Instant;
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
    events: UnboundedSender<Event>,
    arrived: Instant,
    last_token: Option<Instant>,
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
                self.source.step(&mut events);
                self.deliver(&mut events);
                self.report(shared);
            }
        }
    }

    /// Ends every stream. A source that panicked may be in any state, so it is left as it is, not dropped.
    pub(super) fn end_streams_and_forget_source(self) {
        std::mem::forget(self.source);
    }

    fn take(&mut self, submission: Submission, shared: &Shared) {
        shared.arriving.fetch_sub(1, Ordering::Relaxed);
        if submission.events.is_closed() {
            return;
        }
        let answer = self.source.submit(submission.request).map(|id| {
            let reader = Reader { events: submission.events, arrived: submission.arrived, last_token: None };
            self.readers.insert(id, reader);
        });
        // If nobody waits for the answer, nobody reads the events either, and the request is cancelled below.
        let _ = submission.accepted.send(answer);
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

    fn deliver(&mut self, events: &mut Vec<Event>) {
        let now = Instant::now();
        for event in events.drain(..) {
            let (id, last) = match &event {
                Event::Started { id, .. } => (*id, false),
                Event::Prompt { id, finish, .. } => (*id, finish.is_some()),
                Event::Token { id, finish, .. } => (*id, finish.is_some()),
                Event::Failed { id, .. } => (*id, true),
            };
            let Some(reader) = self.readers.get_mut(&id) else { continue };
            if matches!(event, Event::Token { .. }) {
                match reader.last_token.replace(now) {
                    Some(before) => self.metrics.inter_token_latency.observe((now - before).as_secs_f64()),
                    None => self.metrics.time_to_first_token.observe((now - reader.arrived).as_secs_f64()),
                }
            }
            // A closed channel is noticed by `cancel_unread` before the next step.
            let _ = reader.events.send(event);
            if last {
                self.readers.remove(&id);
            }
        }
    }

    fn report(&mut self, shared: &Shared) {
        let load = self.source.load_now();
        let (now, before) = (load.scheduled, self.load.scheduled);
        self.metrics.prompt_tokens.inc_by(now.prompt_tokens.saturating_sub(before.prompt_tokens));
        self.metrics
            .generation_tokens
            .inc_by(load.generated_tokens.saturating_sub(self.load.generated_tokens));
        self.load = load;
        *shared.load.lock().unwrap_or_else(PoisonError::into_inner) = load;
    }
}
