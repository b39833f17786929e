//! By how much demand grows while a replica comes.
//!
//! Measured on square roots of the demand: there the chance of single requests is the same at any rate, and a swing in
//! proportion to the rate is one in proportion to the root. The deviation is that of a walk without a direction: neither a
//! trend nor a way back to the mean is assumed. A way back that is learned from an hour served no more at equal hours
//! (docs/design/020-scaler.md).
//!
//! Means of two windows differ by growth, and by the chance of single requests, which does not grow with the time between
//! them: it is what a line through the differences of neighbouring and of distant windows has left at no time apart (the
//! nugget of a variogram; Matheron 1963). It is no growth.

/// What is assumed before anything was seen: deviation of the root, relative to it, for each root of a second. That of
/// Azure's conversation trace of 2023, over 45 s as over 135 s.
const ASSUMED: f64 = 0.0073;
/// The assumption counts as much as so many stretches of the time ahead.
const ASSUMED_STRETCHES: f64 = 4.0;
/// Of what distant windows differ by, the share that is growth at least.
const LEAST_GROWTH: f64 = 0.25;
/// Growth beyond that is no wandering but bursts ([`super::lately`]), which nobody can provide for in advance.
pub const MOST: f64 = 1.6;

/// What `level`, the demand of the last `window` seconds, may have become `ahead` seconds later, `deviations` up.
/// `demand` is work of each second, oldest first.
pub fn grown(demand: &[f64], level: f64, window: usize, ahead: f64, deviations: f64) -> f64 {
    let root = level.max(0.0).sqrt();
    let assumed = (ASSUMED * ahead.sqrt() * root).powi(2);
    // The mean of the window is as old as its middle.
    let apart = (ahead + window as f64 / 2.0).round().max(1.0);
    let roots = roots(demand, window.max(1));
    let seen = growth(&roots, window, apart as usize);
    // Neighbours share most of what they have seen, so only whole stretches count.
    let stretches = roots.len().saturating_sub(apart as usize) as f64 / apart;
    let variance = (seen * stretches + ASSUMED_STRETCHES * assumed) / (stretches + ASSUMED_STRETCHES);
    (root + deviations * variance.sqrt()).powi(2).min(MOST * level.max(0.0))
}

/// The mean square by which roots grow in `apart` seconds.
fn growth(roots: &[f64], window: usize, apart: usize) -> f64 {
    let far = mean_square(roots, apart);
    let near = window.min(apart - 1);
    let by_line = (far - mean_square(roots, near)) * apart as f64 / (apart - near) as f64;
    // The line is measured, too.
    by_line.clamp(far * LEAST_GROWTH, far)
}

/// The mean square of what roots `apart` seconds from each other differ by.
fn mean_square(roots: &[f64], apart: usize) -> f64 {
    let pairs = roots.iter().zip(roots.iter().skip(apart));
    let squares: f64 = pairs.map(|(before, after)| (after - before).powi(2)).sum();
    squares / roots.len().saturating_sub(apart).max(1) as f64
}

/// The root of the mean of each window.
fn roots(demand: &[f64], window: usize) -> Vec<f64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(demand.iter().map(|second| {
            sum += second.max(0.0);
            sum
        }))
        .collect();
    let ends = sums.iter().skip(window);
    sums.iter().zip(ends).map(|(begin, end)| ((end - begin) / window as f64).max(0.0).sqrt()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_anything_was_seen_growth_is_assumed_and_an_hour_of_sameness_takes_it_back() {
        let fresh = grown(&[], 10.0, 10, 100.0, 2.0);
        assert!((fresh - 10.0 * (1.0_f64 + 2.0 * 0.073).powi(2)).abs() < 1e-9, "{fresh}");
        let known = grown(&[10.0; 3600], 10.0, 10, 100.0, 2.0);
        assert!(known > 10.0 && known < 10.0 + 0.5 * (fresh - 10.0), "{known}");
        let none = grown(&[10.0; 3600], 10.0, 10, 100.0, 0.0);
        assert!((none - 10.0).abs() < 1e-9, "{none}");
    }

    #[test]
    fn what_swings_gets_more_than_what_does_not_but_never_without_bound() {
        let swing = |depth: f64| -> Vec<f64> {
            (0..3600).map(|second| 10.0 + depth * (f64::from(second) / 60.0).sin()).collect()
        };
        let of = |depth| grown(&swing(depth), 10.0, 10, 100.0, 1.5);
        assert!(of(3.0) > of(1.0) && of(1.0) > of(0.0), "{} {} {}", of(3.0), of(1.0), of(0.0));
        let bursts: Vec<f64> = (0..3600).map(|second| if second % 300 < 12 { 100.0 } else { 0.0 }).collect();
        assert_eq!(grown(&bursts, 10.0, 10, 100.0, 1.5), 16.0);
        assert_eq!(grown(&bursts, 0.0, 10, 100.0, 1.5), 0.0);
    }

    #[test]
    fn growth_is_the_deviation_of_what_was_seen_over_the_same_time() {
        // The root is 4 and 5 in turn, each for as long as a replica takes to come.
        let demand: Vec<f64> =
            (0..1010).map(|second| if second / 10 % 2 == 0 { 16.0 } else { 25.0 }).collect();
        let assumed = (ASSUMED * 9.5_f64.sqrt() * 5.0).powi(2);
        let deviation = ((100.0 + ASSUMED_STRETCHES * assumed) / (100.0 + ASSUMED_STRETCHES)).sqrt();
        let found = grown(&demand, 25.0, 1, 9.5, 1.0);
        assert!((found - (5.0 + deviation).powi(2)).abs() < 1e-9, "{found}");
    }

    #[test]
    fn the_chance_of_single_requests_is_no_growth() {
        // Each second by itself, and a minute's swing of the same size.
        let mut dice = 7_u64;
        let chance: Vec<f64> = (0..3600)
            .map(|_| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                10.0 + 6.0 * ((dice >> 33) as f64 / f64::from(1_u32 << 31) - 0.5)
            })
            .collect();
        let swing: Vec<f64> =
            (0..3600).map(|second| 10.0 + 6.0_f64.sqrt() * (f64::from(second) / 120.0).sin()).collect();
        let of = |demand: &[f64]| grown(demand, 10.0, 10, 100.0, 2.0) - 10.0;
        let known = of(&[10.0; 3600]);
        assert!(of(&chance) < known + 0.3, "{} {known}", of(&chance));
        assert!(of(&swing) > known + 2.0, "{} {known}", of(&swing));
    }

    #[test]
    fn requests_that_went_away_leave_numbers() {
        assert!(grown(&[-5.0, 3.0, -1.0], -1.0, 2, 1.0, 1.5).abs() < 1e-9);
    }
}
