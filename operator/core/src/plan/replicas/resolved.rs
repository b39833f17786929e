//! What a ModelDeployment asks for, with the number of replicas that was decided for it.

use crate::observed::Observed;
use crate::validate::Deployment;

/// The same, with its number of replicas: what the scaler decided, else what was decided last, else the fewest that may
/// be, but one to begin with.
pub fn resolved(deployment: Deployment, observed: &Observed) -> Deployment {
    let Some(scaling) = &deployment.scaling else { return deployment };
    let decided = observed.decision.as_ref().map(|decision| decision.desired);
    let kept = observed.status.scaling.as_ref().and_then(|status| usize::try_from(status.desired).ok());
    let replicas = decided.or(kept).unwrap_or(1).clamp(scaling.least, scaling.most);
    Deployment { replicas, ..deployment }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use coterie_api::deployment::ScalingSpec;
    use coterie_api::deployment::scaling::ScalingStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn what_was_decided_last_holds_until_there_is_a_decision() {
        let mut world = World::new(1);
        world.object.spec.scaling =
            Some(ScalingSpec { min_replicas: 0, max_replicas: 3, ..ScalingSpec::default() });
        let replicas = |observed: &Observed| resolved(world.deployment(), observed).replicas;
        let mut observed = world.observed();
        assert_eq!(replicas(&observed), 1, "a new one comes up once");
        for (desired, expected) in [(0, 0), (2, 2), (9, 3), (-1, 1)] {
            observed.status.scaling = Some(ScalingStatus {
                time: Time(world.now),
                queue_depth: 0,
                waiting: 0,
                running: 0,
                desired,
                why: String::new(),
                measured: None,
                decisions: Vec::new(),
            });
            assert_eq!(replicas(&observed), expected);
        }
    }
}
