//! Which beginning each snapshot of running states belongs to. A snapshot is as of the end of a published block and is
//! withdrawn with it. It may go alone, too, when another is to be made and there is no room: the longest unused first.

use super::recency::Recency;
use crate::prefix::Prefix;
use std::collections::HashMap;

/// All snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    of: HashMap<Prefix, u32>,
    /// `[snapshots]`: the beginning whose it is.
    names: Vec<Option<Prefix>>,
    blank: Vec<u32>,
    used: Recency,
}

impl Snapshots {
    pub fn new(snapshots: usize) -> Snapshots {
        Snapshots {
            of: HashMap::new(),
            names: vec![None; snapshots],
            blank: (0..snapshots as u32).rev().collect(),
            used: Recency::new(snapshots),
        }
    }

    pub fn find(&self, name: Prefix) -> Option<u32> {
        self.of.get(&name).copied()
    }

    /// Finds the snapshot of a beginning, which is then the last that goes.
    pub fn take(&mut self, name: Prefix) -> Option<u32> {
        let snapshot = self.find(name)?;
        self.used.remove(snapshot);
        self.used.push_newest(snapshot);
        Some(snapshot)
    }

    /// The snapshot to be made for a beginning; none if there is one, or no room for any.
    pub fn make(&mut self, name: Prefix) -> Option<u32> {
        if self.take(name).is_some() {
            return None;
        }
        let snapshot = self.blank.pop().or_else(|| self.used.pop_oldest())?;
        if let Some(before) = self.names[snapshot as usize].replace(name) {
            self.of.remove(&before);
        }
        self.of.insert(name, snapshot);
        self.used.push_newest(snapshot);
        Some(snapshot)
    }

    /// The beginning is gone, and its snapshot with it.
    pub fn withdraw(&mut self, name: Prefix) {
        if let Some(snapshot) = self.of.remove(&name) {
            self.names[snapshot as usize] = None;
            self.used.remove(snapshot);
            self.blank.push(snapshot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn name(number: u64) -> Prefix {
        Prefix::Published(number)
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let mut snapshots = Snapshots::new(2);
        assert_eq!((snapshots.make(name(1)), snapshots.make(name(2))), (Some(0), Some(1)));
        assert_eq!(snapshots.make(name(1)), None, "it is there");
        assert_eq!(snapshots.make(name(3)), Some(1));
        assert_eq!([1, 2, 3].map(|n| snapshots.find(name(n))), [Some(0), None, Some(1)]);
        assert_eq!(snapshots.take(name(1)), Some(0));
        assert_eq!(snapshots.make(name(4)), Some(1));
        snapshots.withdraw(name(1));
        snapshots.withdraw(name(1));
        assert_eq!((snapshots.find(name(1)), snapshots.make(name(5))), (None, Some(0)));
        assert_eq!(snapshots.find(name(4)), Some(1));
    }

    #[test]
    fn without_room_none_is_made() {
        assert_eq!(Snapshots::new(0).make(name(1)), None);
    }
}
