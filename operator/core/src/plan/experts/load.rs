//! How evenly the load on experts lies on ranks, in words.

use crate::plan::placement;
use coterie_api::expert_map::ExpertMap;

/// [`placement::balance`] with two digits.
pub(super) fn balance(map: &ExpertMap, tokens: &[Vec<u64>]) -> Option<String> {
    placement::balance(map, tokens).map(|balance| format!("{balance:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_busiest_rank_over_the_mean() {
        let map = ExpertMap::new(1, 4, vec![vec![vec![0, 1], vec![1, 2, 3]]]).unwrap();
        let of = |tokens: [u64; 4]| balance(&map, &[tokens.to_vec()]);
        assert_eq!(of([1, 0, 1, 0]).as_deref(), Some("1.00"));
        assert_eq!(of([6, 0, 1, 1]).as_deref(), Some("1.50"));
        assert_eq!(of([0, 8, 0, 0]).as_deref(), Some("1.00"), "two holders share");
        assert_eq!(of([0; 4]), None);
        let two = ExpertMap::even(1, 2, 2, 2).unwrap();
        let turns = balance(&two, &[vec![1, 0], vec![0, 1]]);
        assert_eq!(turns.as_deref(), Some("2.00"), "each layer waits for another rank");
        assert_eq!(
            balance(&map, &[vec![1; 9], vec![7; 4]]).as_deref(),
            Some("1.25"),
            "what is no expert is left out"
        );
    }
}
