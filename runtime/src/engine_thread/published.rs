//! What the engine does now, for whoever wants to know. Each figure is an atomic of its own, so that the engine's
//! thread never waits for a reader; figures that are read together may be of two steps.

use super::Work;
use coterie_engine::{Counts, Load};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

#[derive(Default)]
pub(super) struct Published {
    waiting: AtomicUsize,
    running: AtomicUsize,
    waiting_tokens: AtomicUsize,
    prefilling_tokens: AtomicUsize,
    /// The bits of an f32.
    kv_usage: AtomicU32,
    prompt_tokens: AtomicU64,
    started: AtomicU64,
    started_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    preemptions: AtomicU64,
    drafts: AtomicU64,
    draft_tokens: AtomicU64,
    accepted_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    steps: AtomicU64,
    busy_nanoseconds: AtomicU64,
}

impl Published {
    pub fn new(load: &Load) -> Published {
        let published = Published::default();
        published.set(load);
        published
    }

    pub fn set(&self, load: &Load) {
        // Without `..`: a new figure must be published too.
        let Load {
            waiting,
            running,
            waiting_tokens,
            prefilling_tokens,
            kv_usage,
            scheduled,
            generated_tokens,
        } = *load;
        let Counts {
            prompt_tokens,
            started,
            started_tokens,
            cached_tokens,
            preemptions,
            drafts,
            draft_tokens,
            accepted_tokens,
        } = scheduled;
        self.waiting.store(waiting, Relaxed);
        self.running.store(running, Relaxed);
        self.waiting_tokens.store(waiting_tokens, Relaxed);
        self.prefilling_tokens.store(prefilling_tokens, Relaxed);
        self.kv_usage.store(kv_usage.to_bits(), Relaxed);
        self.prompt_tokens.store(prompt_tokens, Relaxed);
        self.started.store(started, Relaxed);
        self.started_tokens.store(started_tokens, Relaxed);
        self.cached_tokens.store(cached_tokens, Relaxed);
        self.preemptions.store(preemptions, Relaxed);
        self.drafts.store(drafts, Relaxed);
        self.draft_tokens.store(draft_tokens, Relaxed);
        self.accepted_tokens.store(accepted_tokens, Relaxed);
        self.generated_tokens.store(generated_tokens, Relaxed);
    }

    pub fn get(&self) -> Load {
        Load {
            waiting: self.waiting.load(Relaxed),
            running: self.running.load(Relaxed),
            waiting_tokens: self.waiting_tokens.load(Relaxed),
            prefilling_tokens: self.prefilling_tokens.load(Relaxed),
            kv_usage: f32::from_bits(self.kv_usage.load(Relaxed)),
            scheduled: Counts {
                prompt_tokens: self.prompt_tokens.load(Relaxed),
                started: self.started.load(Relaxed),
                started_tokens: self.started_tokens.load(Relaxed),
                cached_tokens: self.cached_tokens.load(Relaxed),
                preemptions: self.preemptions.load(Relaxed),
                drafts: self.drafts.load(Relaxed),
                draft_tokens: self.draft_tokens.load(Relaxed),
                accepted_tokens: self.accepted_tokens.load(Relaxed),
            },
            generated_tokens: self.generated_tokens.load(Relaxed),
        }
    }

    /// Adds a step.
    pub fn add_step(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_nanoseconds.fetch_add(nanoseconds, Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }

    pub fn work(&self) -> Work {
        let busy = Duration::from_nanos(self.busy_nanoseconds.load(Relaxed));
        Work { steps: self.steps.load(Relaxed), busy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_read_as_it_was_published() {
        let scheduled = Counts {
            prompt_tokens: 4,
            started: 9,
            started_tokens: 5,
            cached_tokens: 6,
            preemptions: 7,
            drafts: 10,
            draft_tokens: 11,
            accepted_tokens: 12,
        };
        let load = Load {
            waiting: 1,
            running: 2,
            waiting_tokens: 3,
            prefilling_tokens: 13,
            kv_usage: 0.75,
            scheduled,
            generated_tokens: 8,
        };
        let published = Published::new(&load);
        assert_eq!(published.get(), load);
        published.add_step(Duration::from_millis(3));
        published.add_step(Duration::from_millis(4));
        assert_eq!(published.work(), Work { steps: 2, busy: Duration::from_millis(7) });
    }
}
