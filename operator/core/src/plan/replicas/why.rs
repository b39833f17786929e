//! A decision in words, with the numbers that it was made from.

use super::demand::Signals;
use super::fleet::Fleet;
use super::need::{Need, unmeasured_target};
use crate::validate::Scaling;
use jiff::SignedDuration;

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The first one of a new ModelDeployment, which nobody has asked yet.
    First,
    /// There is none, and somebody asks.
    Wake,
    /// There is none, and nobody asks.
    Asleep,
    /// More are needed.
    Grow,
    /// Nobody has asked for long.
    Idle,
    /// A router or a rank does not answer.
    Blind,
    /// As many as are needed.
    Enough,
    /// Fewer were enough for the whole quiet window.
    Shrink,
    /// Fewer may be enough, which was not watched for long enough.
    NotYet,
    /// Fewer were enough, but more waits than may wait for fewer.
    Queued,
}

/// A bound that keeps the wish from coming true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// minReplicas.
    Least(usize),
    /// maxReplicas.
    Most(usize),
}

const FIRST: &str = "the first replica of a new ModelDeployment, which shows whether the model can be served and how \
                     long it takes to come";

/// One sentence.
pub(super) fn sentence(
    reason: Reason,
    bound: Option<Bound>,
    need: &Need,
    signals: &Signals,
    fleet: &Fleet,
    policy: &Scaling,
    window: SignedDuration,
) -> String {
    let queue = requests(signals.queue_depth());
    let mut text = match reason {
        Reason::First => FIRST.to_owned(),
        Reason::Wake if need.replicas() <= 1 => format!("{queue} and there is no replica"),
        Reason::Wake if signals.measured.is_none() => {
            format!("{queue} and there is no replica; {}", unmeasured(policy))
        }
        Reason::Wake => {
            let (demand, backlog) = (demand(need), backlog(need, signals, fleet));
            format!("{queue} and there is no replica; {demand}{backlog}{}", few(need))
        }
        Reason::Asleep => "nobody asks".to_owned(),
        Reason::Grow | Reason::Enough if signals.measured.is_none() => match need.replicas() {
            0 => format!("{queue}, and no rank was measured yet"),
            _ => format!("{queue}; {}", unmeasured(policy)),
        },
        Reason::Grow | Reason::Enough => {
            format!("{}{}{}", demand(need), backlog(need, signals, fleet), few(need))
        }
        Reason::Idle => format!("no request for {} s", policy.idle.as_secs()),
        Reason::Blind => "a router or a rank does not answer, so nothing is taken away".to_owned(),
        Reason::Shrink => {
            format!("the last {} s would have done with fewer; {}", window.as_secs(), demand(need))
        }
        Reason::NotYet => {
            format!("fewer may do ({}), which was not watched for {} s yet", demand(need), window.as_secs())
        }
        Reason::Queued => format!("{queue}: more than may wait for fewer replicas, so none is taken away"),
    };
    match bound {
        Some(Bound::Most(most)) => text += &format!("; maxReplicas is {most}"),
        Some(Bound::Least(least)) => text += &format!("; minReplicas is {least}"),
        None => {}
    }
    text
}

/// How many come while there are no rates.
fn unmeasured(policy: &Scaling) -> String {
    format!("no rank was measured yet, so it is a replica for each {} that wait", unmeasured_target(policy))
}

/// Whether there are fewer requests than replicas that their work would take.
fn few(need: &Need) -> String {
    if need.steady + need.backlog <= need.requests.ceil() {
        return String::new();
    }
    "; no more replicas than requests, which are too few for that".to_owned()
}

/// What comes, and what it takes.
fn demand(need: &Need) -> String {
    format!(
        "{:.2} s of work come each second, a replica does {:.2}, and with room for growth and bursts that takes {:.1}",
        need.work, need.capacity, need.steady
    )
}

fn backlog(need: &Need, signals: &Signals, fleet: &Fleet) -> String {
    if need.backlog <= 0.0 {
        return String::new();
    }
    format!(
        "; {}, of which {:.1} s of work are left in {:.0} s when another replica can be ready ({} on the way), \
         which takes {:.1} more",
        requests(signals.queue_depth()),
        need.left,
        need.start,
        fleet.starting.len(),
        need.backlog
    )
}

fn requests(count: u64) -> String {
    if count == 1 { "1 request waits".to_owned() } else { format!("{count} requests wait") }
}
