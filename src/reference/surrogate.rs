//! Twin of `shaders/surrogate.wgsl`, and PPO's loss on the CPU: one pass over the samples, gradients included.

use rayon::prelude::*;

use crate::kernels::optimizer::{control, stop};
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::{Surrogate, ValueLoss, sample, stat, term};
use crate::real::Real;
use crate::scratch::with_room;

/// Loss and gradient of one sample. Gradients are of the mean loss.
#[derive(Debug, Clone, Copy)]
pub struct SampleLoss<T> {
    /// logp − old_logp.
    pub log_ratio: T,
    /// e^log_ratio.
    pub ratio: T,
    /// The ratio within its clip.
    pub clipped_ratio: T,
    /// Surrogate loss.
    pub pg_loss: T,
    /// The value within its clip.
    pub clipped_value: T,
    /// Value loss.
    pub v_loss: T,
    /// ratio − 1 − log_ratio.
    pub k3: T,
    /// e^(−log_ratio) − 1 + log_ratio.
    pub kl_penalty: T,
    /// Whether the ratio is beyond its clip.
    pub outside: bool,
    /// Derivative with respect to logp.
    pub d_logp: T,
    /// Derivative with respect to the value.
    pub d_value: T,
}

/// 1/2!, 1/4!, 1/6!, …
const EVEN: [f64; 10] = reciprocal_factorials(2);
/// 1/3!, 1/5!, 1/7!, …
const ODD: [f64; 10] = reciprocal_factorials(3);

const fn reciprocal_factorials(first: usize) -> [f64; 10] {
    let mut all = [0.0; 10];
    let (mut factorial, mut n) = (1.0, 1);
    while n < first + 20 {
        if n >= first && (n - first).is_multiple_of(2) {
            all[(n - first) / 2] = 1.0 / factorial;
        }
        n += 1;
        factorial *= n as f64;
    }
    all
}

/// eˣ − 1 − x and e⁻ˣ − 1 + x, whose terms cancel for small x: there by their series, split into even and odd powers.
pub fn exp_residuals<T: Real>(x: T, exp_x: T) -> (T, T) {
    if x.abs() >= T::one() {
        return (exp_x - T::one() - x, (-x).exp() - T::one() + x);
    }
    // As many terms as f64 needs below 1, or f32.
    let terms = if T::UNIT_ROUNDOFF < 1e-12 { 10 } else { 6 };
    let x2 = x * x;
    let series = |terms: &[f64]| terms.iter().rev().fold(T::zero(), |sum, &c| T::of(c) + x2 * sum);
    let (even, odd) = (series(&EVEN[..terms]), x * series(&ODD[..terms]));
    (x2 * (even + odd), x2 * (even - odd))
}

/// The policy's part: surrogate loss and KL penalty, d_logp and all that follows from the ratio. The log-probability comes unrounded: the log ratio
/// is far smaller, and the rounding would be all of its error.
fn policy_loss<T: Real>(op: &Surrogate, logp: f64, row: &[T]) -> SampleLoss<T> {
    let zero = T::zero();
    let (log_ratio, advantage) = (T::of(logp - row[sample::OLD_LOGP].f64()), row[sample::ADVANTAGE]);
    let [low, high, dual_clip] = [1.0 - op.clip_low, 1.0 + op.clip_high, op.dual_clip.unwrap_or(f64::INFINITY)].map(T::of);
    let ratio = log_ratio.exp();
    let clipped_ratio = if ratio < low {
        low
    } else if ratio > high {
        high
    } else {
        ratio
    };
    let (mut pg_loss, mut slope) = (-advantage * ratio, -advantage);
    if (advantage > zero && ratio > high) || (advantage < zero && ratio < low) {
        (pg_loss, slope) = (-advantage * clipped_ratio, zero);
    }
    if advantage < zero && ratio >= dual_clip {
        // torch.min of two equal arguments gives half the gradient to each.
        let half = if ratio == dual_clip { T::of(-0.5) * advantage } else { zero };
        (pg_loss, slope) = (-advantage * dual_clip, half);
    }
    // Not 0·∞ where the clip has removed an infinite ratio.
    let mut d_log_ratio = if slope == zero { zero } else { slope * ratio };
    let (k3, kl_penalty) = exp_residuals(log_ratio, ratio);
    if op.kl_coef != 0.0 {
        let small = log_ratio.abs() < T::one();
        let derivative = if small { log_ratio - kl_penalty } else { T::one() - (-log_ratio).exp() };
        d_log_ratio += T::of(op.kl_coef) * derivative;
    }
    SampleLoss {
        log_ratio,
        ratio,
        clipped_ratio,
        pg_loss,
        clipped_value: zero,
        v_loss: zero,
        k3,
        kl_penalty,
        outside: ratio < low || ratio > high,
        d_logp: d_log_ratio / T::of(op.batch as f64),
        d_value: zero,
    }
}

/// (clipped value, loss, derivative).
fn value_loss<T: Real>(op: &Surrogate, value: T, row: &[T]) -> (T, T, T) {
    let half = T::of(0.5);
    let (target, old_value) = (row[sample::RETURN], row[sample::OLD_VALUE]);
    let error = value - target;
    let square = half * error * error;
    let (clipped_value, loss, slope) = match op.value_loss {
        ValueLoss::Mse => (value, square, error),
        ValueLoss::Clipped { clip } => {
            let clip = T::of(clip);
            let moved = value - old_value;
            let clipped_value = old_value + moved.max(-clip).min(clip);
            let clipped_error = clipped_value - target;
            let clipped_square = half * clipped_error * clipped_error;
            // torch.max of two equal arguments gives half the gradient to each; that of the clipped value passes on nothing beyond the clip.
            let share = if moved.abs() <= clip || clipped_square < square {
                T::one()
            } else if clipped_square == square {
                half
            } else if clipped_square > square {
                T::zero()
            } else {
                T::nan()
            };
            (clipped_value, if clipped_square > square { clipped_square } else { square }, share * error)
        }
        ValueLoss::Huber { delta } => {
            let delta = T::of(delta);
            if error.abs() < delta {
                (value, half * error * (error / delta), error / delta)
            } else {
                (value, error.abs() - half * delta, error.signum())
            }
        }
    };
    (clipped_value, loss, T::of(op.vf_coef) * slope / T::of(op.batch as f64))
}

/// All of one sample.
pub fn sample_loss<T: Real>(op: &Surrogate, logp: f64, value: T, row: &[T]) -> SampleLoss<T> {
    let (clipped_value, v_loss, d_value) = value_loss(op, value, row);
    SampleLoss { clipped_value, v_loss, d_value, ..policy_loss(op, logp, row) }
}

/// Sums over samples, of what the statistics are means of.
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Sums {
    pg_loss: f64,
    v_loss: f64,
    entropy: f64,
    k1: f64,
    k3: f64,
    outside: f64,
    kl_penalty: f64,
}

impl Sums {
    fn count<T: Real>(&mut self, loss: &SampleLoss<T>, entropy: T) {
        self.pg_loss += loss.pg_loss.f64();
        self.v_loss += loss.v_loss.f64();
        self.entropy += entropy.f64();
        self.k1 -= loss.log_ratio.f64();
        self.k3 += loss.k3.f64();
        self.outside += f64::from(u8::from(loss.outside));
        self.kl_penalty += loss.kl_penalty.f64();
    }

    /// Means over `op.batch` samples, into the row of `stats`.
    pub(super) fn write<T: Real>(&self, op: &Surrogate, stats: &mut [T]) {
        let mean = |sum: f64| sum / op.batch as f64;
        let kl_penalty = if op.kl_coef == 0.0 { 0.0 } else { op.kl_coef * mean(self.kl_penalty) };
        let loss = mean(self.pg_loss) - op.ent_coef * mean(self.entropy) + op.vf_coef * mean(self.v_loss) + kl_penalty;
        let row = &mut stats[op.stats_row * stat::COLUMNS..][..stat::COLUMNS];
        for (column, value) in [
            (stat::LOSS, loss),
            (stat::PG_LOSS, mean(self.pg_loss)),
            (stat::V_LOSS, mean(self.v_loss)),
            (stat::ENTROPY, mean(self.entropy)),
            (stat::OLD_APPROX_KL, mean(self.k1)),
            (stat::APPROX_KL, mean(self.k3)),
            (stat::CLIPFRAC, mean(self.outside)),
            (stat::KL_PENALTY, mean(self.kl_penalty)),
        ] {
            row[column] = T::of(value);
        }
    }
}

impl std::ops::Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            pg_loss: self.pg_loss + other.pg_loss,
            v_loss: self.v_loss + other.v_loss,
            entropy: self.entropy + other.entropy,
            k1: self.k1 + other.k1,
            k3: self.k3 + other.k3,
            outside: self.outside + other.outside,
            kl_penalty: self.kl_penalty + other.kl_penalty,
        }
    }
}

impl std::iter::Sum for Sums {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| sum + part)
    }
}

/// Samples a thread takes at once, so that a small minibatch stays on one: it is done before another thread has woken up.
fn chunk_rows(width: usize) -> usize {
    ((1 << 14) / width).max(1)
}

/// From log-probabilities, for any distribution.
pub fn surrogate<T: Real>(
    op: &Surrogate,
    logp: &[T],
    entropy: &[T],
    values: &[T],
    samples: &[T],
    terms: &mut [T],
    d_logp: &mut [T],
    d_values: &mut [T],
    stats: &mut [T],
) {
    let chunk = chunk_rows(1);
    let work = |c: usize, terms: &mut [T], d_logp: &mut [T], d_values: &mut [T]| {
        let mut sums = Sums::default();
        let rows = terms.chunks_exact_mut(term::COLUMNS).zip(d_logp).zip(d_values);
        for (i, ((terms, d_logp), d_value)) in rows.enumerate().map(|(k, row)| (c * chunk + k, row)) {
            let loss = sample_loss(op, logp[i].f64(), values[i], &samples[i * sample::COLUMNS..][..sample::COLUMNS]);
            terms.fill(T::zero());
            terms[term::LOG_RATIO] = loss.log_ratio;
            terms[term::RATIO] = loss.ratio;
            terms[term::CLIPPED_RATIO] = loss.clipped_ratio;
            terms[term::PG_LOSS] = loss.pg_loss;
            terms[term::CLIPPED_VALUE] = loss.clipped_value;
            terms[term::V_LOSS] = loss.v_loss;
            (*d_logp, *d_value) = (loss.d_logp, loss.d_value);
            sums.count(&loss, entropy[i]);
        }
        sums
    };
    let (terms, d_logp, d_values) = (&mut terms[..op.batch * term::COLUMNS], &mut d_logp[..op.batch], &mut d_values[..op.batch]);
    let chunks = terms.par_chunks_mut(chunk * term::COLUMNS).zip(d_logp.par_chunks_mut(chunk));
    let chunks = chunks.zip(d_values.par_chunks_mut(chunk)).enumerate();
    // Kept before they are added: a parallel sum would have no fixed order.
    let sums = with_room(op.batch.div_ceil(chunk), |parts: &mut [Sums]| {
        chunks.zip(&mut *parts).for_each(|((c, ((terms, d_logp), d_values)), sums)| *sums = work(c, terms, d_logp, d_values));
        parts.iter().copied().sum::<Sums>()
    });
    sums.write(op, stats);
}

/// A row of logits: what its log-softmax needs.
struct LogSoftmax<T> {
    largest: T,
    /// Σ e^(logit − largest).
    sum: f64,
    log_sum: T,
    entropy: T,
}

/// ln(1 + x) for x ≥ 0, as precise as `f64::ln_1p` and cheaper (Goldberg, What Every Computer Scientist Should Know About
/// Floating-Point Arithmetic, theorem 4).
fn ln_1p(x: f64) -> f64 {
    let next = 1.0 + x;
    if next == 1.0 { x } else { x * next.ln() / (next - 1.0) }
}

/// Leaves e^(logit − largest) in `exps`, 0 where `valid` is not.
fn log_softmax<T: Real>(logits: &[T], valid: impl Fn(usize) -> bool, exps: &mut [T]) -> LogSoftmax<T> {
    let mut largest = T::min_value();
    for (j, &logit) in logits.iter().enumerate() {
        if valid(j) && logit > largest {
            largest = logit;
        }
    }
    // The sum without the largest itself: small, and so precise, where one action is all but certain.
    let (mut ties, mut others, mut weighted) = (0.0, 0.0, 0.0);
    for (j, (&logit, exp_z)) in logits.iter().zip(exps.iter_mut()).enumerate() {
        let z = logit - largest;
        *exp_z = if !valid(j) {
            T::zero()
        } else if z == T::zero() {
            T::one()
        } else {
            z.exp()
        };
        if z == T::zero() {
            ties += exp_z.f64();
        } else if *exp_z != T::zero() {
            others += exp_z.f64();
            weighted -= z.f64() * exp_z.f64();
        }
    }
    // A row without a valid action has logp 0 and entropy 0.
    let without_largest: f64 = if ties == 0.0 && others == 0.0 { 0.0 } else { others + (ties - 1.0) };
    let log_sum = T::of(ln_1p(without_largest));
    let entropy = log_sum.f64() + weighted / (1.0 + without_largest);
    LogSoftmax { largest, sum: 1.0 + without_largest, log_sum, entropy: T::of(entropy) }
}

/// The policy's part of one sample through a categorical head; leaves its gradient in `d_logits`.
fn categorical_sample<T: Real>(
    op: &Surrogate,
    logits: &[T],
    mask: Option<&[u32]>,
    action: usize,
    row: &[T],
    d_logits: &mut [T],
) -> (SampleLoss<T>, T) {
    let valid = |j: usize| mask.is_none_or(|mask| mask[j] != 0);
    let softmax = log_softmax(logits, valid, d_logits);
    let (logp, counts) = match logits.get(action) {
        None => (f64::NAN, true),
        Some(_) if !valid(action) => (0.0, false),
        Some(&logit) => (logit.f64() - softmax.largest.f64() - softmax.log_sum.f64(), true),
    };
    let loss = policy_loss(op, logp, row);
    let slope = if counts { loss.d_logp } else { T::zero() };
    let entropy_slope = T::of(-op.ent_coef / op.batch as f64);
    for (j, (gradient, &logit)) in d_logits.iter_mut().zip(logits).enumerate() {
        if !valid(j) {
            continue;
        }
        let p = T::of(gradient.f64() / softmax.sum);
        let chosen = if j == action { T::one() } else { T::zero() };
        *gradient = slope * (chosen - p);
        if p > T::zero() {
            *gradient = *gradient - entropy_slope * p * (logit - softmax.largest - softmax.log_sum + softmax.entropy);
        }
    }
    (loss, softmax.entropy)
}

/// The critic's part of successive samples; every slice starts with the first of them. Means are over `op.batch`.
pub(super) fn value_rows<T: Real>(op: &Surrogate, values: &[T], samples: &[T], d_values: &mut [T]) -> Sums {
    let mut sums = Sums::default();
    for ((&value, row), d) in values.iter().zip(samples.chunks_exact(sample::COLUMNS)).zip(d_values) {
        let (_, v_loss, d_value) = value_loss(op, value, row);
        sums.v_loss += v_loss.f64();
        *d = d_value;
    }
    sums
}

/// The policy's part of successive samples through a categorical head, as [`value_rows`].
pub(super) fn categorical_rows<T: Real>(
    op: &Surrogate,
    width: usize,
    logits: &[T],
    mask: Option<&[u32]>,
    actions: &[u32],
    samples: &[T],
    d_logits: &mut [T],
) -> Sums {
    let mut sums = Sums::default();
    for (i, d_logits) in d_logits.chunks_exact_mut(width).enumerate() {
        let row = i * width..(i + 1) * width;
        let sample = &samples[i * sample::COLUMNS..][..sample::COLUMNS];
        let mask = mask.map(|mask| &mask[row.clone()]);
        let (loss, entropy) = categorical_sample(op, &logits[row], mask, actions[i] as usize, sample, d_logits);
        sums.count(&loss, entropy);
    }
    sums
}

/// Through a categorical head.
pub fn surrogate_categorical<T: Real>(
    op: &Surrogate,
    policy: &Categorical,
    logits: &[T],
    mask: Option<&[u32]>,
    actions: &[u32],
    values: &[T],
    samples: &[T],
    d_logits: &mut [T],
    d_values: &mut [T],
    stats: &mut [T],
) {
    let width = policy.actions;
    let chunk = chunk_rows(width);
    let work = |c: usize, d_logits: &mut [T], d_values: &mut [T]| {
        let first = c * chunk;
        let (logits, mask) = (&logits[first * width..], mask.map(|mask| &mask[first * width..]));
        let samples = &samples[first * sample::COLUMNS..];
        let of_policy = categorical_rows(op, width, logits, mask, &actions[first..], samples, d_logits);
        of_policy + value_rows(op, &values[first..], samples, d_values)
    };
    let (d_logits, d_values) = (&mut d_logits[..op.batch * width], &mut d_values[..op.batch]);
    let chunks = d_logits.par_chunks_mut(chunk * width).zip(d_values.par_chunks_mut(chunk)).enumerate();
    let sums = with_room(op.batch.div_ceil(chunk), |parts: &mut [Sums]| {
        chunks.zip(&mut *parts).for_each(|((c, (d_logits, d_values)), sums)| *sums = work(c, d_logits, d_values));
        parts.iter().copied().sum::<Sums>()
    });
    sums.write(op, stats);
}

/// Log-probability and entropy of one sample of a diagonal Gaussian; leaves (action − mean)/std in `z`.
fn gaussian_sample<T: Real>(mean: &[T], log_std: &[T], inverse_std: &[T], action: &[T], z: &mut [T]) -> (f64, T) {
    let (mut squares, mut log_stds) = (0.0, 0.0);
    for ((((z, &mean), &log_std), &inverse_std), &action) in z.iter_mut().zip(mean).zip(log_std).zip(inverse_std).zip(action) {
        *z = (action - mean) * inverse_std;
        squares += z.f64() * z.f64();
        log_stds += log_std.f64();
    }
    let half_log_2pi = 0.5 * (2.0 * std::f64::consts::PI).ln();
    let dim = mean.len() as f64;
    (-0.5 * squares - (log_stds + dim * half_log_2pi), T::of(log_stds + dim * (0.5 + half_log_2pi)))
}

/// 1/σ of each dimension.
fn invert_std<T: Real>(log_std: &[T], inverse_std: &mut [T]) {
    inverse_std.iter_mut().zip(log_std).for_each(|(inverse, &log_std)| *inverse = (-log_std).exp());
}

/// Where the gradient with respect to the log-std goes.
pub(super) enum StdGradient<'a, T> {
    /// Of a state-dependent one: a row a sample.
    Own(&'a mut [T]),
    /// Of a shared one: the sum over the samples, without the entropy's part.
    Shared(&'a mut [f64]),
}

/// The policy's part of successive samples through a diagonal Gaussian head, as [`value_rows`].
pub(super) fn gaussian_rows<T: Real>(
    op: &Surrogate,
    dim: usize,
    mean: &[T],
    log_std: &[T],
    actions: &[T],
    samples: &[T],
    d_mean: &mut [T],
    mut d_log_std: StdGradient<'_, T>,
) -> Sums {
    with_room(dim, |inverse_std: &mut [T]| {
        let entropy_slope = -op.ent_coef / op.batch as f64;
        let mut sums = Sums::default();
        if let StdGradient::Shared(shared) = &mut d_log_std {
            shared.fill(0.0);
            invert_std(&log_std[..dim], inverse_std);
        }
        for (i, d_mean) in d_mean.chunks_exact_mut(dim).enumerate() {
            let row = i * dim..(i + 1) * dim;
            let log_std = match d_log_std {
                StdGradient::Own(_) => {
                    invert_std(&log_std[row.clone()], inverse_std);
                    &log_std[row.clone()]
                }
                StdGradient::Shared(_) => &log_std[..dim],
            };
            // Until the loss is known, d_mean holds z.
            let (logp, entropy) = gaussian_sample(&mean[row.clone()], log_std, inverse_std, &actions[row.clone()], d_mean);
            let loss = policy_loss(op, logp, &samples[i * sample::COLUMNS..][..sample::COLUMNS]);
            let curvature = |z: T| (loss.d_logp * (z * z - T::one())).f64();
            match &mut d_log_std {
                StdGradient::Own(own) => {
                    let own = own[row].iter_mut().zip(d_mean.iter());
                    own.for_each(|(own, &z)| *own = T::of(curvature(z) + entropy_slope));
                }
                StdGradient::Shared(shared) => shared.iter_mut().zip(d_mean.iter()).for_each(|(sum, &z)| *sum += curvature(z)),
            }
            d_mean.iter_mut().zip(&*inverse_std).for_each(|(z, &inverse_std)| *z = loss.d_logp * *z * inverse_std);
            sums.count(&loss, entropy);
        }
        sums
    })
}

/// Through a diagonal Gaussian head. `d_log_std` is where the gradient starts.
pub fn surrogate_gaussian<T: Real>(
    op: &Surrogate,
    policy: &Gaussian,
    mean: &[T],
    log_std: &[T],
    actions: &[T],
    values: &[T],
    samples: &[T],
    d_mean: &mut [T],
    d_log_std: &mut [T],
    d_values: &mut [T],
    stats: &mut [T],
) {
    let dim = policy.dim;
    let log_std = &log_std[policy.log_std_offset..];
    let chunk = chunk_rows(dim);
    let work = |c: usize, d_mean: &mut [T], d_values: &mut [T], d_log_std: StdGradient<'_, T>| {
        let first = c * chunk;
        let log_std = if policy.state_dependent_std { &log_std[first * dim..] } else { log_std };
        let (mean, actions) = (&mean[first * dim..], &actions[first * dim..]);
        let samples = &samples[first * sample::COLUMNS..];
        let of_policy = gaussian_rows(op, dim, mean, log_std, actions, samples, d_mean, d_log_std);
        of_policy + value_rows(op, &values[first..], samples, d_values)
    };
    let chunks = op.batch.div_ceil(chunk);
    let d_means = d_mean[..op.batch * dim].par_chunks_mut(chunk * dim);
    let outputs = d_means.zip(d_values[..op.batch].par_chunks_mut(chunk)).enumerate();
    let sums = with_room(chunks, |parts: &mut [Sums]| {
        if policy.state_dependent_std {
            let own = d_log_std[..op.batch * dim].par_chunks_mut(chunk * dim);
            let all = outputs.zip(own).zip(&mut *parts);
            all.for_each(|(((c, (d_mean, d_values)), own), sums)| *sums = work(c, d_mean, d_values, StdGradient::Own(own)));
        } else {
            with_room(chunks * dim, |shared: &mut [f64]| {
                let all = outputs.zip(shared.par_chunks_mut(dim)).zip(&mut *parts);
                all.for_each(|(((c, (d_mean, d_values)), shared), sums)| {
                    *sums = work(c, d_mean, d_values, StdGradient::Shared(shared));
                });
                for (d, gradient) in d_log_std[..dim].iter_mut().enumerate() {
                    *gradient = T::of(shared.iter().skip(d).step_by(dim).sum::<f64>() - op.ent_coef);
                }
            });
        }
        parts.iter().copied().sum::<Sums>()
    });
    sums.write(op, stats);
}

/// The stop word becomes TARGET_KL if nothing stopped before and approx_kl > threshold. The threshold counts as the `f32` that the device gets.
pub fn stop_on_kl<T: Real>(threshold: f64, stats_row: usize, stats: &[T], control: &mut [u32]) {
    let approx_kl = stats[stats_row * stat::COLUMNS + stat::APPROX_KL].f64();
    if control[control::STOP] == stop::NONE && approx_kl > f64::from(threshold as f32) {
        control[control::STOP] = stop::TARGET_KL;
    }
}

#[cfg(test)]
mod tests {
    use super::ln_1p;

    #[test]
    fn the_logarithm_near_one_is_as_precise_as_the_standard_one() {
        let arguments = (-1000..=100).map(|i| 10_f64.powf(f64::from(i) / 10.0));
        let error = |x: f64| (ln_1p(x) / x.ln_1p() - 1.0).abs();
        let worst = arguments.map(error).fold(0.0, f64::max);
        assert!(worst <= 1e-15, "{worst}");
        assert_eq!((ln_1p(0.0), ln_1p(f64::NAN).is_nan()), (0.0, true));
    }
}
