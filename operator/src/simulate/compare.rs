//! Every policy over the same trace, side by side.

use super::fleet::{Setting, replay};
use super::options::Options;
use super::outcome::{Outcome, Second, Slo};
use super::scalers::Autoscaler;
use super::scalers::aibrix::Apa;
use super::scalers::coterie::Coterie;
use super::scalers::fixed::Fixed;
use super::scalers::hpa::Hpa;
use super::scalers::keda::Keda;
use super::scalers::knative::{self, Kpa};
use super::scalers::oracle::Oracle;
use super::trace::Trace;
use anyhow::Result;
use coterie_operator_core::validate::Scaling;
use serde::Serialize;
use std::sync::Mutex;

/// How a policy did.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `coterie`, `static`, `oracle`, `hpa`, `keda`, `kpa`, `apa`; with `-best`, at the best target.
    pub policy: String,
    /// Requests in flight per replica that it aims at, or replicas of a static fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// Share of the requests that were served within the SLO.
    pub slo_attainment: f64,
    /// The same for the first token alone.
    pub ttft_attainment: f64,
    /// The same for the other tokens alone.
    pub itl_attainment: f64,
    /// 99th percentile; absent if more than a hundredth was never answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_p99_seconds: Option<f64>,
    /// Requests that were not answered when the replay ended.
    pub unanswered: usize,
    /// Hours that replicas held a device.
    pub replica_hours: f64,
    /// The most replicas at once.
    pub peak_replicas: usize,
    /// That over the smallest static fleet that is good enough.
    pub overshoot: f64,
    /// Changes of the number of replicas.
    pub decisions: usize,
    /// Replicas and requests of each second, for the plot.
    #[serde(skip)]
    pub seconds: Vec<Second>,
}

/// Targets that are tried, in requests in flight per replica.
const TARGETS: [f64; 14] = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0];
/// Others have no default for requests of language models: half of the 64 that a batch usually holds.
const USUAL_TARGET: f64 = 32.0;

/// Most headroom of the oracle.
const ORACLE_TENTHS: u32 = 15;

/// Policies of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Hpa,
    Keda,
    Kpa,
    Apa,
}

impl Other {
    const ALL: [Other; 4] = [Other::Hpa, Other::Keda, Other::Kpa, Other::Apa];

    fn name(self) -> &'static str {
        match self {
            Other::Hpa => "hpa",
            Other::Keda => "keda",
            Other::Kpa => "kpa",
            Other::Apa => "apa",
        }
    }

    fn default_target(self) -> f64 {
        match self {
            Other::Kpa => knative::DEFAULT_LIMIT * knative::UTILIZATION,
            _ => USUAL_TARGET,
        }
    }

    fn scaler(self, target: f64) -> Box<dyn Autoscaler> {
        match self {
            Other::Hpa => Box::new(Hpa::new(target)),
            Other::Keda => Box::new(Keda::new(target)),
            Other::Kpa => Box::new(Kpa::new(target)),
            Other::Apa => Box::new(Apa::new(target)),
        }
    }
}

/// What is common to all runs.
struct Comparison<'a> {
    trace: &'a Trace,
    setting: Setting,
    slo: Slo,
    goal: f64,
    policy: Scaling,
}

/// Runs them all. The static fleet comes first, then ours, the oracle, and the others.
pub fn compare(trace: &Trace, options: &Options) -> Result<Vec<Row>> {
    let mut comparison = Comparison {
        trace,
        setting: options.setting()?,
        slo: options.slo()?,
        goal: options.goal()?,
        policy: options.policy()?,
    };
    let (size, outcome) = comparison.smallest_static();
    comparison.setting.start = options.start.map_or(size, |start| start as usize);
    let row = |policy: &str, target, outcome| comparison.row(policy, target, size, outcome);
    let mut rows = vec![row("static", Some(size as f64), outcome)];
    let setting = &comparison.setting;
    let mut own = Coterie::new(comparison.policy.clone(), setting.cold_start);
    rows.push(row("coterie", None, replay(trace, setting, &mut own)));
    rows.push(row("oracle", None, comparison.oracle()));
    for other in Other::ALL {
        let target = other.default_target();
        rows.push(row(other.name(), Some(target), replay(trace, setting, other.scaler(target).as_mut())));
        if !options.no_sweep {
            rows.push(comparison.best(other, size));
        }
    }
    Ok(rows)
}

impl Comparison<'_> {
    /// The smallest static fleet that is good enough, or the largest that is allowed.
    fn smallest_static(&self) -> (usize, Outcome) {
        let run = |size: usize| {
            let setting = Setting { start: size, least: size, most: size, ..self.setting };
            replay(self.trace, &setting, &mut Fixed(size))
        };
        let (mut least, mut most) = (self.setting.least.max(1), self.setting.most);
        while least < most {
            let middle = usize::midpoint(least, most);
            if run(middle).attained(self.slo) >= self.goal {
                most = middle;
            } else {
                least = middle + 1;
            }
        }
        (least, run(least))
    }

    /// The oracle with the least headroom that is good enough, or with the most.
    fn oracle(&self) -> Outcome {
        let run = |tenths: u32| {
            let headroom = 1.0 + f64::from(tenths) / 10.0;
            replay(self.trace, &self.setting, &mut Oracle::new(self.trace, &self.setting, self.slo, headroom))
        };
        let enough = (0..ORACLE_TENTHS).map(run).find(|outcome| outcome.attained(self.slo) >= self.goal);
        enough.unwrap_or_else(|| run(ORACLE_TENTHS))
    }

    /// The target that is good enough with the fewest replica hours; if none is, that which serves most.
    fn best(&self, other: Other, size: usize) -> Row {
        let next = Mutex::new(TARGETS.iter());
        let found: Mutex<Vec<Row>> = Mutex::default();
        let work = || {
            while let Some(target) = next.lock().ok().and_then(|mut targets| targets.next()) {
                let outcome = replay(self.trace, &self.setting, other.scaler(*target).as_mut());
                let row = self.row(&format!("{}-best", other.name()), Some(*target), size, outcome);
                if let Ok(mut found) = found.lock() {
                    found.push(row);
                }
            }
        };
        std::thread::scope(|scope| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            (0..cores).for_each(|_| drop(scope.spawn(work)));
        });
        let rows = found.into_inner().unwrap_or_default();
        let is_better =
            |row: &Row, than: &Row| match (row.slo_attainment >= self.goal, than.slo_attainment >= self.goal)
            {
                (true, true) => (row.replica_hours, row.target) < (than.replica_hours, than.target),
                (false, false) => (row.slo_attainment, row.target) > (than.slo_attainment, than.target),
                (row, than) => row && !than,
            };
        let best = rows.into_iter().reduce(|best, row| if is_better(&row, &best) { row } else { best });
        best.unwrap_or_else(|| {
            let target = other.default_target();
            let outcome = replay(self.trace, &self.setting, other.scaler(target).as_mut());
            self.row(other.name(), Some(target), size, outcome)
        })
    }

    fn row(&self, policy: &str, target: Option<f64>, size: usize, outcome: Outcome) -> Row {
        let p99 = outcome.ttft_percentile(99.0);
        Row {
            policy: policy.to_owned(),
            target,
            slo_attainment: outcome.attained(self.slo),
            ttft_attainment: outcome.attained_ttft(self.slo),
            itl_attainment: outcome.attained_itl(self.slo),
            ttft_p99_seconds: p99.is_finite().then_some(p99),
            unanswered: outcome.unanswered(),
            replica_hours: outcome.replica_hours(),
            peak_replicas: outcome.peak(),
            overshoot: outcome.peak() as f64 / size as f64,
            decisions: outcome.decisions,
            seconds: outcome.seconds,
        }
    }
}
