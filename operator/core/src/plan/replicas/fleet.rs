//! The replicas that there are.

use jiff::SignedDuration;

/// Replicas as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Ranks of one replica; 0 counts as 1.
    pub width: usize,
    /// Replicas that answer and stay.
    pub ready: usize,
    /// For each replica that is on its way to Ready, how long ago it was made.
    pub starting: Vec<SignedDuration>,
}

impl Fleet {
    /// Replicas that are there and stay.
    pub fn replicas(&self) -> usize {
        self.ready + self.starting.len()
    }

    /// What is left of them after a scale-down to `count`: those on their way go first, and of these the youngest.
    pub(super) fn kept(&self, count: usize) -> Fleet {
        let ready = self.ready.min(count);
        let mut starting = self.starting.clone();
        starting.sort_by(|a, b| b.cmp(a));
        starting.truncate(count - ready);
        Fleet { width: self.width, ready, starting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_goes_first_and_the_youngest_of_it() {
        let seconds = |ages: &[i64]| ages.iter().map(|age| SignedDuration::from_secs(*age)).collect();
        let fleet = Fleet { width: 2, ready: 2, starting: seconds(&[5, 20, 10]) };
        let kept = |count| {
            let Fleet { ready, starting, .. } = fleet.kept(count);
            (ready, starting)
        };
        assert_eq!(kept(9), (2, seconds(&[20, 10, 5])));
        assert_eq!(kept(3), (2, seconds(&[20])));
        assert_eq!(kept(1), (1, seconds(&[])));
        assert_eq!(kept(0), (0, seconds(&[])));
    }
}
