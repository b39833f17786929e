//! What became of a trace under a policy.

use super::replica::Event;
use super::trace::Trace;

/// Times that requests may expect.
#[derive(Clone, Copy, Debug)]
pub struct Slo {
    /// Seconds to the first token.
    pub ttft: f64,
    /// Mean seconds from one token to the next.
    pub itl: f64,
}

/// One second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Second {
    /// Replicas that hold a device: those on their way and those draining too.
    pub held: usize,
    /// Requests, waiting and running.
    pub requests: usize,
}

/// What became of a trace.
#[derive(Clone, Debug)]
pub struct Outcome {
    arrivals: Vec<f64>,
    outputs: Vec<u64>,
    first: Vec<f64>,
    last: Vec<f64>,
    /// Each second until the last answer.
    pub seconds: Vec<Second>,
    /// How often the number of replicas was changed.
    pub decisions: usize,
}

impl Outcome {
    /// Nothing is answered yet.
    pub fn new(trace: &Trace) -> Self {
        let count = trace.arrivals.len();
        Self {
            arrivals: trace.arrivals.iter().map(|arrival| arrival.at).collect(),
            outputs: trace.arrivals.iter().map(|arrival| arrival.output_tokens).collect(),
            first: vec![f64::INFINITY; count],
            last: vec![f64::INFINITY; count],
            seconds: Vec::new(),
            decisions: 0,
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        match event {
            Event::First(index, at) => self.first[index] = at,
            Event::Last(index, at) => self.last[index] = at,
        }
    }

    /// Share of the requests whose first token and whose other tokens came in time.
    pub fn attained(&self, slo: Slo) -> f64 {
        self.share(|outcome, index| outcome.ttft(index) <= slo.ttft && outcome.itl(index) <= slo.itl)
    }

    /// Share of the requests whose first token came in time.
    pub fn attained_ttft(&self, slo: Slo) -> f64 {
        self.share(|outcome, index| outcome.ttft(index) <= slo.ttft)
    }

    /// Share of the requests whose tokens came fast enough.
    pub fn attained_itl(&self, slo: Slo) -> f64 {
        self.share(|outcome, index| outcome.itl(index) <= slo.itl)
    }

    /// A percentile of the time to the first token, seconds; infinite if so many were never answered.
    pub fn ttft_percentile(&self, percent: f64) -> f64 {
        let mut times: Vec<f64> = (0..self.arrivals.len()).map(|index| self.ttft(index)).collect();
        times.sort_by(f64::total_cmp);
        let at = (percent / 100.0 * times.len() as f64).ceil() as usize;
        times.get(at.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
    }

    /// Requests whose last token had not come when the replay ended.
    pub fn unanswered(&self) -> usize {
        self.last.iter().filter(|last| last.is_infinite()).count()
    }

    /// Hours that replicas held a device, until the last answer.
    pub fn replica_hours(&self) -> f64 {
        self.seconds.iter().map(|second| second.held).sum::<usize>() as f64 / 3600.0
    }

    /// The most replicas at once.
    pub fn peak(&self) -> usize {
        self.seconds.iter().map(|second| second.held).max().unwrap_or(0)
    }

    fn ttft(&self, index: usize) -> f64 {
        self.first[index] - self.arrivals[index]
    }

    /// 0 for an answer of one token, infinite for one that did not end.
    fn itl(&self, index: usize) -> f64 {
        match self.outputs[index] {
            _ if self.last[index].is_infinite() => f64::INFINITY,
            0 | 1 => 0.0,
            tokens => (self.last[index] - self.first[index]) / (tokens - 1) as f64,
        }
    }

    fn share(&self, is_good: impl Fn(&Self, usize) -> bool) -> f64 {
        let good = (0..self.arrivals.len()).filter(|index| is_good(self, *index)).count();
        good as f64 / self.arrivals.len().max(1) as f64
    }
}
