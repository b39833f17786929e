//! Traffic with the statistics that were published of Azure's 2023 traces (Patel et al., "Splitwise", ISCA 2024).
//!
//! - **Conversation:** requests come at random at a rate that wanders: its logarithm is an Ornstein-Uhlenbeck process. How far
//!   and how fast is read off the trace; what the inter-arrival times vary by beyond that, up to the coefficient of
//!   variation of 1.1, is the chance of single requests. The busiest ten seconds have 1.8 times the mean.
//! - **Code:** bursts and silences. Within a burst requests come at random at the burst's own rate, between bursts there is
//!   nothing; so the coefficient of variation is 13 and the busiest ten seconds have 13 times the mean.
//!
//! Lengths are lognormal with the published median and 99th percentile.

use super::dice::Dice;
use super::trace::{Arrival, Trace};
use anyhow::Result;

/// Which traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// People who chat: 5.5 requests a second, which wander.
    Conversation,
    /// Editors that complete code: 2.6 requests a second, in bursts.
    Code,
}

/// Median and 99th percentile of a length.
struct Length(f64, f64);

impl Length {
    /// At least one token, and no more than fits any model.
    fn draw(&self, dice: &mut Dice) -> u64 {
        dice.lognormal(self.0, self.1).round().clamp(1.0, 100_000.0) as u64
    }
}

const CONVERSATION_RATE: f64 = 5.53;
/// Deviation of the logarithm of the rate, and seconds after which a third is left of where it was. Fitted to the trace: its counts of
/// 10, 60 and 120 s deviate by 0.23, 0.21 and 0.21 of their mean beyond chance, and of their product with those 60, 300
/// and 600 s later 0.81, 0.62 and 0.25 are left. Hours that are drawn so have 0.21, 0.20, 0.20 and 0.88, 0.44, 0.07 in the mean.
pub const CONVERSATION_WANDER: f64 = 0.25;
const CONVERSATION_MEMORY: f64 = 600.0;
/// Coefficient of variation of the gaps at a rate that stays: with the wandering, all gaps have (1 + c²) exp(s²) - 1 = 1.1².
const CONVERSATION_GAPS: f64 = 1.04;

const CODE_RATE: f64 = 2.57;
/// Requests a second within a burst: median and 99th percentile.
const CODE_BURST: Length = Length(11.0, 30.0);
/// Mean seconds of a burst.
const CODE_BURST_SECONDS: f64 = 12.0;

/// Draws the trace: the same seed, the same requests. `scale` multiplies the rate; `wander` is the deviation of the
/// logarithm of conversation's rate.
pub fn trace(shape: Shape, seed: u64, seconds: f64, scale: f64, wander: f64) -> Result<Trace> {
    let mut dice = Dice::new(seed);
    let (times, prompts, outputs) = match shape {
        Shape::Conversation => {
            (conversation(&mut dice, seconds, scale, wander), Length(1020.0, 4142.0), Length(129.0, 601.0))
        }
        Shape::Code => (code(&mut dice, seconds, scale), Length(1469.0, 7436.0), Length(13.0, 249.0)),
    };
    let arrival =
        |at| Arrival { at, prompt_tokens: prompts.draw(&mut dice), output_tokens: outputs.draw(&mut dice) };
    let name = format!("synthetic {shape:?}").to_lowercase();
    Trace::new(name, times.into_iter().map(arrival).collect())
}

fn conversation(dice: &mut Dice, seconds: f64, scale: f64, wander: f64) -> Vec<f64> {
    let mut times = Vec::new();
    // The same wandering at any scale.
    let mut wandering = dice.others();
    let mut at = wandering.normal();
    let keep = (-1.0 / CONVERSATION_MEMORY).exp();
    let mean = (wander * wander / 2.0).exp();
    // Counted in mean gaps from the beginning of the second to the next request.
    let mut gap = dice.varied(1.0, CONVERSATION_GAPS);
    let mut second = 0.0;
    while second < seconds {
        let rate = CONVERSATION_RATE * scale * (wander * at).exp() / mean;
        let length = (seconds - second).min(1.0);
        while gap < rate * length {
            times.push(second + gap / rate);
            gap += dice.varied(1.0, CONVERSATION_GAPS);
        }
        gap -= rate * length;
        at = keep * at + (1.0 - keep * keep).sqrt() * wandering.normal();
        second += 1.0;
    }
    times
}

fn code(dice: &mut Dice, seconds: f64, scale: f64) -> Vec<f64> {
    let mut times = Vec::new();
    // Bursts last this share of the time, so that the mean rate comes out.
    let deviation = (CODE_BURST.1 / CODE_BURST.0).ln() / 2.326_348;
    let share = CODE_RATE / (CODE_BURST.0 * (deviation * deviation / 2.0).exp());
    let silence = CODE_BURST_SECONDS * (1.0 - share) / share;
    let mut at = dice.exponential(silence);
    while at < seconds {
        let end = at + dice.exponential(CODE_BURST_SECONDS);
        let rate = dice.lognormal(CODE_BURST.0, CODE_BURST.1) * scale;
        at_random(dice, rate, at, end.min(seconds), &mut times);
        at = end + dice.exponential(silence);
    }
    times
}

/// A Poisson process from `begin` to `end`.
fn at_random(dice: &mut Dice, rate: f64, begin: f64, end: f64, times: &mut Vec<f64>) {
    let mut at = begin + dice.exponential(1.0 / rate);
    while at < end {
        times.push(at);
        at += dice.exponential(1.0 / rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Statistics {
        rate: f64,
        variation: f64,
        peak: f64,
        /// Deviation of the count of a minute beyond that of chance, over its mean.
        wander: f64,
        prompts: (f64, f64),
        outputs: (f64, f64),
    }

    fn statistics(trace: &Trace, seconds: f64) -> Statistics {
        let times: Vec<f64> = trace.arrivals.iter().map(|arrival| arrival.at).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let mut tens = vec![0.0_f64; (seconds / 10.0).ceil() as usize];
        times.iter().for_each(|time| tens[(time / 10.0) as usize] += 1.0);
        let rate = times.len() as f64 / seconds;
        let minutes: Vec<f64> = tens.chunks_exact(6).map(|minute| minute.iter().sum()).collect();
        let expected = rate * 60.0;
        let spread =
            minutes.iter().map(|count| (count - expected).powi(2)).sum::<f64>() / minutes.len() as f64;
        let percentiles = |length: fn(&Arrival) -> u64| {
            let mut lengths: Vec<u64> = trace.arrivals.iter().map(length).collect();
            lengths.sort_unstable();
            (lengths[lengths.len() / 2] as f64, lengths[lengths.len() * 99 / 100] as f64)
        };
        Statistics {
            rate,
            variation: square.sqrt() / mean,
            wander: (spread - expected).max(0.0).sqrt() / expected,
            peak: tens.into_iter().fold(0.0, f64::max) / 10.0 / rate,
            prompts: percentiles(|arrival| arrival.prompt_tokens),
            outputs: percentiles(|arrival| arrival.output_tokens),
        }
    }

    /// Mean of ten hours of ten seeds.
    fn mean(shape: Shape, of: fn(&Statistics) -> f64) -> f64 {
        let values = (0..10).map(|seed| {
            of(&statistics(&trace(shape, seed, 3600.0, 1.0, CONVERSATION_WANDER).unwrap(), 3600.0))
        });
        values.sum::<f64>() / 10.0
    }

    #[track_caller]
    fn near(found: f64, published: f64, tolerance: f64) {
        assert!((found / published - 1.0).abs() < tolerance, "{found}, published {published}");
    }

    #[test]
    fn conversation_has_the_published_statistics() {
        near(mean(Shape::Conversation, |it| it.rate), 5.53, 0.15);
        near(mean(Shape::Conversation, |it| it.variation), 1.1, 0.1);
        near(mean(Shape::Conversation, |it| it.peak), 1.77, 0.1);
        near(mean(Shape::Conversation, |it| it.wander), 0.21, 0.15);
        near(mean(Shape::Conversation, |it| it.prompts.0), 1020.0, 0.05);
        near(mean(Shape::Conversation, |it| it.prompts.1), 4142.0, 0.05);
        near(mean(Shape::Conversation, |it| it.outputs.0), 129.0, 0.05);
        near(mean(Shape::Conversation, |it| it.outputs.1), 601.0, 0.05);
    }

    #[test]
    fn code_has_the_published_statistics() {
        near(mean(Shape::Code, |it| it.rate), 2.57, 0.2);
        near(mean(Shape::Code, |it| it.variation), 13.2, 0.25);
        near(mean(Shape::Code, |it| it.peak), 12.7, 0.3);
        near(mean(Shape::Code, |it| it.prompts.0), 1469.0, 0.05);
        near(mean(Shape::Code, |it| it.prompts.1), 7436.0, 0.1);
        near(mean(Shape::Code, |it| it.outputs.0), 13.0, 0.1);
        near(mean(Shape::Code, |it| it.outputs.1), 249.0, 0.1);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_and_scale_multiplies_it() {
        let draw = |shape, seed, scale| trace(shape, seed, 3600.0, scale, CONVERSATION_WANDER).unwrap();
        let one = draw(Shape::Code, 7, 1.0);
        assert_eq!(one, draw(Shape::Code, 7, 1.0));
        assert_ne!(one, draw(Shape::Code, 8, 1.0));
        let count = |scale| draw(Shape::Conversation, 7, scale).arrivals.len() as f64;
        near(count(4.0) / count(1.0), 4.0, 0.1);
    }
}
