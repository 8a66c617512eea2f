//! The loss through a diagonal Gaussian head.

use super::losses::policy_losses;
use super::tile::{LANES, Lanes, column};
use super::{LaneSums, Sums};
use crate::elementary::vectorised;
use crate::kernels::surrogate::Surrogate;
use crate::layout::sample;
use crate::real::Real;
use crate::reference::policy::gaussian::HALF_LOG_TWO_PI;
use crate::scratch::with_room;

/// Where the gradient with respect to the log-std goes.
pub(in crate::reference) enum StdGradient<'a, T> {
    /// Of a state-dependent one: a row a sample.
    Own(&'a mut [T]),
    /// Of a shared one: the sum over the samples, without the entropy's part.
    Shared(&'a mut [f64]),
}

/// The policy's part of successive samples; every slice starts with the first of them. Means are over `op.batch`.
pub(in crate::reference) fn gaussian_rows<T: Real>(
    op: &Surrogate,
    dim: usize,
    mean: &[T],
    log_std: &[T],
    actions: &[T],
    samples: &[T],
    d_mean: &mut [T],
    mut d_log_std: StdGradient<'_, T>,
) -> Sums {
    with_room(2 * dim * LANES, |room: &mut [T]| {
        let (z, inverse_stds) = room.split_at_mut(dim * LANES);
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
fn invert_stds<T: Real>(stds: &mut [T], dim: usize, log_stds: &mut Lanes<f64>) {
    for (sum, row) in log_stds.iter_mut().zip(stds.chunks_exact(dim)) {
        *sum = 0.0;
        for log_std in row {
            *sum += log_std.f64();
        }
    }
    for std in stds {
        *std = (-*std).exp_in_loops();
    }
}

#[inline(always)]
fn gaussian_tile<T: Real>(
    op: &Surrogate,
    dim: usize,
    mean: &[T],
    (inverse_stds, log_stds): (&[T], &Lanes<f64>),
    actions: &[T],
    samples: &[T],
    d_mean: &mut [T],
    mut d_log_std: StdGradient<'_, T>,
    z: &mut [T],
    sums: &mut LaneSums,
) {
    let rows = mean.len() / dim;
    for (((z, &action), &mean), &inverse_std) in z.iter_mut().zip(actions).zip(mean).zip(inverse_stds) {
        *z = (action - mean) * inverse_std;
    }
    let (mut logp, mut entropy) = ([0.0; LANES], [T::zero(); LANES]);
    for (i, z) in z.chunks_exact(dim).take(rows).enumerate() {
        let mut squares = 0.0;
        for z in z {
            squares += z.f64() * z.f64();
        }
        logp[i] = -0.5 * squares - (log_stds[i] + dim as f64 * HALF_LOG_TWO_PI);
        entropy[i] = T::of(log_stds[i] + dim as f64 * (0.5 + HALF_LOG_TWO_PI));
    }
    let loss = policy_losses(op, &logp, &column(samples, sample::OLD_LOGP), &column(samples, sample::ADVANTAGE));
    let entropy_slope = -op.ent_coef / op.batch as f64;
    let of_rows = z.chunks_exact(dim).zip(inverse_stds.chunks_exact(dim)).zip(d_mean.chunks_exact_mut(dim));
    for (i, ((z, inverse_std), d_mean)) in of_rows.enumerate() {
        let d_logp = loss.d_logp[i];
        for ((d_mean, &z), &inverse_std) in d_mean.iter_mut().zip(z).zip(inverse_std) {
            *d_mean = d_logp * z * inverse_std;
        }
        match &mut d_log_std {
            StdGradient::Own(own) => {
                for (d_log_std, &z) in own[i * dim..][..dim].iter_mut().zip(z) {
                    *d_log_std = T::of(curvature(d_logp, z) + entropy_slope);
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

/// The log-probability's part of the derivative with respect to a log-std.
#[inline(always)]
fn curvature<T: Real>(d_logp: T, z: T) -> f64 {
    (d_logp * (z * z - T::one())).f64()
}
