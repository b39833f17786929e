//! The expert map: where the experts of one replica are. The operator writes it, ranks serve by it.
//!
//! An *expert* is one of the model's (a logical expert); a *slot* is a place on a rank that holds one (a physical
//! expert). An expert that sits in several slots is replicated.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use thiserror::Error;

/// Largest numbers that a map may speak of: more than any model or cluster has, small enough that a hostile file
/// costs nothing.
pub const EXPERTS_LIMIT: usize = 4096;
/// Most ranks of one replica.
pub const RANKS_LIMIT: usize = 1024;
/// Most layers with experts.
pub const LAYERS_LIMIT: usize = 1024;
/// Highest version: every number up to it is exact in JSON, and one that counts changes never comes near it. No map can
/// follow one of this version.
pub const VERSION_LIMIT: u64 = 1 << 53;

/// For every layer with experts and every rank, the experts that the rank holds. Total: each expert of each layer is
/// on at least one rank, and on no rank twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ExpertMap {
    version: u64,
    experts: usize,
    ranks: usize,
    /// `[layer][rank]`: sorted experts.
    layers: Vec<Vec<Vec<u16>>>,
}

/// Why something is no expert map.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoMap {
    /// A version that no count of changes reaches, and that hardly any could follow.
    #[error("the expert map has version {version}; at most {VERSION_LIMIT} is allowed")]
    Version {
        /// Of the map.
        version: u64,
    },
    /// A number beyond what is allowed, or zero where something must be.
    #[error("the expert map has {count} {what}; 1 to {limit} are allowed")]
    Count {
        /// Layers, ranks or experts.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// A layer with another number of ranks than the first.
    #[error("layer {layer} of the expert map has {found} ranks, the first has {expected}")]
    Ragged {
        /// Number of the layer.
        layer: usize,
        /// Its ranks.
        found: usize,
        /// Those of the first layer.
        expected: usize,
    },
    /// An expert that the model does not have.
    #[error("the expert map puts expert {expert} on rank {rank} in layer {layer}; there are {experts}")]
    Unknown {
        /// Number of the layer.
        layer: usize,
        /// Number of the rank.
        rank: usize,
        /// Number of the expert.
        expert: u16,
        /// Experts of a layer.
        experts: usize,
    },
    /// An expert twice on one rank.
    #[error("the expert map puts expert {expert} on rank {rank} twice in layer {layer}")]
    Twice {
        /// Number of the layer.
        layer: usize,
        /// Number of the rank.
        rank: usize,
        /// Number of the expert.
        expert: u16,
    },
    /// An expert that no rank holds.
    #[error("the expert map leaves expert {expert} of layer {layer} without a rank")]
    Lost {
        /// Number of the layer.
        layer: usize,
        /// Number of the expert.
        expert: usize,
    },
}

impl ExpertMap {
    /// A map of `experts` experts a layer; `layers[l][r]` lists, in any order, what rank r holds of layer l.
    pub fn new(version: u64, experts: usize, mut layers: Vec<Vec<Vec<u16>>>) -> Result<ExpertMap, NoMap> {
        let ranks = layers.first().map_or(0, Vec::len);
        check_version(version)?;
        check_counts(layers.len(), experts, ranks)?;
        for (layer, held) in layers.iter_mut().enumerate() {
            if held.len() != ranks {
                return Err(NoMap::Ragged { layer, found: held.len(), expected: ranks });
            }
            let mut somewhere = vec![false; experts];
            for (rank, held) in held.iter_mut().enumerate() {
                held.sort_unstable();
                for (at, &expert) in held.iter().enumerate() {
                    if at > 0 && held[at - 1] == expert {
                        return Err(NoMap::Twice { layer, rank, expert });
                    }
                    match somewhere.get_mut(usize::from(expert)) {
                        Some(somewhere) => *somewhere = true,
                        None => return Err(NoMap::Unknown { layer, rank, expert, experts }),
                    }
                }
            }
            if let Some(expert) = somewhere.iter().position(|somewhere| !somewhere) {
                return Err(NoMap::Lost { layer, expert });
            }
        }
        Ok(ExpertMap { version, experts, ranks, layers })
    }

    /// Expert e on rank `e · ranks / experts` in every layer: neighbours together, each once.
    pub fn even(version: u64, layers: usize, experts: usize, ranks: usize) -> Result<ExpertMap, NoMap> {
        check_counts(layers, experts, ranks)?;
        let mut layer = vec![Vec::new(); ranks];
        for expert in 0..experts {
            layer[expert * ranks / experts].push(expert as u16);
        }
        ExpertMap::new(version, experts, vec![layer; layers])
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Experts of a layer.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Ranks of the replica.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Layers with experts.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The experts of `layer` that `rank` holds, in order; none of a rank that the map does not know.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn held(&self, layer: usize, rank: usize) -> &[u16] {
        self.layers[layer].get(rank).map_or(&[], Vec::as_slice)
    }

    /// Whether `rank` holds that expert.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn holds(&self, layer: usize, rank: usize, expert: usize) -> bool {
        u16::try_from(expert).is_ok_and(|expert| self.held(layer, rank).binary_search(&expert).is_ok())
    }

    /// The ranks that hold an expert, in order.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn holders(&self, layer: usize, expert: usize) -> impl Iterator<Item = usize> {
        (0..self.ranks).filter(move |&rank| self.holds(layer, rank, expert))
    }

    /// What rank `rank` holds in all: slots.
    pub fn slots_of(&self, rank: usize) -> usize {
        (0..self.layers()).map(|layer| self.held(layer, rank).len()).sum()
    }

    /// Slots that hold something else, or nothing, in `before`: what has to be loaded to come from there to here.
    pub fn loads_from(&self, before: &ExpertMap) -> usize {
        let mut loads = 0;
        for layer in 0..self.layers() {
            for rank in 0..self.ranks {
                let there = |expert: u16| layer < before.layers() && before.holds(layer, rank, expert.into());
                loads += self.held(layer, rank).iter().filter(|expert| !there(**expert)).count();
            }
        }
        loads
    }

    /// Slots beyond one for every expert, all layers together.
    pub fn copies(&self) -> usize {
        let slots: usize = (0..self.ranks).map(|rank| self.slots_of(rank)).sum();
        slots - self.layers() * self.experts
    }

    /// The same places under another version.
    pub fn with_version(self, version: u64) -> Result<ExpertMap, NoMap> {
        check_version(version)?;
        Ok(ExpertMap { version, ..self })
    }

    /// Whether a map of a higher version can take its place.
    pub fn can_be_followed(&self) -> bool {
        self.version < VERSION_LIMIT
    }

    /// For people: a line a layer, a column a rank.
    ///
    /// ```text
    /// version 3: 8 experts a layer on 2 ranks
    /// layer  rank 0     rank 1
    ///     0  0 1 2 3    4 5 6 7
    ///     1  0 2 4 6 7  1 3 5 7
    /// ```
    pub fn table(&self) -> String {
        let cell = |layer: usize, rank: usize| {
            let held: Vec<String> = self.held(layer, rank).iter().map(u16::to_string).collect();
            if held.is_empty() { "-".to_owned() } else { held.join(" ") }
        };
        let title = |rank| format!("rank {rank}");
        let width = |rank| {
            let cells = (0..self.layers()).map(|layer| cell(layer, rank).len());
            cells.chain([title(rank).len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.ranks).map(width).collect();
        let mut text =
            format!("version {}: {} experts a layer on {} ranks\n", self.version, self.experts, self.ranks);
        let mut line = |first: &str, cells: &dyn Fn(usize) -> String| {
            let mut line = format!("{first:>5}");
            for (rank, width) in widths.iter().enumerate() {
                // Writing to a String cannot fail.
                let _ = write!(line, "  {:width$}", cells(rank));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        };
        line("layer", &title);
        for layer in 0..self.layers() {
            line(&layer.to_string(), &|rank| cell(layer, rank));
        }
        text
    }
}

fn check_version(version: u64) -> Result<(), NoMap> {
    if version > VERSION_LIMIT { Err(NoMap::Version { version }) } else { Ok(()) }
}

/// Whether there may be so many; before anything of that size is made.
fn check_counts(layers: usize, experts: usize, ranks: usize) -> Result<(), NoMap> {
    let counts = [
        ("layers", layers, LAYERS_LIMIT),
        ("experts", experts, EXPERTS_LIMIT),
        ("ranks", ranks, RANKS_LIMIT),
    ];
    match counts.into_iter().find(|(_, count, limit)| !(1..=*limit).contains(count)) {
        Some((what, count, limit)) => Err(NoMap::Count { what, count, limit }),
        None => Ok(()),
    }
}

/// The map as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u64,
    experts: usize,
    /// `[layer][rank]`: experts.
    layers: Vec<Vec<Vec<u16>>>,
}

impl TryFrom<Written> for ExpertMap {
    type Error = NoMap;

    fn try_from(written: Written) -> Result<Self, NoMap> {
        ExpertMap::new(written.version, written.experts, written.layers)
    }
}

impl From<ExpertMap> for Written {
    fn from(map: ExpertMap) -> Self {
        Written { version: map.version, experts: map.experts, layers: map.layers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ExpertMap {
        ExpertMap::new(3, 4, vec![vec![vec![1, 0, 3], vec![2, 3]], vec![vec![0], vec![3, 2, 1]]]).unwrap()
    }

    #[test]
    fn says_who_holds_what() {
        let map = map();
        assert_eq!((map.version(), map.experts(), map.ranks(), map.layers()), (3, 4, 2, 2));
        assert_eq!(map.held(0, 0), [0, 1, 3]);
        assert_eq!(map.held(0, 7), [0_u16; 0]);
        assert!(map.holds(0, 1, 3) && !map.holds(1, 0, 3) && !map.holds(0, 0, 70_000));
        assert_eq!(map.holders(0, 3).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((map.slots_of(0), map.slots_of(1), map.copies()), (4, 5, 1));
    }

    #[test]
    fn is_written_and_read_back() {
        let text = serde_json::to_string(&map()).unwrap();
        assert_eq!(text, r#"{"version":3,"experts":4,"layers":[[[0,1,3],[2,3]],[[0],[1,2,3]]]}"#);
        assert_eq!(serde_json::from_str::<ExpertMap>(&text).unwrap(), map());
    }

    #[test]
    fn what_is_no_map_is_refused_with_its_reason() {
        let refused = |experts, layers: Vec<Vec<Vec<u16>>>| ExpertMap::new(1, experts, layers).unwrap_err();
        assert_eq!(refused(2, vec![]), NoMap::Count { what: "layers", count: 0, limit: LAYERS_LIMIT });
        assert_eq!(refused(2, vec![vec![]]), NoMap::Count { what: "ranks", count: 0, limit: RANKS_LIMIT });
        let many = EXPERTS_LIMIT + 1;
        assert!(matches!(refused(many, vec![vec![vec![0]]]), NoMap::Count { what: "experts", .. }));
        assert!(matches!(refused(0, vec![vec![vec![]]]), NoMap::Count { what: "experts", .. }));
        let ragged = vec![vec![vec![0, 1]], vec![vec![0], vec![1]]];
        assert_eq!(refused(2, ragged), NoMap::Ragged { layer: 1, found: 2, expected: 1 });
        let unknown = NoMap::Unknown { layer: 0, rank: 0, expert: 2, experts: 2 };
        assert_eq!(refused(2, vec![vec![vec![0, 1, 2]]]), unknown);
        let twice = NoMap::Twice { layer: 0, rank: 1, expert: 1 };
        assert_eq!(refused(2, vec![vec![vec![0], vec![1, 1]]]), twice);
        assert_eq!(refused(2, vec![vec![vec![0], vec![0]]]), NoMap::Lost { layer: 0, expert: 1 });
        assert!(serde_json::from_str::<ExpertMap>(r#"{"version":1,"experts":2,"layers":[[[0]]]}"#).is_err());
    }

    #[test]
    fn a_version_beyond_all_counting_is_refused() {
        let text = |version: &str| format!(r#"{{"version":{version},"experts":1,"layers":[[[0]]]}}"#);
        let read = |version: &str| serde_json::from_str::<ExpertMap>(&text(version));
        assert!(!read("9007199254740992").unwrap().can_be_followed());
        assert!(read("9007199254740991").unwrap().can_be_followed());
        for version in ["9007199254740993", "18446744073709551615"] {
            let told = read(version).unwrap_err().to_string();
            assert!(told.contains(version) && told.contains("9007199254740992 is allowed"), "{told}");
        }
        assert!(read("-1").is_err() && read("18446744073709551616").is_err());
        assert_eq!(map().with_version(u64::MAX), Err(NoMap::Version { version: u64::MAX }));
        assert_eq!(map().with_version(9).unwrap().version(), 9);
    }

    #[test]
    fn an_even_map_gives_each_rank_its_share() {
        let map = ExpertMap::even(1, 2, 8, 3).unwrap();
        assert_eq!([map.held(0, 0), map.held(0, 1), map.held(1, 2)], [&[0, 1, 2][..], &[3, 4, 5], &[6, 7]]);
        // Ranks without experts are possible: they still have attention to do.
        assert_eq!(ExpertMap::even(1, 1, 2, 4).unwrap().held(0, 3), [0_u16; 0]);
        assert!(ExpertMap::even(1, 1, 8, RANKS_LIMIT + 5).is_err());
        assert!(ExpertMap::even(1, 1, EXPERTS_LIMIT + 1, 2).is_err());
        let refused = NoMap::Count { what: "layers", count: usize::MAX, limit: LAYERS_LIMIT };
        assert_eq!(ExpertMap::even(1, usize::MAX, 8, 2), Err(refused));
        assert!(ExpertMap::even(1, 1, 0, 2).is_err() && ExpertMap::even(1, 1, 2, 0).is_err());
    }

    #[test]
    fn counts_what_has_to_be_loaded() {
        let before = ExpertMap::even(1, 1, 4, 2).unwrap();
        let after = ExpertMap::new(2, 4, vec![vec![vec![0, 1, 2], vec![2, 3], vec![0]]]).unwrap();
        assert_eq!(after.loads_from(&before), 2);
        assert_eq!(before.loads_from(&before), 0);
    }

    #[test]
    fn is_a_table_for_people() {
        assert_eq!(
            map().table(),
            "version 3: 4 experts a layer on 2 ranks\n\
             layer  rank 0  rank 1\n    0  0 1 3   2 3\n    1  0       1 2 3\n"
        );
    }
}
