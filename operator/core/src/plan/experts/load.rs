//! How evenly the load on experts lies on ranks.

use coterie_api::expert_map::ExpertMap;

/// Tokens of the busiest rank over the mean of all, with two digits; `None` if there were none. A step waits for the
/// busiest rank of each layer, so these are summed; an expert's tokens are shared by its holders.
pub(super) fn balance(map: &ExpertMap, tokens: &[Vec<u64>]) -> Option<String> {
    let (mut busiest, mut sum) = (0.0, 0.0);
    for (layer, tokens) in tokens.iter().enumerate().take(map.layers()) {
        let mut ranks = vec![0.0_f64; map.ranks()];
        for (expert, &tokens) in tokens.iter().enumerate().take(map.experts()) {
            let holders: Vec<usize> = map.holders(layer, expert).collect();
            for rank in &holders {
                ranks[*rank] += tokens as f64 / holders.len() as f64;
            }
        }
        busiest += ranks.iter().copied().fold(0.0, f64::max);
        sum += ranks.iter().sum::<f64>();
    }
    (sum > 0.0).then(|| format!("{:.2}", busiest * map.ranks() as f64 / sum))
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
