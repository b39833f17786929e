//! From counts that only grow to what was asked in one stretch of time after the other.

use super::ExpertLoad;
use coterie_api::expert_report::ExpertReport;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// The counts of one replica's ranks.
#[derive(Debug, Default)]
pub struct LoadGauge {
    /// When the present stretch began.
    began: Option<Timestamp>,
    /// What each rank counted last.
    last: BTreeMap<u16, Counts>,
    /// Of the present stretch.
    tokens: Vec<Vec<u64>>,
    /// The map by which all routed in it; 0 if that changed.
    version: Option<u64>,
}

#[derive(Debug)]
struct Counts {
    since: u64,
    tokens: Vec<Vec<u64>>,
}

impl LoadGauge {
    /// Takes a report of one rank. What it counted before its first report is nobody's.
    pub fn take(&mut self, report: &ExpertReport) {
        let last = self.last.get(&report.rank);
        let again = last.is_some_and(|last| last.since != report.since);
        for (layer, counts) in report.tokens.iter().enumerate() {
            if self.tokens.len() <= layer {
                self.tokens.resize(layer + 1, Vec::new());
            }
            let gathered = &mut self.tokens[layer];
            if gathered.len() < counts.len() {
                gathered.resize(counts.len(), 0);
            }
            for (expert, (sum, count)) in gathered.iter_mut().zip(counts).enumerate() {
                let before = last.and_then(|last| last.tokens.get(layer)?.get(expert)).copied();
                // A process that was started again counts from nothing.
                let before = if again { 0 } else { before.unwrap_or(*count) };
                *sum = sum.saturating_add(count.saturating_sub(before));
            }
        }
        let routing = report.routing_version;
        self.version = Some(self.version.map_or(routing, |all| if all == routing { all } else { 0 }));
        self.last.insert(report.rank, Counts { since: report.since, tokens: report.tokens.clone() });
    }

    /// Ends the stretch if it lasted as long as `stretch`, and begins the next; `None` too if nothing was asked.
    pub fn close(&mut self, now: Timestamp, stretch: SignedDuration) -> Option<ExpertLoad> {
        let began = *self.began.get_or_insert(now);
        if now.duration_since(began) < stretch {
            return None;
        }
        let tokens = std::mem::take(&mut self.tokens);
        let version = self.version.take().unwrap_or(0);
        self.began = Some(now);
        let asked = tokens.iter().flatten().any(|&count| count > 0);
        asked.then_some(ExpertLoad { ended: now, version, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rank: u16, since: u64, version: u64, tokens: [u64; 2]) -> ExpertReport {
        let tokens = vec![tokens.to_vec()];
        ExpertReport { rank, since, routing_version: version, tokens, ..Default::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    #[test]
    fn what_ranks_count_is_told_stretch_by_stretch() {
        let mut gauge = LoadGauge::default();
        gauge.take(&report(0, 7, 1, [100, 0]));
        gauge.take(&report(1, 7, 1, [50, 50]));
        assert_eq!(gauge.close(at(0), MINUTE), None);
        gauge.take(&report(0, 7, 1, [103, 0]));
        gauge.take(&report(1, 7, 1, [50, 51]));
        assert_eq!(gauge.close(at(59), MINUTE), None);
        gauge.take(&report(0, 7, 1, [104, 0]));
        let load = gauge.close(at(60), MINUTE).unwrap();
        assert_eq!((load.ended, load.version, load.tokens), (at(60), 1, vec![vec![4, 1]]));
        gauge.take(&report(0, 7, 1, [104, 0]));
        assert_eq!(gauge.close(at(120), MINUTE), None, "nothing was asked");
        // The process is another one, and goes by another map.
        gauge.take(&report(0, 9, 1, [2, 0]));
        gauge.take(&report(0, 9, 2, [3, 1]));
        let load = gauge.close(at(180), MINUTE).unwrap();
        assert_eq!((load.version, load.tokens), (0, vec![vec![3, 1]]));
    }
}
