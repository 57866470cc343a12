//! The statistics of a comparison, pure: medians, the Mann-Whitney U test, and a bootstrap of the ratio of medians.
//!
//! Medians and ranks, because latencies have tails and one bad run is not news. No figure's distribution is assumed.

use crate::camera::mix;

/// Resamples: the bounds of the interval then wander by about a percent of its width.
const RESAMPLES: usize = 10_000;
/// Of the interval, each side.
const TAIL: f64 = 0.025;
/// Up to this many values a side, and without ties, p is exact; above, the normal approximation is close.
const EXACT_MAX: usize = 25;

/// The middle value, or the mean of the two middle ones; of nothing it is not a number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// What the U test says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MannWhitney {
    /// Pairs of which A's value is the larger one; ties count half.
    pub u: f64,
    /// Two-sided: how often chance alone would give a U at least as far from the middle.
    pub p: f64,
}

/// Mann and Whitney (1947): whether values of A tend to be larger or smaller than those of B. Exact without ties for small
/// samples, else by the normal approximation with corrections for ties and continuity.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> MannWhitney {
    let (n, m) = (a.len(), b.len());
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let u = pairs
        .map(|(a, b)| match a.total_cmp(b) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum::<f64>();
    let far = u.max((n * m) as f64 - u);
    let ties = tie_groups(a, b);
    let p = match n.max(m) <= EXACT_MAX && ties.iter().all(|&size| size == 1) {
        true => exact(n, m, far),
        false => approximate(n, m, far, &ties),
    };
    MannWhitney { u, p: p.min(1.0) }
}

/// How many values are equal, for each value there is.
fn tie_groups(a: &[f64], b: &[f64]) -> Vec<usize> {
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.sort_by(f64::total_cmp);
    all.chunk_by(|one, other| one == other)
        .map(<[f64]>::len)
        .collect()
}

/// Of all orders of n + m values, those with a U of at least `far`, on either side. Counts by the recurrence of Mann and
/// Whitney: the largest value is A's (and beats all of B) or B's.
fn exact(n: usize, m: usize, far: f64) -> f64 {
    // ways[j][u]: orders of i values of A and j of B with that U; built up in i.
    let mut ways: Vec<Vec<f64>> = (0..=m).map(|_| vec![1.0]).collect();
    for i in 1..=n {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=m {
            let mut counts = vec![0.0; i * j + 1];
            for (u, count) in ways[j].iter().enumerate() {
                counts[u + j] += count;
            }
            for (u, count) in next[j - 1].iter().enumerate() {
                counts[u] += count;
            }
            next.push(counts);
        }
        ways = next;
    }
    let counts = &ways[m];
    let all: f64 = counts.iter().sum();
    let beyond: f64 = counts.iter().skip(far.ceil() as usize).sum();
    2.0 * beyond / all
}

fn approximate(n: usize, m: usize, far: f64, ties: &[usize]) -> f64 {
    let (n, m) = (n as f64, m as f64);
    let whole = n + m;
    let tied: f64 = ties.iter().map(|&size| (size as f64).powi(3) - size as f64).sum();
    let variance = n * m / 12.0 * (whole + 1.0 - tied / (whole * (whole - 1.0)));
    if variance.is_nan() || variance <= 0.0 {
        return 1.0; // all values are equal, or there are none
    }
    let z = (far - n * m / 2.0 - 0.5) / variance.sqrt();
    2.0 * normal_tail(z)
}

/// The share of a standard normal distribution above z: ½ erfc(z/√2), by erf's series near 0 and erfc's continued
/// fraction further out (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn normal_tail(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let gauss = (-x * x).exp() / std::f64::consts::PI.sqrt();
    let tail = if x < 3.0 {
        let (mut term, mut sum, mut k) = (x, x, 0.0);
        while term > 1e-17 * sum {
            k += 1.0;
            term *= 2.0 * x * x / (2.0 * k + 1.0);
            sum += term;
        }
        0.5 - gauss * sum
    } else {
        let fraction = (1..60).rev().fold(x, |below, k| x + f64::from(k) / 2.0 / below);
        0.5 * gauss / fraction
    };
    if z < 0.0 { 1.0 - tail } else { tail }
}

/// The 95 % interval of the ratio of medians, B ÷ A, by the percentiles of resampled ones (Efron 1979). `None` where no
/// ratio can be: A's median is 0, or a side is empty.
pub fn ratio_interval(a: &[f64], b: &[f64], seed: u64) -> Option<(f64, f64)> {
    if a.is_empty() || b.is_empty() || median(a) == 0.0 {
        return None;
    }
    let mut draw = Draw(seed);
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let (a, b) = (median(&draw.resample(a)), median(&draw.resample(b)));
            if a == b { 1.0 } else { b / a }
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let last = RESAMPLES - 1;
    let at = |share: f64| ratios[(share * last as f64).round() as usize];
    Some((at(TAIL), at(1.0 - TAIL)))
}

/// Random numbers that depend on the seed alone.
struct Draw(u64);

impl Draw {
    fn resample(&mut self, values: &[f64]) -> Vec<f64> {
        (0..values.len())
            .map(|_| values[self.below(values.len())])
            .collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.0)) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!(
            (value - expected).abs() <= 1e-12 * expected.abs().max(1.0),
            "{value} is not {expected}"
        );
    }

    fn to(from: u32, end: u32, plus: f64) -> Vec<f64> {
        (from..end).map(|value| f64::from(value) + plus).collect()
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    /// Reference: scipy 1.17.1, `mannwhitneyu(a, b, method='exact')`; the first by hand: 2 of the 252 orders of 5 and 5.
    #[test]
    fn exact_p_values_are_those_of_scipy() {
        let five = mann_whitney(&to(1, 6, 0.0), &to(6, 11, 0.0));
        assert_eq!(five.u, 0.0);
        close(five.p, 2.0 / 252.0);
        let mixed = mann_whitney(&[1.1, 2.2, 3.3, 4.4, 5.5], &[2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(mixed.u, 10.0);
        close(mixed.p, 0.6904761904761905);
        let uneven = mann_whitney(&[19.0, 22.0, 16.0, 29.0, 24.0], &[20.0, 11.0, 17.0, 12.0]);
        assert_eq!(uneven.u, 17.0);
        close(uneven.p, 0.1111111111111111);
        let apart = mann_whitney(&to(1, 8, 0.0), &[4.5, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0]);
        close(apart.p, 0.0021756021756021756);
    }

    /// Reference: scipy 1.17.1, `method='asymptotic'`.
    #[test]
    fn approximate_p_values_are_those_of_scipy() {
        let ties = mann_whitney(&[1.0, 2.0, 2.0, 3.0, 4.0], &[2.0, 3.0, 4.0, 4.0, 5.0]);
        assert_eq!(ties.u, 5.5);
        close(ties.p, 0.16258685072635493);
        close(
            mann_whitney(&to(0, 30, 0.0), &to(0, 30, 5.5)).p,
            0.027086318388295935,
        );
        close(mann_whitney(&[5.0; 5], &[6.0; 5]).p, 0.003976751709788651);
        assert_eq!(mann_whitney(&[1.0; 5], &[1.0; 5]).p, 1.0);
    }

    /// Abramowitz and Stegun, table 26.1.
    #[test]
    fn the_tail_of_the_normal_distribution() {
        close(normal_tail(0.0), 0.5);
        assert!((normal_tail(1.96) - 0.024_997_895).abs() < 1e-9);
        assert!((normal_tail(-1.0) - 0.841_344_746).abs() < 1e-9);
        assert!((normal_tail(5.0) / 2.866_515_719e-7 - 1.0).abs() < 1e-8);
    }

    #[test]
    fn the_sides_can_be_swapped_and_empty_ones_tell_nothing() {
        let (a, b) = ([1.0, 5.0, 3.5, 9.0], [2.0, 4.0, 8.0]);
        close(mann_whitney(&a, &b).p, mann_whitney(&b, &a).p);
        assert_eq!(mann_whitney(&[], &[1.0]).p, 1.0);
        assert_eq!(ratio_interval(&[], &[1.0], 1), None);
        assert_eq!(ratio_interval(&[0.0, 0.0], &[1.0], 1), None);
    }

    #[test]
    fn the_interval_holds_the_ratio_and_repeats_with_its_seed() {
        let (a, b) = (
            [10.0, 10.1, 9.9, 10.2, 9.8, 10.0],
            [12.0, 12.2, 11.9, 12.1, 11.8, 12.3],
        );
        let (low, high) = ratio_interval(&a, &b, 7).expect("no median is 0");
        assert!(
            low > 1.15 && low < 1.2 && high > 1.2 && high < 1.26,
            "{low} {high}"
        );
        assert_eq!(ratio_interval(&a, &b, 7), Some((low, high)));
        assert_eq!(ratio_interval(&[4.0; 5], &[4.0; 5], 1), Some((1.0, 1.0)));
    }

    /// A true ratio of 1 lies within the 95 % interval about that often; a percentile bootstrap of medians of ten is a
    /// little too wide or too narrow, never by a lot.
    #[test]
    fn the_interval_covers_what_it_claims_to() {
        let sample = |seed: u64| -> Vec<f64> {
            (0..10)
                .map(|index| 100.0 + (mix(seed * 1000 + index) % 1000) as f64 / 50.0)
                .collect()
        };
        let covered = (0..60)
            .filter_map(|seed| ratio_interval(&sample(2 * seed), &sample(2 * seed + 1), seed))
            .filter(|(low, high)| (*low..=*high).contains(&1.0))
            .count();
        assert!(covered >= 50, "{covered} of 60");
    }
}
