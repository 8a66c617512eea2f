//! Twin of `shaders/normalize.wgsl`.

use crate::kernels::normalize::{EpsilonMode, Normalize};
use crate::real::Real;

/// x = (x − μ) / (σ + ε), or one of its variants; moments = [μ, σ] of what was there; vector by vector.
pub fn normalize<T: Real>(op: &Normalize, x: &mut [T], moments: &mut [T]) {
    for k in 0..op.vectors {
        let at = |i: usize| op.offset + (k * op.len + i) * op.stride;
        let (mean, squares) = mean_and_squares(op.len, |i| x[at(i)].f64());
        // A single value has no deviation with ddof 1, and stays.
        let has_std = op.len > op.ddof as usize;
        let std = if has_std { (squares / (op.len - op.ddof as usize) as f64).sqrt() } else { 0.0 };
        moments[2 * k] = T::of(mean);
        moments[2 * k + 1] = T::of(std);
        let denominator = match op.epsilon_mode {
            EpsilonMode::AddToStd => std + op.epsilon,
            EpsilonMode::AddToVariance => (std * std + op.epsilon * op.epsilon).sqrt(),
            EpsilonMode::Max => std.max(op.epsilon),
        };
        for i in (0..op.len).filter(|_| has_std) {
            let centred = x[at(i)].f64() - mean;
            x[at(i)] = T::of(if denominator == 0.0 { 0.0 } else { centred / denominator });
        }
    }
}

/// 1 − Var(returns − values) / Var(returns), population variances; NaN where the returns have no variance.
pub fn explained_variance<T: Real>(values: &[T], returns: &[T]) -> T {
    let (_, residual) = mean_and_squares(returns.len(), |i| returns[i].f64() - values[i].f64());
    let (_, total) = mean_and_squares(returns.len(), |i| returns[i].f64());
    if total > 0.0 { T::of(1.0 - residual / total) } else { T::nan() }
}

/// μ = x₀ + Σ(x − x₀)/n, so that constants give themselves, and Σ(x − μ)².
fn mean_and_squares(n: usize, x: impl Fn(usize) -> f64) -> (f64, f64) {
    let mean = x(0) + (0..n).map(|i| x(i) - x(0)).sum::<f64>() / n as f64;
    (mean, (0..n).map(|i| (x(i) - mean).powi(2)).sum())
}
