//! The part of a spec that says how many replicas there are by demand.

use super::{Invalid, QUEUE_TARGET_LIMIT, REPLICAS_LIMIT, SLO_MILLISECONDS_LIMIT, WAIT_SECONDS_LIMIT};
use coterie_api::deployment::ScalingSpec;
use coterie_api::deployment::scaling::QueueTarget;
use jiff::SignedDuration;

/// How many replicas there are by demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// Fewest replicas; with 0, none while nobody asks.
    pub least: usize,
    /// Most replicas; at least 1 and `least`.
    pub most: usize,
    /// Requests that may wait for each replica; `None`: as many as get their first token in time.
    pub queue_target: Option<u32>,
    /// Time to first token that is aimed at; positive.
    pub ttft: SignedDuration,
    /// Time from one token to the next that is aimed at; positive.
    pub itl: SignedDuration,
    /// Time without a request after which no replica is left, if `least` is 0.
    pub idle: SignedDuration,
    /// Replicas go only when all this time would have done without them; `None`: a few times what one takes to come.
    pub quiet: Option<SignedDuration>,
}

/// Checks every rule; `replicas` is what stands beside it.
pub(super) fn scaling(spec: &ScalingSpec, replicas: i32) -> Result<Scaling, Invalid> {
    // The API server fills in 1 for everybody.
    if replicas != 1 {
        return Err(Invalid::ReplicasBesideScaling(replicas));
    }
    let within = |field, value: i64, least: i64, most: i64| match value {
        value if (least..=most).contains(&value) => Ok(value),
        value => Err(Invalid::ScalingRange { field, value, least, most }),
    };
    let most_wait = i64::from(WAIT_SECONDS_LIMIT);
    let slo = i64::from(SLO_MILLISECONDS_LIMIT);
    let least = within("minReplicas", spec.min_replicas.into(), 0, REPLICAS_LIMIT.into())?;
    let most = within("maxReplicas", spec.max_replicas.into(), 1, REPLICAS_LIMIT.into())?;
    if least > most {
        return Err(Invalid::ScalingBounds { least: spec.min_replicas, most: spec.max_replicas });
    }
    let queue_target = match spec.queue_depth.target {
        QueueTarget::Auto => None,
        QueueTarget::Requests(count) => {
            within("queueDepth.target", count.into(), 1, QUEUE_TARGET_LIMIT.into())?;
            Some(count)
        }
    };
    let ttft = within("slo.ttftMilliseconds", spec.slo.ttft_milliseconds.into(), 1, slo)?;
    let itl = within("slo.itlMilliseconds", spec.slo.itl_milliseconds.into(), 1, slo)?;
    let idle = within("idleSeconds", spec.idle_seconds.into(), 1, most_wait)?;
    let quiet =
        spec.quiet_seconds.map(|quiet| within("quietSeconds", quiet.into(), 0, most_wait)).transpose()?;
    Ok(Scaling {
        least: least as usize,
        most: most as usize,
        queue_target,
        ttft: SignedDuration::from_millis(ttft),
        itl: SignedDuration::from_millis(itl),
        idle: SignedDuration::from_secs(idle),
        quiet: quiet.map(SignedDuration::from_secs),
    })
}
