//! PPO's loss: one pass over tiles of samples, gradients included.

mod categorical;
mod gaussian;
mod losses;
mod tile;

use rayon::prelude::*;

pub(crate) use self::categorical::categorical_rows;
pub(crate) use self::gaussian::{StdGradient, gaussian_rows};
use self::losses::{critic_losses, policy_losses};
use self::tile::{LANES, Lanes, column, padded};
use crate::elementary::vectorised;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::{CategoricalOperands, CriticLoss, GaussianOperands, PolicyLoss, Surrogate, SurrogateOperands};
use crate::layout::{control, sample, stat, stop, term};
use crate::real::Real;
use crate::scratch::with_scratch;

/// Sums over samples, of what the statistics are means of.
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Sums {
    pg_loss: f64,
    v_loss: f64,
    entropy: f64,
    k1: f64,
    k3: f64,
    outside: f64,
    kl_penalty: f64,
}

impl Sums {
    /// Means over `op.batch` samples, into the row of `stats`.
    pub(crate) fn write(&self, op: &Surrogate, stats: &mut [f32]) {
        let mean = |sum: f64| sum / op.batch as f64;
        // A term with a coefficient of 0 stays out, even if infinite.
        let term = |coef: f64, sum: f64| if coef == 0.0 { 0.0 } else { coef * mean(sum) };
        let loss = mean(self.pg_loss) - term(op.ent_coef, self.entropy)
            + term(op.vf_coef, self.v_loss)
            + term(op.kl_coef, self.kl_penalty);
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
            row[column] = f32::of(value);
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

/// [`Sums`] over the samples that one lane has had in all tiles.
struct LaneSums {
    pg_loss: Lanes<f64>,
    v_loss: Lanes<f64>,
    entropy: Lanes<f64>,
    k1: Lanes<f64>,
    k3: Lanes<f64>,
    outside: Lanes<f64>,
    kl_penalty: Lanes<f64>,
}

impl LaneSums {
    fn new() -> Self {
        let zeros = [0.0; LANES];
        Self { pg_loss: zeros, v_loss: zeros, entropy: zeros, k1: zeros, k3: zeros, outside: zeros, kl_penalty: zeros }
    }

    #[inline(always)]
    fn add_policy(&mut self, loss: &PolicyLoss<Lanes<f32>>, entropy: &Lanes<f32>) {
        for (i, entropy) in entropy.iter().enumerate() {
            self.pg_loss[i] += loss.pg_loss[i].f64();
            self.entropy[i] += entropy.f64();
            self.k1[i] -= loss.log_ratio[i].f64();
            self.k3[i] += loss.k3[i].f64();
            self.outside[i] += loss.outside[i].f64();
            self.kl_penalty[i] += loss.kl_penalty[i].f64();
        }
    }

    #[inline(always)]
    fn add_critic(&mut self, loss: &CriticLoss<Lanes<f32>>) {
        for i in 0..LANES {
            self.v_loss[i] += loss.v_loss[i].f64();
        }
    }

    fn total(&self) -> Sums {
        let Self { pg_loss, v_loss, entropy, k1, k3, outside, kl_penalty } = self;
        let [pg_loss, v_loss, entropy, k1, k3, outside, kl_penalty] =
            [pg_loss, v_loss, entropy, k1, k3, outside, kl_penalty].map(|lanes| lanes.iter().sum());
        Sums { pg_loss, v_loss, entropy, k1, k3, outside, kl_penalty }
    }
}

/// Samples a thread takes at once: whole tiles if it can be, and so many that a small minibatch stays on one thread: it is done before another has
/// woken up.
fn chunk_rows(width: usize) -> usize {
    let rows = (1 << 14) / width;
    if rows > LANES { rows / LANES * LANES } else { rows.max(1) }
}

/// From log-probabilities, for any distribution.
pub fn surrogate(op: &Surrogate, operands: SurrogateOperands<'_, Vec<f32>>) {
    let SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats } = operands;
    let chunk = chunk_rows(1);
    let work = |first: usize, terms: &mut [f32], d_logp: &mut [f32], d_values: &mut [f32]| {
        let mut sums = LaneSums::new();
        let tiles = terms.chunks_mut(LANES * term::COLUMNS).zip(d_logp.chunks_mut(LANES)).zip(d_values.chunks_mut(LANES));
        for (tile, ((terms, d_logp), d_values)) in tiles.enumerate() {
            let rows = first + tile * LANES..first + tile * LANES + d_logp.len();
            let samples = &samples[rows.start * sample::COLUMNS..rows.end * sample::COLUMNS];
            let [logp, entropy, values] = [logp, entropy, values].map(|vector| &vector[rows.clone()]);
            vectorised!(surrogate_tile(op, logp, entropy, values, samples, terms, d_logp, d_values, &mut sums));
        }
        sums.total()
    };
    let (terms, d_logp, d_values) = (&mut terms[..op.batch * term::COLUMNS], &mut d_logp[..op.batch], &mut d_values[..op.batch]);
    let chunks = terms.par_chunks_mut(chunk * term::COLUMNS).zip(d_logp.par_chunks_mut(chunk));
    let chunks = chunks.zip(d_values.par_chunks_mut(chunk)).enumerate();
    // Kept before they are added: a parallel sum would have no fixed order.
    let sums = with_scratch(op.batch.div_ceil(chunk), |parts: &mut [Sums]| {
        let chunks = chunks.zip(&mut *parts);
        chunks.for_each(|((c, ((terms, d_logp), d_values)), sums)| *sums = work(c * chunk, terms, d_logp, d_values));
        parts.iter().copied().sum::<Sums>()
    });
    sums.write(op, stats);
}

#[inline(always)]
fn surrogate_tile(
    op: &Surrogate,
    logp: &[f32],
    entropy: &[f32],
    values: &[f32],
    samples: &[f32],
    terms: &mut [f32],
    d_logp: &mut [f32],
    d_values: &mut [f32],
    sums: &mut LaneSums,
) {
    let mut unrounded = [0.0; LANES];
    unrounded.iter_mut().zip(logp).for_each(|(unrounded, logp)| *unrounded = logp.f64());
    let [old_logp, advantage, target, old_value] =
        [sample::OLD_LOGP, sample::ADVANTAGE, sample::RETURN, sample::OLD_VALUE].map(|name| column(samples, name));
    let policy = policy_losses(op, &unrounded, &old_logp, &advantage);
    let critic = critic_losses(op, &padded(values), &target, &old_value);
    for (i, terms) in terms.chunks_exact_mut(term::COLUMNS).enumerate() {
        terms.fill(0.0);
        terms[term::LOG_RATIO] = policy.log_ratio[i];
        terms[term::RATIO] = policy.ratio[i];
        terms[term::CLIPPED_RATIO] = policy.clipped_ratio[i];
        terms[term::PG_LOSS] = policy.pg_loss[i];
        terms[term::CLIPPED_VALUE] = critic.clipped_value[i];
        terms[term::V_LOSS] = critic.v_loss[i];
    }
    d_logp.copy_from_slice(&policy.d_logp[..d_logp.len()]);
    d_values.copy_from_slice(&critic.d_value[..d_values.len()]);
    sums.add_policy(&policy, &padded(entropy));
    sums.add_critic(&critic);
}

/// The critic's part of successive samples; every slice starts with the first of them. Means are over `op.batch`.
pub(crate) fn value_rows(op: &Surrogate, values: &[f32], samples: &[f32], d_values: &mut [f32]) -> Sums {
    let mut sums = LaneSums::new();
    let tiles = d_values.chunks_mut(LANES).zip(values.chunks(LANES)).zip(samples.chunks(LANES * sample::COLUMNS));
    for ((d_values, values), samples) in tiles {
        vectorised!({
            let rows = d_values.len();
            let samples = &samples[..rows * sample::COLUMNS];
            let [target, old_value] = [sample::RETURN, sample::OLD_VALUE].map(|name| column(samples, name));
            let loss = critic_losses(op, &padded(&values[..rows]), &target, &old_value);
            d_values.copy_from_slice(&loss.d_value[..rows]);
            sums.add_critic(&loss);
        });
    }
    sums.total()
}

/// Through a categorical head.
pub fn surrogate_categorical(op: &Surrogate, policy: &Categorical, operands: CategoricalOperands<'_, Vec<f32>, Vec<u32>>) {
    let CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats } = operands;
    let width = policy.actions;
    let chunk = chunk_rows(width);
    let work = |c: usize, d_logits: &mut [f32], d_values: &mut [f32]| {
        let first = c * chunk;
        let (logits, mask) = (&logits[first * width..], mask.map(|mask| &mask[first * width..]));
        let samples = &samples[first * sample::COLUMNS..];
        let of_policy = categorical_rows(op, width, logits, mask, &actions[first..], samples, d_logits);
        of_policy + value_rows(op, &values[first..], samples, d_values)
    };
    let (d_logits, d_values) = (&mut d_logits[..op.batch * width], &mut d_values[..op.batch]);
    let chunks = d_logits.par_chunks_mut(chunk * width).zip(d_values.par_chunks_mut(chunk)).enumerate();
    let sums = with_scratch(op.batch.div_ceil(chunk), |parts: &mut [Sums]| {
        chunks.zip(&mut *parts).for_each(|((c, (d_logits, d_values)), sums)| *sums = work(c, d_logits, d_values));
        parts.iter().copied().sum::<Sums>()
    });
    sums.write(op, stats);
}

/// Through a diagonal Gaussian head.
pub fn surrogate_gaussian(op: &Surrogate, policy: &Gaussian, operands: GaussianOperands<'_, Vec<f32>>) {
    let GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats } =
        operands;
    let d_log_std = &mut d_log_std[d_log_std_offset..];
    let dim = policy.dim;
    let log_std = &log_std[policy.log_std_offset..];
    let chunk = chunk_rows(dim);
    let work = |c: usize, d_mean: &mut [f32], d_values: &mut [f32], d_log_std: StdGradient<'_>| {
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
    let sums = with_scratch(chunks, |parts: &mut [Sums]| {
        if policy.state_dependent_std {
            let own = d_log_std[..op.batch * dim].par_chunks_mut(chunk * dim);
            let all = outputs.zip(own).zip(&mut *parts);
            all.for_each(|(((c, (d_mean, d_values)), own), sums)| *sums = work(c, d_mean, d_values, StdGradient::Own(own)));
        } else {
            with_scratch(chunks * dim, |shared: &mut [f64]| {
                let all = outputs.zip(shared.par_chunks_mut(dim)).zip(&mut *parts);
                all.for_each(|(((c, (d_mean, d_values)), shared), sums)| {
                    *sums = work(c, d_mean, d_values, StdGradient::Shared(shared));
                });
                for (d, gradient) in d_log_std[..dim].iter_mut().enumerate() {
                    *gradient = f32::of(shared.iter().skip(d).step_by(dim).sum::<f64>() - op.ent_coef);
                }
            });
        }
        parts.iter().copied().sum::<Sums>()
    });
    sums.write(op, stats);
}

/// The stop word becomes TARGET_KL if nothing stopped before and approx_kl > threshold. The threshold counts as the `f32` that the device gets.
pub fn stop_on_kl(threshold: f64, stats_row: usize, stats: &[f32], control: &mut [u32]) {
    let approx_kl = stats[stats_row * stat::COLUMNS + stat::APPROX_KL].f64();
    if control[control::STOP] == stop::NONE && approx_kl > f64::from(threshold as f32) {
        control[control::STOP] = stop::TARGET_KL;
    }
}
