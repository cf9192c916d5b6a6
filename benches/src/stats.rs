//! Small statistics of timings: medians, ratios, relative errors.

use std::time::{Duration, Instant};

/// Median of `values` (mean of the middle two when even), in the values' unit.
///
/// # Panics
/// If `values` is empty or holds a NaN.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "median of nothing");
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("no NaN among timings"));
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Largest over smallest value: how noisy the machine was.
///
/// # Panics
/// If `values` is empty.
#[must_use]
pub fn spread(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "spread of nothing");
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    high / low
}

/// Milliseconds of a duration.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Runs `f` once and returns its result with the wall-clock milliseconds.
pub fn time_ms<T>(f: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let value = f();
    (value, millis(start.elapsed()))
}

/// Median milliseconds of `f` over at least `min_runs` runs and `min_time`, after one warm-up run.
pub fn median_ms(min_runs: usize, min_time: Duration, mut f: impl FnMut()) -> f64 {
    f();
    let (start, mut samples) = (Instant::now(), Vec::new());
    while samples.len() < min_runs || start.elapsed() < min_time {
        samples.push(time_ms(&mut f).1);
    }
    median(&samples)
}

/// Root mean square of `got - want`, relative to the root mean square of `want`.
///
/// # Panics
/// If the lengths differ or are zero.
#[must_use]
pub fn relative_rms_error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "lengths of got and want");
    assert!(!want.is_empty(), "error of nothing");
    let error: f64 = got.iter().zip(want).map(|(g, w)| (g - w) * (g - w)).sum();
    let power: f64 = want.iter().map(|w| w * w).sum();
    (error / power.max(f64::MIN_POSITIVE)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
    }

    #[test]
    fn relative_error_of_known_values() {
        assert!((relative_rms_error(&[1.1, 0.9], &[1.0, 1.0]) - 0.1).abs() < 1e-9);
    }
}
