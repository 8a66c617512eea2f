//! Twins of the shaders in `shaders/policy/`.

pub mod categorical;
pub mod gaussian;

/// e^t − 1 − t: Σ tⁿ/n! from n = 2 where the difference would cancel. Infinite at both ends.
pub(super) fn exp_minus_tangent(t: f64) -> f64 {
    if t.abs() >= 0.5 {
        return t.exp_m1() - t.min(f64::MAX);
    }
    let powers = (2..18u8).scan(t, |power, n| {
        *power *= t / f64::from(n);
        Some(*power)
    });
    powers.sum()
}
