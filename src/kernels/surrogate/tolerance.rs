//! How far two backends may lie apart: a forward error analysis of each sample, on its own numbers.
//!
//! u is the unit roundoff, WGSL's exp(x) is off by at most 3 + 2|x| ULP, each at most 2u of the result. An error of the log-ratio by δ is an
//! error of the ratio by the factor e^δ, and so is, for δ small, an error of the ratio relative to itself. All that follows from the ratio is
//! monotone in it, or has its only minimum at log-ratio 0, so it is evaluated at both ends of the interval in which the log-ratio lies. Where the
//! ends are on different sides of a clip edge, the jump of the gradient is allowed: which side a rounded ratio falls on is no error.

use super::{CriticLoss, PolicyLoss, Surrogate, ValueLoss, WORKGROUP_SIZE, lanes};
use crate::kernels::policy::{Categorical, Gaussian, HALF_LOG_TWO_PI};
use crate::layout::{sample, stat, term};
use crate::tolerance::F32_ROUNDOFF as U;

/// Below this a result may be flushed to zero.
const TINY: f64 = 4.0 * f32::MIN_POSITIVE as f64;

/// Relative error of exp(x), given a relative error of one rounding in x.
fn exp_error(x: f64) -> f64 {
    (6.0 + 5.0 * x.abs()) * U
}

/// What an overflow in `f32` leaves is bounded by nothing.
fn unless_overflow(bound: f64, magnitude: f64) -> f64 {
    if bound.is_nan() || magnitude.is_nan() || magnitude > 0.5 * f64::from(f32::MAX) { f64::INFINITY } else { bound + TINY }
}

/// The loss of one sample without error, as the twin has it.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    /// Of a log-ratio and an advantage.
    pub policy: fn(&Surrogate, f64, f64) -> PolicyLoss<f64>,
    /// Of a value, a return and an old value.
    pub critic: fn(&Surrogate, f64, f64, f64) -> CriticLoss<f64>,
}

/// Bounds of the outputs of [`SurrogateOps::surrogate`](crate::backend::SurrogateOps::surrogate).
#[derive(Debug, Clone)]
pub struct SurrogateBounds {
    /// `[batch, 8]`.
    pub terms: Vec<f64>,
    /// `[batch]`.
    pub d_logp: Vec<f64>,
    /// `[batch]`.
    pub d_values: Vec<f64>,
    /// One row of statistics.
    pub stats: [f64; stat::COLUMNS],
}

/// Bounds of the outputs of [`SurrogateOps::surrogate_categorical`](crate::backend::SurrogateOps::surrogate_categorical).
#[derive(Debug, Clone)]
pub struct CategoricalBounds {
    /// `[batch, actions]`.
    pub d_logits: Vec<f64>,
    /// `[batch]`.
    pub d_values: Vec<f64>,
    /// One row of statistics.
    pub stats: [f64; stat::COLUMNS],
}

/// Bounds of the outputs of [`SurrogateOps::surrogate_gaussian`](crate::backend::SurrogateOps::surrogate_gaussian).
#[derive(Debug, Clone)]
pub struct GaussianBounds {
    /// `[batch, dim]`.
    pub d_mean: Vec<f64>,
    /// `[dim]`, or `[batch, dim]` where it depends on the state.
    pub d_log_std: Vec<f64>,
    /// `[batch]`.
    pub d_values: Vec<f64>,
    /// One row of statistics.
    pub stats: [f64; stat::COLUMNS],
}

/// A number with the bound of its error.
#[derive(Debug, Clone, Copy, Default)]
struct Rough {
    value: f64,
    error: f64,
}

impl Rough {
    fn new(value: f64, error: f64) -> Self {
        Self { value, error: unless_overflow(error, value.abs() + error) }
    }
}

/// One sample: its loss, and how far each part of it may be off.
struct RoughLoss {
    log_ratio: Rough,
    ratio: Rough,
    clipped_ratio: Rough,
    pg_loss: Rough,
    clipped_value: Rough,
    v_loss: Rough,
    k3: Rough,
    kl_penalty: Rough,
    outside: Rough,
    d_logp: Rough,
    d_value: Rough,
}

impl RoughLoss {
    fn new(op: &Surrogate, exact_loss: Exact, logp: Rough, value: f64, row: &[f64]) -> Self {
        let at = |logp: f64| (exact_loss.policy)(op, logp - row[sample::OLD_LOGP], row[sample::ADVANTAGE]);
        let exact = at(logp.value);
        let log_ratio = Rough::new(exact.log_ratio, logp.error + U * exact.log_ratio.abs());
        // The clip's edges and the dual clip are rounded too: one u of the ratio they are compared with, and one of the loss they give.
        let shift = log_ratio.error + exp_error(exact.log_ratio) + 2.0 * U;
        let ends = [at(logp.value - shift), at(logp.value + shift)];
        let advantage = row[sample::ADVANTAGE].abs();
        let spread = |part: fn(&PolicyLoss<f64>) -> f64, roundings: f64| {
            let [low, high] = ends.map(|end| (part(&end) - part(&exact)).abs());
            Rough::new(part(&exact), low.max(high) + roundings * U * part(&exact).abs() + TINY * advantage)
        };
        let flips = ends.iter().any(|end| end.outside != exact.outside);
        let batch = op.batch as f64;
        // Where the clip takes the gradient away, but would not within the error, what is rounded is the gradient that stayed.
        let stays = exact.d_logp != 0.0 || ends.iter().any(|end| end.d_logp != 0.0);
        let live = if stays { advantage * exact.ratio } else { 0.0 };
        let pulled = if op.kl_coef == 0.0 { 0.0 } else { op.kl_coef * (-exact.log_ratio).exp_m1().abs() };
        let d_logp = spread(|loss| loss.d_logp, 0.0);
        let [clipped_value, v_loss, d_value] = value_bounds(op, exact_loss, value, row);
        Self {
            ratio: spread(|loss| loss.ratio, 1.0),
            clipped_ratio: spread(|loss| loss.clipped_ratio, 1.0),
            pg_loss: spread(|loss| loss.pg_loss, 3.0),
            k3: exp_residual_bound(exact.log_ratio, log_ratio.error, exact.k3),
            kl_penalty: exp_residual_bound(-exact.log_ratio, log_ratio.error, exact.kl_penalty),
            outside: Rough::new(exact.outside, f64::from(u8::from(flips))),
            // Two products, a sum, 1/batch and its product; a constant for the KL penalty.
            d_logp: Rough::new(d_logp.value, d_logp.error + 6.0 * U * (live + pulled) / batch),
            log_ratio,
            clipped_value,
            v_loss,
            d_value,
        }
    }
}

/// eˣ − 1 − x. Below 1 its series: even and odd powers have three roundings each before they meet, where they cancel by less than a half,
/// and three after that; beyond 1 the terms of the formula itself.
fn exp_residual_bound(x: f64, x_error: f64, residual: f64) -> Rough {
    let moved = (x.exp_m1().abs() * x_error + 0.5 * x_error * x_error * x.exp()) * x_error.exp();
    let formula = if x.abs() < 0.999 { 0.0 } else { x.exp() * exp_error(x) + 2.0 * U * (x.exp() + 1.0 + x.abs()) };
    Rough::new(residual, moved + 12.0 * U * residual + formula)
}

/// Clipped value, value loss and derivative.
fn value_bounds(op: &Surrogate, exact: Exact, value: f64, row: &[f64]) -> [Rough; 3] {
    let exact = (exact.critic)(op, value, row[sample::RETURN], row[sample::OLD_VALUE]);
    let error = (value - row[sample::RETURN]).abs();
    let square = 0.5 * error * error;
    // Difference, coefficient, product, 1/batch, product.
    let derivative = 6.0 * U * exact.d_value.abs();
    match op.value_loss {
        ValueLoss::Mse => {
            [Rough { value, error: 0.0 }, Rough::new(square, 4.0 * U * square), Rough::new(exact.d_value, derivative)]
        }
        ValueLoss::Clipped { clip } => {
            let moved = (value - row[sample::OLD_VALUE]).abs();
            let clipped_value_error = 2.0 * U * moved.min(clip) + U * exact.clipped_value.abs();
            let clipped_error = (exact.clipped_value - row[sample::RETURN]).abs();
            let clipped_square = 0.5 * clipped_error * clipped_error;
            let off = clipped_value_error + U * clipped_error;
            let clipped_square_error = clipped_error * off + 0.5 * off * off + 3.0 * U * clipped_square;
            // Which of two squares that are equal within their errors is larger is no error; nor on which side of the clip's edge.
            let at_edge = (moved - clip).abs() <= 2.0 * U * (moved + clip);
            let undecided = (square - clipped_square).abs() <= 4.0 * U * square + clipped_square_error;
            let jump = if at_edge || (moved > clip && undecided) { op.vf_coef * error / op.batch as f64 } else { 0.0 };
            [
                Rough::new(exact.clipped_value, clipped_value_error),
                Rough::new(exact.v_loss, clipped_square_error.max(4.0 * U * square)),
                Rough::new(exact.d_value, derivative.max(6.0 * U * jump) + jump),
            ]
        }
        ValueLoss::Huber { delta } => {
            // A division of 2.5 ULP and the rounding of delta on top.
            let linear = if error < 0.999 * delta { 0.0 } else { 3.0 * U * (error + delta) };
            [
                Rough { value, error: 0.0 },
                Rough::new(exact.v_loss, 10.0 * U * exact.v_loss + linear),
                Rough::new(exact.d_value, derivative + 6.0 * U * exact.d_value.abs()),
            ]
        }
    }
}

/// A sum over samples: of errors, and of the magnitudes that each addition rounds.
#[derive(Debug, Clone, Copy, Default)]
struct RoughSum {
    value: f64,
    errors: f64,
    magnitudes: f64,
}

impl RoughSum {
    fn add(&mut self, x: Rough) {
        self.value += x.value;
        self.errors += x.error;
        self.magnitudes += x.value.abs();
    }

    /// After `roundings` additions in a row, at most, for each addend.
    fn total(&self, roundings: f64) -> Rough {
        Rough::new(self.value, self.errors + roundings * U * (self.magnitudes + self.errors))
    }
}

#[derive(Debug, Default)]
struct Statistics {
    pg_loss: RoughSum,
    v_loss: RoughSum,
    entropy: RoughSum,
    k1: RoughSum,
    k3: RoughSum,
    outside: RoughSum,
    kl_penalty: RoughSum,
}

/// Additions between one sample and the sum over the batch: twice 16 in its workgroup, a 32nd of the workgroups, 32 at last.
fn roundings(batch: usize, samples_a_workgroup: usize) -> f64 {
    (32 + batch.div_ceil(samples_a_workgroup).div_ceil(32) + 32) as f64
}

impl Statistics {
    fn add(&mut self, loss: &RoughLoss, entropy: Rough) {
        self.pg_loss.add(loss.pg_loss);
        self.v_loss.add(loss.v_loss);
        self.entropy.add(entropy);
        self.k1.add(loss.log_ratio);
        self.k3.add(loss.k3);
        self.outside.add(loss.outside);
        self.kl_penalty.add(loss.kl_penalty);
    }

    fn bounds(&self, op: &Surrogate, roundings: f64) -> [f64; stat::COLUMNS] {
        let batch = op.batch as f64;
        // A mean is a sum times a rounded 1/batch.
        let mean = |sum: &RoughSum| {
            let total = sum.total(roundings + 2.0);
            (total.error / batch, sum.magnitudes / batch)
        };
        let mut bounds = [0.0; stat::COLUMNS];
        let (mut loss, mut magnitude) = (0.0, 0.0);
        for (column, sum, coefficient) in [
            (stat::PG_LOSS, &self.pg_loss, 1.0),
            (stat::V_LOSS, &self.v_loss, op.vf_coef),
            (stat::ENTROPY, &self.entropy, op.ent_coef.abs()),
            (stat::KL_PENALTY, &self.kl_penalty, op.kl_coef),
            (stat::OLD_APPROX_KL, &self.k1, 0.0),
            (stat::APPROX_KL, &self.k3, 0.0),
            (stat::CLIPFRAC, &self.outside, 0.0),
        ] {
            let (bound, size) = mean(sum);
            bounds[column] = bound;
            if coefficient != 0.0 {
                loss += coefficient * bound;
                magnitude += coefficient * size;
            }
        }
        // A coefficient, a product and up to three additions.
        bounds[stat::LOSS] = unless_overflow(loss + 6.0 * U * magnitude, magnitude);
        bounds
    }
}

fn row_of(samples: &[f64], i: usize) -> &[f64] {
    &samples[i * sample::COLUMNS..][..sample::COLUMNS]
}

impl Surrogate {
    /// Bounds of the elementwise operation.
    pub fn bounds(&self, exact: Exact, logp: &[f64], entropy: &[f64], values: &[f64], samples: &[f64]) -> SurrogateBounds {
        let mut statistics = Statistics::default();
        let (mut terms, mut d_logp, mut d_values) = (vec![0.0; self.batch * term::COLUMNS], Vec::new(), Vec::new());
        for (i, terms) in terms.chunks_exact_mut(term::COLUMNS).enumerate() {
            let loss = RoughLoss::new(self, exact, Rough { value: logp[i], error: 0.0 }, values[i], row_of(samples, i));
            for (column, part) in [
                (term::LOG_RATIO, loss.log_ratio),
                (term::RATIO, loss.ratio),
                (term::CLIPPED_RATIO, loss.clipped_ratio),
                (term::PG_LOSS, loss.pg_loss),
                (term::CLIPPED_VALUE, loss.clipped_value),
                (term::V_LOSS, loss.v_loss),
            ] {
                terms[column] = part.error;
            }
            d_logp.push(loss.d_logp.error);
            d_values.push(loss.d_value.error);
            statistics.add(&loss, Rough { value: entropy[i], error: 0.0 });
        }
        let stats = statistics.bounds(self, roundings(self.batch, WORKGROUP_SIZE));
        SurrogateBounds { terms, d_logp, d_values, stats }
    }

    /// Bounds of the operation through a categorical head.
    pub fn categorical_bounds(
        &self,
        exact: Exact,
        policy: &Categorical,
        logits: &[f64],
        mask: Option<&[u32]>,
        actions: &[u32],
        values: &[f64],
        samples: &[f64],
    ) -> CategoricalBounds {
        let mut statistics = Statistics::default();
        let (mut d_logits, mut d_values) = (Vec::new(), Vec::new());
        for (i, &value) in values.iter().enumerate().take(self.batch) {
            let row = i * policy.actions..(i + 1) * policy.actions;
            let valid = |j: usize| mask.is_none_or(|mask| mask[row.start + j] != 0);
            let softmax = RoughSoftmax::new(&logits[row.clone()], valid);
            let action = actions[i] as usize;
            let chosen = action < policy.actions && valid(action);
            let logp = if chosen { softmax.log_prob(action) } else { Rough::default() };
            let loss = RoughLoss::new(self, exact, logp, value, row_of(samples, i));
            let slope = if chosen { loss.d_logp } else { Rough::default() };
            let entropy_slope = self.ent_coef.abs() / self.batch as f64;
            d_logits.extend((0..policy.actions).map(|j| softmax.gradient_bound(j, j == action, slope, entropy_slope)));
            d_values.push(loss.d_value.error);
            statistics.add(&loss, softmax.entropy);
        }
        let roundings = roundings(self.batch, WORKGROUP_SIZE / lanes(policy.actions));
        CategoricalBounds { d_logits, d_values, stats: statistics.bounds(self, roundings) }
    }

    /// Bounds of the operation through a Gaussian head. `log_std` is where it starts.
    pub fn gaussian_bounds(
        &self,
        exact: Exact,
        policy: &Gaussian,
        mean: &[f64],
        log_std: &[f64],
        actions: &[f64],
        values: &[f64],
        samples: &[f64],
    ) -> GaussianBounds {
        let mut statistics = Statistics::default();
        let (mut d_mean, mut own_d_log_std, mut d_values) = (Vec::new(), Vec::new(), Vec::new());
        let mut shared_d_log_std = vec![RoughSum::default(); policy.dim];
        let entropy_slope = self.ent_coef.abs() / self.batch as f64;
        for (i, &value) in values.iter().enumerate().take(self.batch) {
            let row = i * policy.dim..(i + 1) * policy.dim;
            let first = if policy.state_dependent_std { row.start } else { 0 };
            let log_std = &log_std[first..first + policy.dim];
            let gaussian = RoughGaussian::new(&mean[row.clone()], log_std, &actions[row]);
            let sample = row_of(samples, i);
            // old_logp is subtracted before the last three additions; each of their results is the log ratio and what is still to come.
            let log_ratio = (gaussian.logp.value - sample[sample::OLD_LOGP]).abs();
            let logp = Rough::new(gaussian.logp.value, gaussian.logp.error + 3.0 * U * log_ratio);
            let loss = RoughLoss::new(self, exact, logp, value, sample);
            for (d, &(z, inverse_std)) in gaussian.scaled.iter().enumerate() {
                let slope = loss.d_logp;
                let (z_abs, scale) = (z.value.abs(), inverse_std.value);
                let pull = slope.value.abs() * z_abs * scale;
                let d_mean_error = slope.error * z_abs * scale
                    + slope.value.abs() * (z.error * scale + z_abs * inverse_std.error)
                    + 3.0 * U * pull;
                d_mean.push(unless_overflow(d_mean_error, pull));
                let curvature = (z.value * z.value - 1.0).abs();
                let curvature_error = (2.0 * z_abs + z.error) * z.error + 2.0 * U * (z.value * z.value + 1.0);
                let widened = Rough::new(
                    slope.value * curvature,
                    slope.error * curvature
                        + (slope.value.abs() + slope.error) * curvature_error
                        + U * slope.value.abs() * curvature,
                );
                shared_d_log_std[d].add(widened);
                own_d_log_std.push(widened.error + 4.0 * U * (widened.value.abs() + entropy_slope));
            }
            d_values.push(loss.d_value.error);
            statistics.add(&loss, gaussian.entropy);
        }
        // Within the workgroup up to 256 samples one after the other, and where there are few dimensions fewer, but then several sums.
        let additions = roundings(self.batch, WORKGROUP_SIZE) + WORKGROUP_SIZE as f64;
        let total = |sum: &RoughSum| {
            let total = sum.total(additions);
            total.error + 3.0 * U * (total.value.abs() + self.ent_coef.abs())
        };
        let d_log_std = if policy.state_dependent_std { own_d_log_std } else { shared_d_log_std.iter().map(total).collect() };
        let stats = statistics.bounds(self, roundings(self.batch, WORKGROUP_SIZE));
        GaussianBounds { d_mean, d_log_std, d_values, stats }
    }
}

/// A row of logits, with what is uncertain of its log-softmax.
struct RoughSoftmax {
    /// logit − largest, `None` where it is not valid.
    z: Vec<Option<f64>>,
    /// Relative error of the sum of e^z.
    sum_error: f64,
    sum: f64,
    log_sum: Rough,
    entropy: Rough,
}

impl RoughSoftmax {
    fn new(logits: &[f64], valid: impl Fn(usize) -> bool) -> Self {
        let valid_logits = logits.iter().enumerate().map(|(j, &logit)| valid(j).then_some(logit));
        let largest = valid_logits.clone().flatten().fold(f64::MIN, f64::max);
        let z: Vec<Option<f64>> = valid_logits.map(|logit| logit.map(|logit| logit - largest)).collect();
        let additions = logits.len() as f64 * U;
        let (mut sum, mut others, mut others_error, mut weighted, mut weighted_error) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &z in z.iter().flatten() {
            let e = z.exp();
            sum += e;
            if z < 0.0 {
                others += e;
                others_error += e * (exp_error(z) + additions) + TINY;
                weighted -= z * e;
                weighted_error -= z * (e * (exp_error(z) + additions + 3.0 * U) + TINY);
            } else {
                others_error += additions;
            }
        }
        let sum = f64::max(sum, 1.0);
        let sum_error = others_error / sum + U;
        // log: 3 ULP, near 1 an absolute 2⁻²¹ = 8u (the fused kernel's series is better there, the composition's log may not be).
        let log_error = 9.0 * U + 10.0 * U * sum.ln();
        let log_sum =
            Rough::new(if others > 0.0 || sum > 1.0 { (sum - 1.0).max(others).ln_1p() } else { 0.0 }, sum_error + log_error);
        let spread = weighted / sum;
        let spread_error = weighted_error / sum + spread * (sum_error + 6.0 * U);
        let entropy = log_sum.value + spread;
        Self { z, sum_error, sum, log_sum, entropy: Rough::new(entropy, log_sum.error + spread_error + 2.0 * U * entropy) }
    }

    fn log_prob(&self, action: usize) -> Rough {
        let z = self.z[action].unwrap_or(0.0);
        let logp = z - self.log_sum.value;
        Rough::new(logp, U * z.abs() + self.log_sum.error + 2.0 * U * logp.abs())
    }

    /// Of slope·(1[chosen] − p) + entropy_slope·p·(log p + H).
    fn gradient_bound(&self, j: usize, chosen: bool, slope: Rough, entropy_slope: f64) -> f64 {
        let Some(z) = self.z[j] else { return 0.0 };
        let p = z.exp() / self.sum;
        let p_error = p * (exp_error(z) + self.sum_error + 6.0 * U) + TINY;
        let pull = if chosen { 1.0 - p } else { p };
        let pull_error = p_error + if chosen { U } else { 0.0 };
        let surprise = (z - self.log_sum.value).abs() + self.entropy.value;
        let surprise_error = U * z.abs() + self.log_sum.error + self.entropy.error + 2.0 * U * surprise;
        let through_entropy = p_error * surprise + p * surprise_error + 4.0 * U * p * surprise;
        let through_logp = slope.error * pull + (slope.value.abs() + slope.error) * pull_error + U * slope.value.abs() * pull;
        let size = slope.value.abs() * pull + entropy_slope * p * surprise;
        unless_overflow(through_logp + entropy_slope * through_entropy + U * size, size)
    }
}

/// One sample of a diagonal Gaussian.
struct RoughGaussian {
    /// (action − mean)/std and 1/std of each dimension.
    scaled: Vec<(Rough, Rough)>,
    logp: Rough,
    entropy: Rough,
}

impl RoughGaussian {
    fn new(mean: &[f64], log_std: &[f64], actions: &[f64]) -> Self {
        let additions = (mean.len() + 6) as f64 * U;
        let (mut logp, mut logp_error, mut entropy, mut entropy_size) = (0.0, 0.0, 0.0, 0.0);
        let mut scaled = Vec::with_capacity(mean.len());
        for ((&mean, &log_std), &action) in mean.iter().zip(log_std).zip(actions) {
            let inverse_std = Rough::new((-log_std).exp(), (-log_std).exp() * exp_error(log_std));
            let z = (action - mean) * inverse_std.value;
            let z = Rough::new(z, z.abs() * (exp_error(log_std) + 2.0 * U));
            let half_square = 0.5 * z.value * z.value;
            let size = half_square + log_std.abs() + HALF_LOG_TWO_PI;
            logp -= half_square + log_std + HALF_LOG_TWO_PI;
            logp_error += z.value.abs() * z.error + 0.5 * z.error * z.error + 2.0 * U * half_square + additions * size;
            entropy += log_std + 0.5 + HALF_LOG_TWO_PI;
            entropy_size += log_std.abs() + 0.5 + HALF_LOG_TWO_PI;
            scaled.push((z, inverse_std));
        }
        Self { scaled, logp: Rough::new(logp, logp_error), entropy: Rough::new(entropy, additions * entropy_size) }
    }
}
