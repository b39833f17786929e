//! What the demand of the last minutes would have taken.
//!
//! Replayed in blocks: the fewest replicas with which no request of a block would have waited longer than is allowed. A
//! block that the demand of one time to Ready before did not announce, even if it had grown as far as can be provided for,
//! is a burst. Nothing but replicas that are there helps against the next one, so bursts are remembered longer, and with
//! headroom: the next one may be larger.

use super::cost::Cost;
use super::growth::MOST;

/// The last minutes, in seconds.
pub const LATELY: usize = 300;
/// Seconds for which bursts are remembered.
const BURSTS: usize = 1800;
/// Seconds of demand that are looked at as one.
const BLOCK: usize = 30;
/// By how much more than a burst is planned for, for each square root of a second that a replica takes to come, and the
/// bounds of that. Docs: docs/design/020-scaler.md.
const HEADROOM: f64 = 0.033;
const HEADROOM_BOUNDS: (f64, f64) = (0.1, 0.6);

/// Replicas that would have met the last minutes. `demand` is work of each second, oldest first, up to the one before
/// the second `newest`; `window` is over how many of them demand is measured, and a replica takes `start` to come.
///
/// The highest block is left out, with those beside it and the burst that it is part of: what has come only once may not
/// come again, and is gone before a replica comes.
pub fn lately(demand: &[f64], newest: i64, window: usize, start: f64, cost: &Cost) -> f64 {
    // Blocks begin at the same seconds each time, so that a burst is in the same one at each look.
    let into = usize::try_from(newest.rem_euclid(BLOCK as i64)).unwrap_or(0);
    let whole = demand.len().saturating_sub(into);
    let headroom = 1.0 + (HEADROOM * start.sqrt()).clamp(HEADROOM_BOUNDS.0, HEADROOM_BOUNDS.1);
    let ends = (1..=whole).rev().step_by(BLOCK).take(BURSTS / BLOCK);
    let blocks = ends.map(|end| {
        let begin = end.saturating_sub(BLOCK);
        let need = enough_for(&demand[begin..end], cost);
        match before(demand, begin, window, start) {
            Some(level) if need * cost.capacity > MOST * level => {
                Block { need: need * headroom, is_burst: true }
            }
            _ if whole - end < LATELY => Block { need, is_burst: false },
            _ => Block::default(),
        }
    });
    without_highest(&blocks.collect::<Vec<_>>(), (start / BLOCK as f64).ceil() as usize)
}

/// What came in [`BLOCK`] seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Replicas, not whole.
    need: f64,
    is_burst: bool,
}

/// What came each second one `start` before the second `begin`; `None` if nothing is known of that time.
fn before(demand: &[f64], begin: usize, window: usize, start: f64) -> Option<f64> {
    let end = begin.checked_sub(start.round() as usize)?;
    let seconds = &demand[end.checked_sub(window)?..end];
    Some(seconds.iter().sum::<f64>().max(0.0) / window as f64)
}

/// The fewest replicas, not whole, with which nothing waits longer than is allowed: after each second, what came
/// since some second before, less what was done since, is at most the allowance.
fn enough_for(demand: &[f64], cost: &Cost) -> f64 {
    let mut most = 0.0_f64;
    for begin in 0..demand.len() {
        let mut came = 0.0;
        for (seconds, work) in demand[begin..].iter().enumerate() {
            came += work;
            most = most.max(came / ((seconds + 1) as f64 * cost.capacity + cost.allowance));
        }
    }
    most
}

/// The highest need without the highest burst. What grew and stays is no burst any more after `announced` blocks.
fn without_highest(blocks: &[Block], announced: usize) -> f64 {
    let highest = (0..blocks.len()).max_by(|a, b| blocks[*a].need.total_cmp(&blocks[*b].need)).unwrap_or(0);
    let (newer, rest) = blocks.split_at(highest);
    let of_burst = |count: usize| count.min(announced) + 1;
    let newer_of_it = newer.iter().rev().take_while(|block| block.is_burst).count();
    let older_of_it = rest.iter().skip(1).take_while(|block| block.is_burst).count();
    let others =
        newer.iter().rev().skip(of_burst(newer_of_it)).chain(rest.iter().skip(1 + of_burst(older_of_it)));
    others.map(|block| block.need).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::super::demand::Measured;
    use super::super::rates::Rates;
    use super::super::tests::stage::policy;
    use super::*;

    const MEASURED: Measured = Measured {
        rates: Rates { step: 0.01, token: 0.0003, prompt: 1.0 / 8000.0 },
        prompt_tokens: 1000.0,
        computed_share: 1.0,
        output_tokens: 100.0,
        max_running: 64.0,
        full_share: None,
    };

    /// One second of work comes each second, and ten from the first to the second time of each burst; a replica takes `start` to come.
    fn asked(seconds: usize, bursts: &[(usize, usize)], start: f64) -> f64 {
        let of = |second: usize| {
            if bursts.iter().any(|(begin, end)| (*begin..*end).contains(&second)) { 10.0 } else { 1.0 }
        };
        let demand: Vec<f64> = (0..seconds).map(of).collect();
        let policy = policy(1, 50);
        lately(&demand, seconds as i64, 10, start, &Cost::of(&policy, &MEASURED, 1.0))
    }

    /// 30 s of `work` each second, of which as much waits as may.
    fn block(work: f64) -> f64 {
        let policy = policy(1, 50);
        let cost = Cost::of(&policy, &MEASURED, 1.0);
        30.0 * work / (30.0 * cost.capacity + cost.allowance)
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
    }

    #[test]
    fn a_burst_that_came_once_is_left_out_and_one_that_came_twice_is_not() {
        near(asked(900, &[], 120.0), block(1.0));
        near(asked(900, &[(600, 630)], 120.0), block(1.0));
        near(asked(900, &[(300, 330), (600, 630)], 120.0), block(10.0) * (1.0 + HEADROOM * 120.0_f64.sqrt()));
    }

    #[test]
    fn bursts_are_remembered_longer_than_what_was_announced() {
        let twice = [(300, 330), (600, 630)];
        assert!(asked(300 + BURSTS, &twice, 120.0) > block(10.0));
        near(asked(330 + BURSTS, &twice, 120.0), block(1.0));
        // What was before these is not known.
        let began = [(0, 120)];
        near(asked(LATELY + 30, &began, 120.0), block(10.0));
        near(asked(LATELY + 120, &began, 120.0), block(1.0));
    }

    #[test]
    fn what_grew_and_stays_is_one_burst_until_a_replica_could_have_come() {
        // Ten minutes at ten times the demand: what came while no replica could have come is a burst, the rest is not.
        near(asked(1400, &[(600, 1200)], 120.0), block(10.0));
        near(asked(2000, &[(600, 1200)], 120.0), block(1.0));
    }

    #[test]
    fn no_demand_and_strange_times_need_nothing() {
        let policy = policy(1, 50);
        let cost = Cost::of(&policy, &MEASURED, 1.0);
        for (demand, start) in [(&[][..], 120.0), (&[0.0; 100], 0.0), (&[-1.0; 100], 1e9)] {
            assert_eq!(lately(demand, 0, 10, start, &cost), 0.0);
        }
    }
}
