//! The gate's choices.

use coterie_kernels::cpu::logits;
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};

use super::cases::{Case, exact_softmax, on_one_core};
use super::device::Device;
use super::random::Random;

pub fn all() -> Vec<Case> {
    let rule = |per_token, scores| Rule { per_token, scores, groups: None, renormalise: false, factor: 1.0 };
    let groups = |count, kept, worth| Some(Groups { count, kept, worth });
    vec![
        choose(1, 8, Rule { renormalise: true, ..rule(2, Scores::Softmax) }, false),
        choose(300, 60, rule(4, Scores::Softmax), false),
        choose(70, 9, Rule { renormalise: true, factor: 2.5, ..rule(9, Scores::Sigmoid) }, true),
        choose(40, 33, rule(4, Scores::SoftmaxOfChosen), true),
        choose(50, 24, Rule { groups: groups(6, 2, Worth::Best), ..rule(3, Scores::Softmax) }, false),
        choose(90, 256, Rule { groups: groups(8, 4, Worth::TwoBest), ..rule(8, Scores::Sigmoid) }, true),
    ]
}

/// Of equals the first.
fn order(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
    order
}

/// The experts that `rule` allows and chooses, by whole sorts.
fn chosen(rule: &Rule, ranks: &[f32]) -> Vec<usize> {
    let experts = ranks.len();
    let groups = rule.groups.unwrap_or(Groups { count: 1, kept: 1, worth: Worth::Best });
    let size = experts / groups.count;
    let worth = |ranks: &[f32]| {
        let best = order(ranks);
        match groups.worth {
            Worth::Best => ranks[best[0]],
            Worth::TwoBest => ranks[best[0]] + ranks[best[1]],
        }
    };
    let worths: Vec<f32> = ranks.chunks(size).map(worth).collect();
    let kept = &order(&worths)[..groups.kept];
    order(ranks).into_iter().filter(|e| kept.contains(&(e / size))).take(rule.per_token).collect()
}

fn choose(rows: usize, experts: usize, rule: Rule, biased: bool) -> Case {
    let mut random = Random::new(experts as u64);
    let mut logits: Vec<f32> = random.values(rows * experts).iter().map(|x| x * 3.0).collect();
    logits[5] = logits[2]; // a tie
    let bias: Option<Vec<f32>> = biased.then(|| random.values(experts));
    let mut exact = Vec::new();
    for row in logits.chunks(experts) {
        let (mut scores, mut truth) = (row.to_vec(), row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        match rule.scores {
            Scores::Softmax => {
                logits::softmax_reference(&mut scores);
                truth = exact_softmax(row);
            }
            Scores::Sigmoid => {
                truth = row.iter().map(|x| 1.0 / (1.0 + (-f64::from(*x)).exp())).collect();
                scores = truth.iter().map(|x| *x as f32).collect();
            }
            Scores::SoftmaxOfChosen => {}
        }
        let ranks: Vec<f32> = match &bias {
            Some(bias) => scores.iter().zip(bias).map(|(score, bias)| score + bias).collect(),
            None => scores.clone(),
        };
        let best = chosen(&rule, &ranks);
        let mut weights: Vec<f64> = best.iter().map(|e| truth[*e]).collect();
        if rule.scores == Scores::SoftmaxOfChosen {
            let logits: Vec<f32> = best.iter().map(|e| row[*e]).collect();
            weights = exact_softmax(&logits);
        }
        let sum: f64 = if rule.renormalise { weights.iter().sum() } else { 1.0 };
        weights.iter_mut().for_each(|weight| *weight *= f64::from(rule.factor) / sum);
        exact.extend(best.iter().map(|e| *e as f64).chain(weights));
    }
    let run = move |device: &dyn Device| device.choose(&logits, bias.as_deref(), experts, &rule);
    Case { name: format!("gate of {experts}, {rule:?}"), exact, bound: 1e-6, ..on_one_core(run) }
}
