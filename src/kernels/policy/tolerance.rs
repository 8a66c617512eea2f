//! How far the kernels may be from exact arithmetic.
//!
//! In units of u = 2⁻²⁴: a rounding is 1, WGSL's `exp(x)` 6 + 4|x| relative, its `log` 8 absolute near 1 and 6 relative elsewhere. Weighted with
//! the exponential itself, e^(−x)·x never exceeds 0.37, which is how |x| disappears from most bounds.

use super::{Categorical, Gaussian, SquashedGaussian};
use crate::tolerance::{F32_ROUNDOFF as U, Tolerance};

/// Results below the smallest normal number may be flushed to zero.
const SMALLEST_NORMAL: f64 = 1.2e-38;

/// What the bounds of a categorical batch are made of.
#[derive(Debug, Clone, Copy)]
pub struct CategoricalBounds {
    /// Absolute error of a log-probability.
    pub log_prob: f64,
    /// Absolute error of an entropy.
    pub entropy: f64,
    /// Largest entropy there can be, log A.
    most_entropy: f64,
    /// Largest difference of two logits of a row.
    range: f64,
    /// Terms of a sum over actions.
    terms: f64,
}

impl Categorical {
    /// Bounds for rows of `logits` under `mask`.
    ///
    /// log p = (l − max) − log Σ: l − max is rounded once (`range`·u); each exponential has 6 + 4|x| + |x| of that rounding, which the sum weighs by the
    /// probabilities, whose mean |x| is at most log A; the sum rounds once a term; the logarithm adds its own error; two more roundings.
    pub fn bounds(&self, logits: &[f64], mask: Option<&[u32]>) -> CategoricalBounds {
        let mut range = 0.0f64;
        for row in 0..self.batch {
            let elements = row * self.actions..(row + 1) * self.actions;
            let valid = elements.filter(|&i| mask.is_none_or(|mask| mask[i] != 0)).map(|i| logits[i]);
            let (low, high) = valid.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), l| (low.min(l), high.max(l)));
            range = range.max(high - low);
        }
        let most_entropy = (self.actions as f64).ln();
        // Sixty-four lanes share a long row; up to 64 actions one invocation takes them all.
        let terms = if self.actions <= 64 { self.actions as f64 } else { (self.actions as f64 / 64.0).ceil() + 6.0 };
        let log_prob = U * (3.0 * range + 20.0 + 14.0 * most_entropy + terms);
        let p_relative = log_prob + 8.0 * U;
        // −Σ p·log p: every p is off by p_relative, every log p by log_prob, the sum rounds.
        let entropy = most_entropy * (p_relative + (terms + 4.0) * U) + log_prob;
        CategoricalBounds { log_prob, entropy, most_entropy, range, terms }
    }
}

impl CategoricalBounds {
    /// Of log-probabilities.
    pub fn log_probs(&self) -> Tolerance {
        Tolerance::Uniform { abs: self.log_prob, rel: U }
    }

    /// Of probabilities: the error of the exponent, and that of `exp` with |x| up to `range` + log A.
    pub fn probs(&self) -> Tolerance {
        let rel = self.log_prob + U * (8.0 + 4.0 * (self.range + self.most_entropy));
        Tolerance::Uniform { abs: SMALLEST_NORMAL, rel }
    }

    /// Of log-sum-exps: the maximum is exact, its sum with the logarithm rounded once.
    pub fn logsumexp(&self) -> Tolerance {
        Tolerance::Uniform { abs: self.log_prob, rel: 2.0 * U }
    }

    /// Of entropies.
    pub fn entropies(&self) -> Tolerance {
        Tolerance::Uniform { abs: self.entropy, rel: U }
    }

    /// How far a cumulative probability may be off: every term by its relative error, and one rounding a term.
    pub fn cumulative(&self) -> f64 {
        self.log_prob + U * (2.0 * self.terms + 70.0)
    }

    /// Of `d_logp·(1[a] − p) − d_entropy·p·(log p + H)`, where p·|log p| ≤ 0.37.
    pub fn backward(&self, actions: usize, d_logp: &[f64], d_entropy: &[f64]) -> Tolerance {
        let p = self.log_prob + 12.0 * U;
        let through_entropy = (0.37 + self.most_entropy) * (p + 6.0 * U) + self.log_prob + self.entropy;
        self.per_row(actions, d_logp.iter().zip(d_entropy).map(|(l, e)| l.abs() * p + e.abs() * through_entropy))
    }

    /// Largest |log p − log q| of two batches.
    fn widest(&self, q: &Self) -> f64 {
        self.range + q.range + 2.0 * self.most_entropy
    }

    fn kl_bound(&self, q: &Self) -> f64 {
        self.widest(q) * (self.log_prob + (self.terms + 14.0) * U) + self.log_prob + q.log_prob
    }

    /// Of KL(p ‖ q).
    pub fn kl(&self, q: &Self) -> Tolerance {
        Tolerance::Uniform { abs: self.kl_bound(q), rel: U }
    }

    /// Of the derivatives of KL(p ‖ q) with respect to either.
    pub fn kl_backward(&self, q: &Self, actions: usize, d_kl: &[f64]) -> Tolerance {
        let bound =
            2.0 * self.widest(q) * (self.log_prob + 16.0 * U) + 2.0 * (self.log_prob + q.log_prob) + self.kl_bound(q) + 30.0 * U;
        self.per_row(actions, d_kl.iter().map(|d| d.abs() * bound))
    }

    fn per_row(&self, actions: usize, bounds: impl Iterator<Item = f64>) -> Tolerance {
        Tolerance::PerElement(bounds.flat_map(|bound| std::iter::repeat_n(bound + SMALLEST_NORMAL, actions)).collect())
    }
}

/// Relative error of z = (x − mean)·e^(−s): a subtraction, an exponential, a product.
fn z_error(s: f64) -> f64 {
    (10.0 + 4.0 * s.abs()) * U
}

/// One dimension of a Gaussian row, for the bounds.
#[derive(Debug, Clone, Copy)]
struct Dimension {
    z: f64,
    s: f64,
}

impl Gaussian {
    fn dimension(&self, row: usize, d: usize, mean: &[f64], log_std: &[f64], x: &[f64]) -> Dimension {
        let s = log_std[self.log_std_index(row, d)];
        let element = row * self.dim + d;
        Dimension { z: (x[element] - mean[element]) * (-s).exp(), s }
    }

    fn per_row(&self, bound: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        (0..self.batch).map(|row| (0..self.dim).map(|d| bound(row, d)).sum::<f64>() + SMALLEST_NORMAL).collect()
    }

    /// Of Σ_d −½z² − s − ½log 2π: z² is off by twice z's error; every term is rounded with the sum.
    pub fn logp_tolerance(&self, mean: &[f64], log_std: &[f64], x: &[f64]) -> Tolerance {
        let roundings = (self.dim as f64 + 5.0) * U;
        Tolerance::PerElement(self.per_row(|row, d| {
            let Dimension { z, s } = self.dimension(row, d, mean, log_std, x);
            z * z * z_error(s) + (0.5 * z * z + s.abs() + 1.0) * roundings
        }))
    }

    /// Of Σ_d s + ½log 2πe.
    pub fn entropy_tolerance(&self, log_std: &[f64]) -> Tolerance {
        let roundings = (self.dim as f64 + 3.0) * U;
        Tolerance::PerElement(self.per_row(|row, d| (log_std[self.log_std_index(row, d)].abs() + 1.5) * roundings))
    }

    /// Of mean + e^s·noise.
    pub fn sample_tolerance(&self, mean: &[f64], log_std: &[f64], noise: &[f64]) -> Tolerance {
        let bound = |i: usize| {
            let s = log_std[self.log_std_index(i / self.dim, i % self.dim)];
            let step = s.exp() * noise[i].abs();
            step * (8.0 + 4.0 * s.abs()) * U + (mean[i].abs() + step) * U + SMALLEST_NORMAL
        };
        Tolerance::PerElement((0..self.elements()).map(bound).collect())
    }

    /// Of a gradient with respect to log-std: one bound a row and dimension, or, shared by the batch, their sum with the sum's own roundings.
    /// `term` gives (error, magnitude) of one row and dimension.
    fn log_std_gradient(&self, term: impl Fn(usize, usize) -> (f64, f64)) -> Tolerance {
        if self.state_dependent_std {
            let bounds = (0..self.elements()).map(|i| term(i / self.dim, i % self.dim).0 + SMALLEST_NORMAL);
            return Tolerance::PerElement(bounds.collect());
        }
        let (rows, parts) = self.rows_per_part();
        let roundings = (rows + parts) as f64 * U;
        let bound = |d| {
            let terms = (0..self.batch).map(|row| term(row, d));
            terms.map(|(error, magnitude)| error + roundings * magnitude).sum::<f64>() + SMALLEST_NORMAL
        };
        Tolerance::PerElement((0..self.dim).map(bound).collect())
    }

    fn mean_gradient(&self, error: impl Fn(usize, usize) -> f64) -> Tolerance {
        Tolerance::PerElement((0..self.elements()).map(|i| error(i / self.dim, i % self.dim) + SMALLEST_NORMAL).collect())
    }

    /// Of d_logp·z·e^(−s) and d_logp·(z² − 1) + d_entropy.
    pub fn backward_tolerance(
        &self,
        mean: &[f64],
        log_std: &[f64],
        x: &[f64],
        d_logp: &[f64],
        d_entropy: &[f64],
    ) -> (Tolerance, Tolerance) {
        let at = |row, d| self.dimension(row, d, mean, log_std, x);
        let to_mean = self.mean_gradient(|row, d| {
            let Dimension { z, s } = at(row, d);
            (d_logp[row] * z * (-s).exp()).abs() * (2.0 * z_error(s) + 4.0 * U)
        });
        let to_log_std = self.log_std_gradient(|row, d| {
            let Dimension { z, s } = at(row, d);
            let magnitude = d_logp[row].abs() * (z * z + 1.0) + d_entropy[row].abs();
            (magnitude * (2.0 * z_error(s) + 6.0 * U), magnitude)
        });
        (to_mean, to_log_std)
    }

    /// z = (p_mean − q_mean)·e^(−q) and t = 2(p − q) of one row and dimension.
    fn kl_dimension(&self, [p_mean, p_log_std, q_mean, q_log_std]: [&[f64]; 4], row: usize, d: usize) -> (Dimension, f64) {
        let dimension = self.dimension(row, d, q_mean, q_log_std, p_mean);
        (dimension, 2.0 * (p_log_std[self.log_std_index(row, d)] - dimension.s))
    }

    /// Error of e^t − 1 with t rounded: (6 + 6|t|)·e^t, and the subtraction.
    fn excess_error(t: f64) -> f64 {
        (t.exp() * (8.0 + 6.0 * t.abs()) + 4.0 + 4.0 * t.abs()) * U
    }

    /// Of Σ_d ½(e^t − 1 − t) + ½z².
    pub fn kl_tolerance(&self, distributions: [&[f64]; 4]) -> Tolerance {
        let roundings = (self.dim as f64 + 3.0) * U;
        Tolerance::PerElement(self.per_row(|row, d| {
            let (Dimension { z, s }, t) = self.kl_dimension(distributions, row, d);
            let value = 0.5 * (t.exp() - 1.0 - t).abs() + 0.5 * z * z;
            0.5 * Self::excess_error(t) + z * z * z_error(s) + value * roundings
        }))
    }

    /// Of d_kl·z·e^(−q) and d_kl·(e^t − 1 [+ z²]).
    pub fn kl_backward_tolerance(&self, distributions: [&[f64]; 4], d_kl: &[f64]) -> (Tolerance, Tolerance) {
        let to_mean = self.mean_gradient(|row, d| {
            let (Dimension { z, s }, _) = self.kl_dimension(distributions, row, d);
            (d_kl[row] * z * (-s).exp()).abs() * (2.0 * z_error(s) + 4.0 * U)
        });
        let to_log_std = self.log_std_gradient(|row, d| {
            let (Dimension { z, s }, t) = self.kl_dimension(distributions, row, d);
            let magnitude = d_kl[row].abs() * (t.exp() + 1.0 + t.abs() + z * z);
            (d_kl[row].abs() * (Self::excess_error(t) + 2.0 * z * z * z_error(s)) + 4.0 * U * magnitude, magnitude)
        });
        (to_mean, to_log_std)
    }
}

impl SquashedGaussian {
    /// Of low + (high − low)·σ(2u): σ is off by at most 8 units, the ends are rounded.
    pub fn actions_tolerance(&self) -> Tolerance {
        Tolerance::Uniform { abs: (self.low.abs() + self.high.abs() + self.high - self.low) * 12.0 * U, rel: 0.0 }
    }

    fn log_det_bound(u: f64) -> f64 {
        (6.0 * u.abs() + 24.0) * U
    }

    /// Of 2(log 2 − |u| − log(1 + e^(−2|u|))).
    pub fn log_det_tolerance(&self, u: &[f64]) -> Tolerance {
        Tolerance::PerElement(u.iter().take(self.gaussian.elements()).map(|&u| Self::log_det_bound(u)).collect())
    }

    /// Of the log-density of u less log_det and log((high − low)/2).
    pub fn logp_tolerance(&self, mean: &[f64], log_std: &[f64], u: &[f64]) -> Tolerance {
        let Tolerance::PerElement(of_u) = self.gaussian.logp_tolerance(mean, log_std, u) else { return Tolerance::Exact };
        let roundings = (2.0 * self.gaussian.dim as f64 + 5.0) * U;
        let width = (0.5 * (self.high - self.low)).ln().abs();
        let own = self.gaussian.per_row(|row, d| {
            let u = u[row * self.gaussian.dim + d];
            Self::log_det_bound(u) + (2.0 * u.abs() + 2.0 + width) * roundings
        });
        // The density's terms pass through a sum that is three times as long.
        Tolerance::PerElement(of_u.iter().zip(own).map(|(density, own)| 3.0 * density + own).collect())
    }

    /// Of the gradients, for u that stands still or moves.
    pub fn backward_tolerance(
        &self,
        reparameterised: bool,
        mean: &[f64],
        log_std: &[f64],
        u: &[f64],
        d_logp: &[f64],
    ) -> (Tolerance, Tolerance) {
        if !reparameterised {
            return self.gaussian.backward_tolerance(mean, log_std, u, d_logp, &vec![0.0; d_logp.len()]);
        }
        // 2·tanh u = 4σ(2u) − 2 is off by four times σ's error and two roundings.
        let slope = 40.0 * U;
        let to_mean = self.gaussian.mean_gradient(|row, _| d_logp[row].abs() * slope);
        let to_log_std = self.gaussian.log_std_gradient(|row, d| {
            let element = row * self.gaussian.dim + d;
            let magnitude = d_logp[row].abs() * (1.0 + 2.0 * (u[element] - mean[element]).abs());
            (magnitude * slope, magnitude)
        });
        (to_mean, to_log_std)
    }
}
