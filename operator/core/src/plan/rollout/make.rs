//! Making ranks: whole replicas under free numbers, and what a live replica lacks in its place.

use super::{OVERDUE, STARTING_AT_ONCE, Target};
use crate::objects::{RankPod, Share, experts_launch, rank_pod, rank_pod_name};
use crate::observed::Observed;
use crate::plan::replica::Replica;
use crate::plan::{Steps, experts};
use crate::validate::Deployment;
use coterie_api::launch::RankLaunch;
use jiff::Timestamp;

/// What ranks are made from, and how many start already.
pub(super) struct Maker<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) target: Option<&'a Target>,
    pub(super) image: &'a str,
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
    /// Ranks of the current revision that are not ready.
    pub(super) starting: usize,
}

impl<'a> Maker<'a> {
    /// Numbers of which no pod is left and whose names nobody has; a pod that is still ending has its name.
    pub(super) fn free_numbers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (deployment, observed, target) = (self.deployment, self.observed, self.target);
        let is_free = move |replica: &u32| {
            let is_taken = |pod: String| {
                observed.taken_names.contains(&pod) || observed.pods.iter().any(|there| there.name == pod)
            };
            !observed.pods.iter().any(|pod| pod.replica == Some(*replica))
                && !experts::name_is_taken(deployment, *replica, observed)
                && !ranks(target).any(|rank| is_taken(rank_pod_name(&deployment.name, *replica, rank)))
        };
        (0..).filter(is_free)
    }

    /// Makes all ranks of a replica, unless too many start already. One of several ranks first waits for the files
    /// that they share.
    pub(super) fn begin(&mut self, number: u32, steps: &mut Steps) -> bool {
        let Some(target) = self.target else { return false };
        let width = target.ranks as usize;
        if !self.may_start(width) {
            return false;
        }
        self.starting += width;
        for rank in ranks(Some(target)) {
            self.make(number, rank, true, steps);
        }
        true
    }

    /// Makes what a live replica lacks, as far as the names are free; gives how many.
    pub(super) fn fill(&mut self, replica: &Replica, steps: &mut Steps) -> usize {
        let (Some(target), Some(number)) = (self.target, replica.number) else { return 0 };
        let mut made = 0;
        for rank in replica.missing(target.ranks) {
            let name = rank_pod_name(&self.deployment.name, number, Some(rank));
            match self.observed.pods.iter().find(|pod| pod.name == name) {
                None if self.may_start(1) => {
                    self.starting += 1;
                    made += usize::from(self.make(number, Some(rank), false, steps));
                }
                None => {}
                // Its name is its address, so it cannot be made under another one; and a node that does not answer
                // must not keep it for ever.
                Some(pod) => {
                    if let Some(end) = pod.terminating {
                        let overdue = end.saturating_add(OVERDUE).unwrap_or(end);
                        if overdue > self.now {
                            steps.look_again(overdue.duration_since(self.now));
                        } else {
                            steps.delete_within(
                                pod,
                                0,
                                "its node does not let it end, and its name is needed",
                            );
                        }
                    }
                }
            }
        }
        made
    }

    fn may_start(&self, count: usize) -> bool {
        self.starting == 0 || self.starting + count <= STARTING_AT_ONCE
    }

    /// Whether it was made: what the files of a rank of several say has to be known.
    fn make(&self, replica: u32, rank: Option<u32>, begins: bool, steps: &mut Steps) -> bool {
        let Some(target) = self.target else { return false };
        let told = rank.and_then(|_| experts::told(target, replica, begins, self.observed));
        let share = match (rank, &told) {
            (None, _) => None,
            (Some(rank), Some(told)) => Some(Share { rank, told }),
            (Some(_), None) => return false,
        };
        let activations = self.deployment.experts.activations;
        let launch = RankLaunch {
            experts: share.map(|share| experts_launch(share.rank, activations, target.adopt_limit)),
            ..target.launch.clone()
        };
        steps.create(rank_pod(&RankPod {
            deployment: self.deployment,
            replica,
            share,
            revision: &target.revision,
            image: self.image,
            settings: &self.observed.settings,
            launch: &launch,
            demand: target.demand,
        }));
        true
    }
}

/// The only rank has no number.
fn ranks(target: Option<&Target>) -> impl Iterator<Item = Option<u32>> + use<> {
    let width = target.map_or(1, |target| target.ranks);
    (0..width).map(move |rank| (width > 1).then_some(rank))
}
