//! DeepSeek's Expert Parallelism Load Balancer (EPLB), number for number: what others place by. Our search starts from
//! it, and tests and benches compare with it.
//!
//! Source: github.com/deepseek-ai/EPLB, `eplb.py`. Ties go to the lowest index, sorting is stable and descending,
//! numbers are float32. Sums over a group are added in order; beyond 2^24 tokens the original may round them otherwise.
//! It may put two copies of one expert on one rank.

/// The expert of every slot of one layer, rank by rank; all ranks have the same number of slots. `None` where the
/// original has no answer because something does not divide, or there are fewer slots than experts.
///
/// `groups` are the gate's groups of experts. Where they divide by the nodes the policy is hierarchical: groups are
/// given to nodes, and an expert's copies stay on its node. Otherwise it is global, and nodes do not count.
pub fn place(tokens: &[f32], slots: usize, groups: usize, nodes: usize, ranks: usize) -> Option<Vec<u16>> {
    let divides = |number: usize, by: usize| by > 0 && number.is_multiple_of(by);
    let (groups, nodes) = if divides(groups, nodes) { (groups, nodes) } else { (1, 1) };
    let experts = tokens.len();
    let possible = divides(experts, groups) && divides(ranks, nodes) && divides(slots, ranks);
    if !possible || experts == 0 || experts > slots {
        return None;
    }
    let group_size = experts / groups;
    let per_node = experts / nodes;

    // Groups to nodes: `by_node[i]` is the i-th expert when experts are counted node by node.
    let of_groups: Vec<f32> = tokens.chunks(group_size).map(|group| group.iter().sum()).collect();
    let mut by_node = vec![0; experts];
    for (group, (node, at)) in packed(&of_groups, nodes).into_iter().enumerate() {
        let start = (node * (groups / nodes) + at) * group_size;
        for within in 0..group_size {
            by_node[start + within] = group * group_size + within;
        }
    }

    let mut placed = Vec::with_capacity(slots);
    for of_node in by_node.chunks(per_node) {
        // Copies within the node, then the node's slots to its ranks.
        let tokens: Vec<f32> = of_node.iter().map(|&expert| tokens[expert]).collect();
        let (copied, copies) = replicated(&tokens, slots / nodes);
        let of_slots: Vec<f32> = copied.iter().map(|&e| tokens[e] / copies[e] as f32).collect();
        let mut here = vec![0; copied.len()];
        for (slot, (rank, at)) in packed(&of_slots, ranks / nodes).into_iter().enumerate() {
            here[rank * (slots / ranks) + at] = of_node[copied[slot]] as u16;
        }
        placed.extend(here);
    }
    Some(placed)
}

/// The expert of each of `slots` slots, and the copies of each expert: each further slot goes to the expert that has
/// most tokens a copy.
fn replicated(tokens: &[f32], slots: usize) -> (Vec<usize>, Vec<u32>) {
    let mut copied: Vec<usize> = (0..tokens.len()).collect();
    let mut copies = vec![1_u32; tokens.len()];
    while copied.len() < slots {
        let mut most = 0;
        for expert in 1..tokens.len() {
            if tokens[expert] / copies[expert] as f32 > tokens[most] / copies[most] as f32 {
                most = expert;
            }
        }
        copied.push(most);
        copies[most] += 1;
    }
    (copied, copies)
}

/// For each item its pack and its place in it: the heaviest first, each to the lightest pack that is not full. All
/// packs get the same number.
fn packed(weights: &[f32], packs: usize) -> Vec<(usize, usize)> {
    let room = weights.len() / packs;
    if room == 1 {
        return (0..weights.len()).map(|item| (item, 0)).collect();
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let (mut weight, mut items) = (vec![0.0_f32; packs], vec![0; packs]);
    let mut places = vec![(0, 0); weights.len()];
    for item in order {
        let mut lightest = None;
        for pack in (0..packs).filter(|&pack| items[pack] < room) {
            if lightest.is_none_or(|lightest: usize| weight[pack] < weight[lightest]) {
                lightest = Some(pack);
            }
        }
        // There is a pack that is not full for as long as there are items.
        let Some(pack) = lightest else { break };
        places[item] = (pack, items[pack]);
        weight[pack] += weights[item];
        items[pack] += 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: [[f32; 12]; 2] = [
        [90., 132., 40., 61., 104., 165., 39., 4., 73., 56., 183., 86.],
        [20., 107., 104., 64., 19., 197., 187., 157., 172., 86., 16., 27.],
    ];

    fn of_layers(groups: usize) -> Vec<Vec<u16>> {
        LAYERS.iter().map(|tokens| place(tokens, 16, groups, 2, 8).unwrap()).collect()
    }

    /// Load of the busiest rank over the mean.
    fn balance(tokens: &[f32], placed: &[u16], ranks: usize) -> f32 {
        let copies = |e: u16| placed.iter().filter(|&&other| other == e).count() as f32;
        let load = |held: &[u16]| held.iter().map(|&e| tokens[usize::from(e)] / copies(e)).sum();
        let busiest = placed.chunks(placed.len() / ranks).map(load).fold(0.0, f32::max);
        busiest / (tokens.iter().sum::<f32>() / ranks as f32)
    }

    #[test]
    fn the_published_vector_with_the_hierarchical_policy() {
        let placed = of_layers(4);
        assert_eq!(
            placed,
            [
                [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
                [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]
            ]
        );
        let balances = [0, 1].map(|layer| balance(&LAYERS[layer], &placed[layer], 8));
        assert_eq!(balances.map(|balance| format!("{balance:.3}")), ["1.208", "1.242"]);
    }

    #[test]
    fn the_published_vector_with_the_global_policy() {
        let placed = of_layers(3);
        assert_eq!(
            placed,
            [
                [10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1],
                [1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7]
            ]
        );
        let balances = [0, 1].map(|layer| balance(&LAYERS[layer], &placed[layer], 8));
        assert_eq!(balances.map(|balance| format!("{balance:.3}")), ["1.073", "1.190"]);
    }

    #[test]
    fn two_copies_may_share_a_rank() {
        // Slots 8 to 15 of the vector above end with expert 1 twice on rank 7; here all of it is on two ranks.
        assert_eq!(place(&[90., 20., 10., 0.], 6, 1, 1, 2), Some(vec![0, 0, 3, 0, 1, 2]));
    }

    #[test]
    fn there_is_no_answer_where_something_does_not_divide() {
        assert_eq!(place(&[1.0; 6], 7, 1, 1, 2), None);
        assert_eq!(place(&[1.0; 6], 4, 1, 1, 2), None);
        assert_eq!(place(&[1.0; 6], 8, 4, 2, 2), None);
        assert_eq!(place(&[1.0; 6], 9, 2, 2, 3), None);
        assert_eq!(place(&[], 0, 1, 1, 1), None);
        assert_eq!(place(&[1.0], 1, 1, 0, 0), None);
        // Equal tokens and nothing to copy: one slot a rank keeps the order.
        assert_eq!(place(&[1.0; 4], 4, 1, 1, 4), Some(vec![0, 1, 2, 3]));
    }
}
