//! How many slots of each layer each rank gets: equal shares, less where memory is short.

use super::{Rank, Unplaceable};

/// `[layer][rank]`: slots. Each rank gets the same number over all layers as far as its memory goes, spread evenly
/// over the layers; each layer has a slot for every expert at least and for `redundant` copies at most, fewer if memory
/// is short. No rank gets more slots of a layer than there are experts.
pub(super) fn shares(
    ranks: &[Rank],
    layers: usize,
    experts: usize,
    redundant: usize,
) -> Result<Vec<Vec<usize>>, Unplaceable> {
    let room: Vec<usize> = ranks.iter().map(|rank| rank.slots.min(layers * experts)).collect();
    let free: usize = room.iter().sum();
    if free < layers * experts {
        return Err(Unplaceable::TooFewSlots {
            layers,
            experts,
            needed: layers * experts,
            free,
            ranks: ranks.len(),
        });
    }
    let wanted = experts.saturating_add(redundant).min(experts * ranks.len());
    let totals = levelled(&room, free.min(layers * wanted));

    // What does not divide goes to the layers that have least so far: layers differ by one slot at most.
    let mut shares = vec![vec![0; ranks.len()]; layers];
    let mut given = vec![0; layers];
    for (rank, total) in totals.into_iter().enumerate() {
        let mut order: Vec<usize> = (0..layers).collect();
        order.sort_by_key(|&layer| given[layer]);
        for (place, layer) in order.into_iter().enumerate() {
            let share = total / layers + usize::from(place < total % layers);
            shares[layer][rank] = share;
            given[layer] += share;
        }
    }
    Ok(shares)
}

/// Distributes `total`, at most the sum of all `room`, as evenly as `room` allows; the first get what does not divide.
fn levelled(room: &[usize], total: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..room.len()).collect();
    // The smallest first: what it cannot take is for the others.
    order.sort_by_key(|&at| (room[at], std::cmp::Reverse(at)));
    let (mut given, mut left) = (vec![0; room.len()], total);
    for (place, &at) in order.iter().enumerate() {
        given[at] = room[at].min(left / (room.len() - place));
        left -= given[at];
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(slots: &[usize]) -> Vec<Rank> {
        slots.iter().map(|&slots| Rank { node: 0, slots }).collect()
    }

    #[test]
    fn ranks_with_memory_get_equal_shares() {
        let shares = shares(&ranks(&[usize::MAX; 4]), 3, 8, 4).unwrap();
        assert_eq!(shares, vec![vec![3; 4]; 3]);
    }

    #[test]
    fn what_does_not_divide_differs_by_one_over_layers_and_over_ranks() {
        let shares = shares(&ranks(&[usize::MAX; 3]), 2, 7, 1).unwrap();
        assert!(shares.iter().all(|layer| layer.iter().sum::<usize>() == 8), "{shares:?}");
        let of_rank = |rank: usize| shares.iter().map(|layer| layer[rank]).sum::<usize>();
        assert_eq!([of_rank(0), of_rank(1), of_rank(2)], [6, 5, 5]);
    }

    #[test]
    fn a_rank_without_memory_leaves_its_share_to_others() {
        assert_eq!(shares(&ranks(&[0, 2, 9]), 1, 8, 1).unwrap(), [[0, 2, 7]]);
        // Room for all experts, and for one of the two copies.
        assert_eq!(shares(&ranks(&[0, 2, 7]), 1, 8, 2).unwrap(), [[0, 2, 7]]);
        // Five slots over two layers of two experts: both are whole.
        let shares = shares(&ranks(&[3, 2]), 2, 2, 1).unwrap();
        let sums: Vec<usize> = shares.iter().map(|layer| layer.iter().sum()).collect();
        assert_eq!(sums, [3, 2]);
    }

    #[test]
    fn nobody_gets_more_slots_than_there_are_experts() {
        assert_eq!(shares(&ranks(&[99, 99]), 1, 4, 99).unwrap(), [[4, 4]]);
        assert_eq!(shares(&ranks(&[9]), 1, 4, usize::MAX).unwrap(), [[4]]);
    }

    #[test]
    fn too_little_memory_is_told() {
        let refused = shares(&ranks(&[3, 4]), 2, 4, 0).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "2 layers of 4 experts need 8 slots, and the 2 ranks have memory for 7; add ranks, give them more memory, \
             or choose a quantization with smaller experts"
        );
    }
}
