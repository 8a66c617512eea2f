//! The loss through a diagonal Gaussian head.

use super::losses::policy_losses;
use super::tile::{LANES, Lanes, column};
use super::{LaneSums, Sums};
use crate::elementary::{exp, vectorised};
use crate::kernels::policy::HALF_LOG_TWO_PI;
use crate::kernels::surrogate::Surrogate;
use crate::layout::sample;
use crate::real::Real;
use crate::scratch::with_scratch;

/// Where the gradient with respect to the log-std goes.
pub(crate) enum StdGradient<'a> {
    /// Of a state-dependent one: a row a sample.
    Own(&'a mut [f32]),
    /// Of a shared one: the sum over the samples, without the entropy's part.
    Shared(&'a mut [f64]),
}

/// The policy's part of successive samples; every slice starts with the first of them. Means are over `op.batch`.
pub(crate) fn gaussian_rows(
    op: &Surrogate,
    dim: usize,
    mean: &[f32],
    log_std: &[f32],
    actions: &[f32],
    samples: &[f32],
    d_mean: &mut [f32],
    mut d_log_std: StdGradient<'_>,
) -> Sums {
    with_scratch(2 * dim * LANES, |scratch: &mut [f32]| {
        let (z, inverse_stds) = scratch.split_at_mut(dim * LANES);
        let mut log_stds = [0.0; LANES];
        if let StdGradient::Shared(shared) = &mut d_log_std {
            shared.fill(0.0);
            inverse_stds.chunks_exact_mut(dim).for_each(|row| row.copy_from_slice(&log_std[..dim]));
            vectorised!(invert_stds(inverse_stds, dim, &mut log_stds));
        }
        let mut sums = LaneSums::new();
        for (tile, d_mean) in d_mean.chunks_mut(LANES * dim).enumerate() {
            let elements = tile * LANES * dim..tile * LANES * dim + d_mean.len();
            let rows = elements.start / dim..elements.end / dim;
            let samples = &samples[rows.start * sample::COLUMNS..rows.end * sample::COLUMNS];
            let d_log_std = match &mut d_log_std {
                StdGradient::Own(own) => {
                    let inverse_stds = &mut inverse_stds[..d_mean.len()];
                    inverse_stds.copy_from_slice(&log_std[elements.clone()]);
                    vectorised!(invert_stds(inverse_stds, dim, &mut log_stds));
                    StdGradient::Own(&mut own[elements.clone()])
                }
                StdGradient::Shared(shared) => StdGradient::Shared(shared),
            };
            let stds = (&*inverse_stds, &log_stds);
            let (mean, actions) = (&mean[elements.clone()], &actions[elements]);
            vectorised!(gaussian_tile(op, dim, mean, stds, actions, samples, d_mean, d_log_std, z, &mut sums));
        }
        sums.total()
    })
}

/// The inverse of each std in place of its logarithm, and the sums of rows of `dim` logarithms.
#[inline(always)]
fn invert_stds(stds: &mut [f32], dim: usize, log_stds: &mut Lanes<f64>) {
    for (sum, row) in log_stds.iter_mut().zip(stds.chunks_exact(dim)) {
        *sum = 0.0;
        for log_std in row {
            *sum += log_std.f64();
        }
    }
    for std in stds {
        *std = exp(-*std);
    }
}

#[inline(always)]
fn gaussian_tile(
    op: &Surrogate,
    dim: usize,
    mean: &[f32],
    (inverse_stds, log_stds): (&[f32], &Lanes<f64>),
    actions: &[f32],
    samples: &[f32],
    d_mean: &mut [f32],
    mut d_log_std: StdGradient<'_>,
    z: &mut [f32],
    sums: &mut LaneSums,
) {
    let rows = mean.len() / dim;
    for (((z, &action), &mean), &inverse_std) in z.iter_mut().zip(actions).zip(mean).zip(inverse_stds) {
        *z = (action - mean) * inverse_std;
    }
    let (mut logp, mut entropy) = ([0.0; LANES], [0.0; LANES]);
    for (i, z) in z.chunks_exact(dim).take(rows).enumerate() {
        let mut squares = 0.0;
        for z in z {
            squares += z.f64() * z.f64();
        }
        logp[i] = -0.5 * squares - (log_stds[i] + dim as f64 * HALF_LOG_TWO_PI);
        entropy[i] = f32::of(log_stds[i] + dim as f64 * (0.5 + HALF_LOG_TWO_PI));
    }
    let loss = policy_losses(op, &logp, &column(samples, sample::OLD_LOGP), &column(samples, sample::ADVANTAGE));
    let entropy_slope = -op.ent_coef / op.batch as f64;
    let of_rows = z.chunks_exact(dim).zip(inverse_stds.chunks_exact(dim)).zip(d_mean.chunks_exact_mut(dim));
    for (i, ((z, inverse_std), d_mean)) in of_rows.enumerate() {
        let d_logp = loss.d_logp[i];
        for ((d_mean, &z), &inverse_std) in d_mean.iter_mut().zip(z).zip(inverse_std) {
            *d_mean = if d_logp == 0.0 { d_logp } else { d_logp * z * inverse_std };
        }
        match &mut d_log_std {
            StdGradient::Own(own) => {
                for (d_log_std, &z) in own[i * dim..][..dim].iter_mut().zip(z) {
                    *d_log_std = f32::of(curvature(d_logp, z) + entropy_slope);
                }
            }
            StdGradient::Shared(shared) => {
                for (sum, &z) in shared.iter_mut().zip(z) {
                    *sum += curvature(d_logp, z);
                }
            }
        }
    }
    sums.add_policy(&loss, &entropy);
}

/// The log-probability's part of the derivative with respect to a log-std: 0, and not 0·∞, where there is none.
#[inline(always)]
fn curvature(d_logp: f32, z: f32) -> f64 {
    if d_logp == 0.0 { 0.0 } else { (d_logp * (z * z - 1.0)).f64() }
}
