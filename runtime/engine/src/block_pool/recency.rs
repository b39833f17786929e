//! A set of blocks in the order in which they came, as a list linked through an array: every change takes the same
//! few steps, and none allocates.

/// Blocks, the oldest first.
#[derive(Debug)]
pub(super) struct Recency {
    /// `[blocks + 1]`: (before, behind) of each block; the last entry is the list's two ends.
    links: Vec<(u32, u32)>,
    len: usize,
}

impl Recency {
    /// An empty list for blocks below `blocks`.
    pub fn new(blocks: usize) -> Recency {
        let ends = blocks as u32;
        Recency { links: vec![(ends, ends); blocks + 1], len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a block that is not in the list.
    pub fn push_newest(&mut self, block: u32) {
        let ends = self.ends();
        let newest = self.links[ends as usize].0;
        self.link(newest, block);
        self.link(block, ends);
        self.len += 1;
    }

    /// Takes out a block that is in the list.
    pub fn remove(&mut self, block: u32) {
        let (before, behind) = self.links[block as usize];
        self.link(before, behind);
        self.len -= 1;
    }

    pub fn pop_oldest(&mut self) -> Option<u32> {
        let oldest = self.links[self.ends() as usize].1;
        (oldest != self.ends()).then(|| {
            self.remove(oldest);
            oldest
        })
    }

    fn ends(&self) -> u32 {
        (self.links.len() - 1) as u32
    }

    fn link(&mut self, before: u32, behind: u32) {
        self.links[before as usize].1 = behind;
        self.links[behind as usize].0 = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_first_goes_first() {
        let mut order = Recency::new(4);
        assert_eq!(order.pop_oldest(), None);
        for block in [2, 0, 3, 1] {
            order.push_newest(block);
        }
        order.remove(0);
        order.remove(1);
        order.push_newest(0);
        assert_eq!(order.len(), 3);
        assert_eq!([order.pop_oldest(), order.pop_oldest(), order.pop_oldest()], [Some(2), Some(3), Some(0)]);
        assert_eq!((order.pop_oldest(), order.len()), (None, 0));
    }
}
