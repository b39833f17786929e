//! How long a placement takes, and how good it is, beside EPLB: `cargo bench -p coterie-operator-core --bench placement`.
//!
//! DeepSeek-V3's size and others', with tokens of four distributions. Times are of one core, the median of several runs;
//! EPLB is our own, so both are the same language. Balance is the load of the busiest rank over the mean, over all layers.
//! EPLB is the better of its two policies; its balance is as it counts it, two copies on one rank included.

use coterie_operator_core::plan::placement::{Input, Rank, eplb, place};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Layers, experts, redundant slots a layer, ranks, nodes, groups of the gate.
const SIZES: [(&str, [usize; 6]); 5] = [
    ("DeepSeek-V3", [61, 256, 32, 32, 4, 8]),
    ("DeepSeek-V3, all alike", [61, 256, 32, 32, 1, 1]),
    ("DeepSeek-V3, wide", [61, 256, 64, 320, 40, 8]),
    ("GPT-OSS-120B", [36, 128, 16, 8, 2, 1]),
    ("Mixtral", [32, 8, 4, 4, 2, 1]),
];

fn main() {
    println!(
        "{:<24} {:<10} {:>10} {:>8} {:>10} {:>8} {:>8} {:>10} {:>9}",
        "model", "tokens", "EPLB", "balance", "ours", "balance", "crowded", "next map", "loads"
    );
    for (model, size) in SIZES {
        for kind in [Kind::Uniform, Kind::Lognormal, Kind::Zipf, Kind::OneHot] {
            row(model, size, kind);
        }
    }
}

fn row(model: &str, [layers, experts, redundant, ranks, nodes, groups]: [usize; 6], kind: Kind) {
    let mut random = Random(1);
    let tokens: Vec<Vec<u64>> = (0..layers).map(|_| kind.draw(experts, &mut random)).collect();
    let reference = || -> Option<Vec<Vec<u16>>> {
        let place = |tokens: &Vec<u64>| {
            let tokens: Vec<f32> = tokens.iter().map(|&tokens| tokens as f32).collect();
            eplb::place(&tokens, experts + redundant, groups, nodes, ranks)
        };
        tokens.iter().map(place).collect()
    };
    let places: Vec<Rank> =
        (0..ranks).map(|rank| Rank { node: rank * nodes / ranks, slots: usize::MAX }).collect();
    let input = Input {
        tokens: &tokens,
        ranks: &places,
        redundant,
        groups,
        current: None,
        budget: None,
        together: None,
    };
    let (eplb_time, eplb) = timed(reference);
    let (time, placed) = timed(|| place(&input).expect("there is memory for all"));

    // Later the load of one expert in ten is another.
    let later: Vec<Vec<u64>> = tokens.iter().map(|tokens| drifted(tokens, &mut random)).collect();
    let input = Input { tokens: &later, current: Some(&placed.map), ..input };
    let (next_time, next) = timed(|| place(&input).expect("there is memory for all"));
    println!(
        "{model:<24} {:<10} {:>7.2} ms {:>8} {:>7.2} ms {:>8.4} {:>8} {:>7.2} ms {:>9}",
        format!("{kind:?}"),
        milliseconds(eplb_time),
        eplb.map_or("-".to_owned(), |placed| format!("{:.4}", balance(&tokens, &placed, ranks))),
        milliseconds(time),
        placed.after.balance,
        placed.after.crowded,
        milliseconds(next_time),
        next.loads.len(),
    );
}

/// The median of several runs, and what they gave.
fn timed<T>(mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut times = Vec::new();
    loop {
        let started = Instant::now();
        let result = black_box(run());
        times.push(started.elapsed());
        if times.len() == 9 {
            times.sort_unstable();
            return (times[4], result);
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// EPLB's own: two copies on one rank both count.
fn balance(tokens: &[Vec<u64>], placed: &[Vec<u16>], ranks: usize) -> f64 {
    let (mut busiest, mut mean) = (0.0, 0.0);
    for (tokens, placed) in tokens.iter().zip(placed) {
        let mut copies = vec![0.0; tokens.len()];
        placed.iter().for_each(|&expert| copies[usize::from(expert)] += 1.0);
        let part = |&expert: &u16| tokens[usize::from(expert)] as f64 / copies[usize::from(expert)];
        let load = |held: &[u16]| held.iter().map(part).sum::<f64>();
        busiest += placed.chunks(placed.len() / ranks).map(load).fold(0.0, f64::max);
        mean += tokens.iter().sum::<u64>() as f64 / ranks as f64;
    }
    busiest / mean
}

fn drifted(tokens: &[u64], random: &mut Random) -> Vec<u64> {
    let mut later = tokens.to_vec();
    for _ in 0..tokens.len().div_ceil(20) {
        later.swap(random.below(tokens.len()), random.below(tokens.len()));
    }
    later
}

/// How tokens are spread over experts.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Evenly between 500 and 1500.
    Uniform,
    /// e^N(0, 1).
    Lognormal,
    /// 1/place.
    Zipf,
    /// Half of all to one expert.
    OneHot,
}

impl Kind {
    fn draw(self, experts: usize, random: &mut Random) -> Vec<u64> {
        let mut order: Vec<usize> = (0..experts).collect();
        (1..experts).for_each(|at| order.swap(at, random.below(at + 1)));
        let tokens = |place: usize, random: &mut Random| match self {
            Kind::Uniform => 500.0 + 1000.0 * random.unit(),
            Kind::Lognormal => 1000.0 * random.normal().exp(),
            Kind::Zipf => 100_000.0 / (place + 1) as f64,
            Kind::OneHot => {
                if place == 0 {
                    1000.0 * experts as f64
                } else {
                    1000.0
                }
            }
        };
        order.into_iter().map(|place| tokens(place, random) as u64).collect()
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}
