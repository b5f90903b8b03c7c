//! Times and their distribution.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Value below which the share `q` (0..=1) of `sorted` lies, by linear interpolation between the two
/// nearest ranks: the value at place q·(n−1). `None` of nothing.
pub fn percentile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let below = *sorted.get(place.floor() as usize)?;
    let above = *sorted.get(place.ceil() as usize)?;
    Some(below + (above - below) * place.fract())
}

/// Mean, spread and percentiles of a list of values, in the values' unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distribution {
    /// Number of values.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
    /// Smallest value.
    pub min: f64,
    /// 50th percentile.
    pub median: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest value.
    pub max: f64,
}

impl Distribution {
    /// Of the values in any order; `None` of nothing. Works for costs (MFLOPs a frame) as for times.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / n;
        let variance = sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        Some(Self {
            n: sorted.len(),
            mean,
            std: variance.sqrt(),
            min: *sorted.first()?,
            median: percentile(&sorted, 0.5)?,
            p90: percentile(&sorted, 0.9)?,
            p95: percentile(&sorted, 0.95)?,
            p99: percentile(&sorted, 0.99)?,
            max: *sorted.last()?,
        })
    }
}

/// Collects times; the first few, while caches and clocks settle, are thrown away.
#[derive(Debug, Clone, Default)]
pub struct Timings {
    to_skip: usize,
    milliseconds: Vec<f64>,
}

impl Timings {
    /// Throws away the first `warm_up` times.
    pub fn new(warm_up: usize) -> Self {
        Self { to_skip: warm_up, milliseconds: Vec::new() }
    }

    /// Adds one time; zero for a frame on which nothing ran.
    pub fn push(&mut self, time: Duration) {
        match self.to_skip.checked_sub(1) {
            Some(left) => self.to_skip = left,
            None => self.milliseconds.push(time.as_secs_f64() * 1e3),
        }
    }

    /// Runs `work`, adds the time that it took, and returns its value.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        self.push(start.elapsed());
        value
    }

    /// The times that count, in milliseconds, in order.
    pub fn milliseconds(&self) -> &[f64] {
        &self.milliseconds
    }

    /// Their distribution, in milliseconds; `None` if every time so far was warm-up.
    pub fn distribution(&self) -> Option<Distribution> {
        Distribution::of(&self.milliseconds)
    }

    /// Frames a second at the mean time; `None` if no time was spent or none counts.
    pub fn frames_per_second(&self) -> Option<f64> {
        self.distribution().filter(|d| d.mean > 0.0).map(|d| 1e3 / d.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_between_ranks() {
        let cases: &[(&[f64], f64, Option<f64>)] = &[
            (&[], 0.5, None),
            (&[7.0], 0.99, Some(7.0)),
            (&[1.0, 2.0], 0.5, Some(1.5)),
            (&[1.0, 2.0, 3.0, 4.0], 0.5, Some(2.5)),
            (&[1.0, 2.0, 3.0, 4.0], 0.95, Some(3.85)),
            (&[0.0, 10.0], 1.0, Some(10.0)),
            (&[0.0, 10.0], 0.0, Some(0.0)),
        ];
        for &(values, q, expected) in cases {
            let got = percentile(values, q);
            let near = got.zip(expected).is_none_or(|(a, b)| (a - b).abs() < 1e-12);
            assert!(got.is_some() == expected.is_some() && near, "{values:?} at {q}: {got:?}");
        }
    }

    #[test]
    fn a_known_distribution() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let d = Distribution::of(&values).unwrap();
        assert_eq!((d.n, d.min, d.max, d.mean, d.median), (100, 1.0, 100.0, 50.5, 50.5));
        // numpy: percentile(range(1, 101), [90, 95, 99]) and std(range(1, 101)).
        for (name, got, expected) in [
            ("p90", d.p90, 90.1),
            ("p95", d.p95, 95.05),
            ("p99", d.p99, 99.01),
            ("std", d.std, 28.866_070_047_722_12),
        ] {
            assert!((got - expected).abs() < 1e-9, "{name}: {got}, not {expected}");
        }
        assert_eq!(Distribution::of(&[]), None);
    }

    #[test]
    fn warm_up_is_thrown_away_and_idle_frames_count() {
        let mut timings = Timings::new(2);
        for ms in [500, 400] {
            timings.push(Duration::from_millis(ms));
        }
        assert_eq!(timings.distribution(), None);
        assert_eq!(timings.frames_per_second(), None);
        for ms in [20, 0, 0, 0] {
            timings.push(Duration::from_millis(ms));
        }
        let d = timings.distribution().unwrap();
        assert_eq!((d.n, d.max, d.median), (4, 20.0, 0.0));
        assert!((d.mean - 5.0).abs() < 1e-9 && (d.std - 75f64.sqrt()).abs() < 1e-9, "{d:?}");
        assert!((timings.frames_per_second().unwrap() - 200.0).abs() < 1e-6);
    }

    #[test]
    fn timed_work_returns_its_value() {
        let mut timings = Timings::default();
        assert_eq!(timings.time(|| 6 * 7), 42);
        assert_eq!(timings.milliseconds().len(), 1);
    }

    #[test]
    fn no_time_spent_is_no_rate() {
        let mut timings = Timings::default();
        timings.push(Duration::ZERO);
        assert_eq!(timings.frames_per_second(), None);
    }
}
