//! When the certificates of the exchange are made and changed.
//!
//! All ranks of a ModelDeployment prove themselves with one certificate, signed by an authority that signs nothing else:
//! its key is thrown away at once, so there is none to keep. To change both without a moment in which two ranks do not
//! trust each other, the next authority is announced at half of the certificate's life: from then on ranks trust both. At
//! two thirds the next certificate takes the place of the first.

use super::{Action, Steps};
use crate::objects::exchange_tls_name;
use crate::observed::{Observed, ObservedCertificates, ObservedPod, Validity};
use crate::validate::Deployment;
use jiff::{SignedDuration, Timestamp};

/// What somebody else has is looked at again this often.
const LOOK_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// Secrets are not watched: after a change, and before the first look, the next look is asked for.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// Secrets are not watched: where ranks are in trouble, certificates may be the cause.
const IN_DOUBT: SignedDuration = SignedDuration::from_secs(60);

/// Makes or changes the certificates of a ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChange {
    /// Name of the Secret.
    pub name: String,
    /// What to do.
    pub step: CertificateStep,
}

/// What to do about the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateStep {
    /// There are none: make them.
    Make(Validity),
    /// They ended or are of no use, so nobody trusts them any more: make others in their place.
    MakeAnew(Validity),
    /// Make the next ones, and let ranks trust them beside the present ones.
    Announce(Validity),
    /// The next ones take the place of the present ones, which stay trusted.
    Switch(Validity),
}

/// Plans for a ModelDeployment with several ranks. Whether the name is somebody else's.
pub(super) fn plan(deployment: &Deployment, observed: &Observed, now: Timestamp, steps: &mut Steps) -> bool {
    let life = observed.settings.certificate_life;
    let fresh = Validity { from: now, to: now.saturating_add(life).unwrap_or(now) };
    let step = match &observed.certificates {
        ObservedCertificates::NotLooked => {
            steps.look_again(SOON);
            None
        }
        ObservedCertificates::Foreign => {
            steps.look_again(LOOK_INTERVAL);
            return true;
        }
        ObservedCertificates::Missing => Some(CertificateStep::Make(fresh)),
        ObservedCertificates::Unusable(_) => Some(CertificateStep::MakeAnew(fresh)),
        ObservedCertificates::Ours { valid, next } => {
            let (step, at) = due(*valid, *next, fresh, life);
            if at > now {
                steps.look_again(at.duration_since(now));
                if are_in_doubt(observed) {
                    steps.look_again(IN_DOUBT);
                }
                None
            } else {
                Some(step)
            }
        }
    };
    if let Some(step) = step {
        steps.look_again(SOON);
        let name = exchange_tls_name(&deployment.name);
        steps.push(Action::ChangeCertificates(CertificateChange { name, step }));
    }
    false
}

/// Whether a rank tells of trouble, or ended and is not ready again.
fn are_in_doubt(observed: &Observed) -> bool {
    let ended = |pod: &ObservedPod| !pod.ready && pod.terminating.is_none() && pod.last_termination.is_some();
    observed.reports.values().any(|report| report.trouble.is_some()) || observed.pods.iter().any(ended)
}

/// The next step and when it is due.
fn due(
    valid: Option<Validity>,
    next: Option<Validity>,
    fresh: Validity,
    life: SignedDuration,
) -> (CertificateStep, Timestamp) {
    let now = fresh.from;
    let later = |time: Timestamp, by: SignedDuration| time.saturating_add(by).unwrap_or(time);
    match (valid, next) {
        (Some(valid), _) if valid.to <= now => (CertificateStep::MakeAnew(fresh), now),
        // Times that nobody can read are as good as over, but what they speak of may still be in use.
        (None, None) => (CertificateStep::Announce(fresh), now),
        (Some(valid), None) => (CertificateStep::Announce(fresh), later(valid.from, life / 2)),
        (_, Some(next)) if next.to <= now => (CertificateStep::Announce(fresh), now),
        (None, Some(next)) => (CertificateStep::Switch(next), later(next.from, life / 6)),
        (Some(valid), Some(next)) => {
            let at = later(valid.from, life * 2 / 3).max(later(next.from, life / 6));
            (CertificateStep::Switch(next), at.min(valid.to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn at(days: i32) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + DAY * days
    }

    fn days(from: i32, to: i32) -> Option<Validity> {
        Some(Validity { from: at(from), to: at(to) })
    }

    /// What is due on `now`, with a life of 30 days; else in how many days.
    fn on(now: i32, valid: Option<Validity>, next: Option<Validity>) -> Result<&'static str, i64> {
        let fresh = Validity { from: at(now), to: at(now + 30) };
        let (step, time) = due(valid, next, fresh, DAY * 30);
        if time > at(now) {
            return Err(time.duration_since(at(now)).as_hours() / 24);
        }
        Ok(match step {
            CertificateStep::Make(_) => "make",
            CertificateStep::MakeAnew(_) => "make anew",
            CertificateStep::Announce(_) => "announce",
            CertificateStep::Switch(_) => "switch",
        })
    }

    #[test]
    fn the_next_is_announced_at_half_of_the_life_and_takes_over_at_two_thirds() {
        assert_eq!(on(0, days(0, 30), None), Err(15));
        assert_eq!(on(15, days(0, 30), None), Ok("announce"));
        assert_eq!(on(15, days(0, 30), days(15, 45)), Err(5));
        assert_eq!(on(20, days(0, 30), days(15, 45)), Ok("switch"));
        assert_eq!(on(20, days(15, 45), None), Err(10));
    }

    #[test]
    fn an_operator_that_was_away_still_lets_ranks_trust_the_next_before_it_is_used() {
        assert_eq!(on(23, days(0, 30), None), Ok("announce"));
        assert_eq!(on(23, days(0, 30), days(23, 53)), Err(5));
        assert_eq!(on(28, days(0, 30), days(23, 53)), Ok("switch"));
        // Only when too little is left it has to be sooner, and after the end there is nothing left to keep.
        assert_eq!(on(28, days(0, 30), days(28, 58)), Err(2));
        assert_eq!(on(30, days(0, 30), None), Ok("make anew"));
        assert_eq!(on(70, days(0, 30), days(15, 45)), Ok("make anew"));
    }

    #[test]
    fn times_that_cannot_be_read_lead_to_a_change_with_overlap() {
        assert_eq!(on(0, None, None), Ok("announce"));
        assert_eq!(on(0, None, days(0, 30)), Err(5));
        assert_eq!(on(5, None, days(0, 30)), Ok("switch"));
        assert_eq!(on(31, None, days(0, 30)), Ok("announce"));
    }
}
