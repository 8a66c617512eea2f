//! The loss through a categorical head.

use super::losses::policy_losses;
use super::tile::{LANES, Lanes, column, padded, transpose_from, transpose_into};
use super::{LaneSums, Sums};
use crate::elementary::{exp, ln_1p, vectorised};
use crate::kernels::surrogate::Surrogate;
use crate::layout::sample;
use crate::real::Real;
use crate::scratch::with_scratch;

/// Actions from which on those of one sample lie side by side, instead of those of a tile's samples.
const WIDE: usize = 48;
/// Elements of a tile of wide rows, which then stays in the nearest cache with what is made of it.
const WIDE_TILE: usize = 4096;

/// Lanes of which sums stay in registers.
const BLOCK: usize = 16;

/// What a log-softmax needs, from logits `[groups, LANES]`, each column of its own.
struct LogSoftmax {
    largest: Lanes<f32>,
    /// How many logits are the largest.
    ties: Lanes<f64>,
    /// Σ e^(logit − largest) over all others.
    others: Lanes<f64>,
    /// Σ (largest − logit)·e^(logit − largest).
    weighted: Lanes<f64>,
}

impl LogSoftmax {
    #[inline(always)]
    fn new() -> Self {
        Self { largest: [f32::MIN; LANES], ties: [0.0; LANES], others: [0.0; LANES], weighted: [0.0; LANES] }
    }

    #[inline(always)]
    fn find_largest(&mut self, logits: &[f32]) {
        for first in (0..LANES).step_by(BLOCK) {
            let mut largest = [f32::MIN; BLOCK];
            for group in logits.chunks_exact(LANES) {
                for (largest, &logit) in largest.iter_mut().zip(&group[first..first + BLOCK]) {
                    *largest = if logit > *largest { logit } else { *largest };
                }
            }
            self.largest[first..first + BLOCK].copy_from_slice(&largest);
        }
    }

    /// Leaves logit − largest in `logits` and its exponential in `exps`, and sums these.
    #[inline(always)]
    fn exponentiate(&mut self, logits: &mut [f32], exps: &mut [f32]) {
        for first in (0..LANES).step_by(BLOCK) {
            let (mut ties, mut others, mut weighted) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
            let largest = &self.largest[first..first + BLOCK];
            for (z, exp_z) in logits.chunks_exact_mut(LANES).zip(exps.chunks_exact_mut(LANES)) {
                let (z, exp_z) = (&mut z[first..first + BLOCK], &mut exp_z[first..first + BLOCK]);
                // By itself, or it would be in vectors of as few as there are of f64.
                for i in 0..BLOCK {
                    z[i] -= largest[i];
                    exp_z[i] = exp(z[i]);
                }
                for i in 0..BLOCK {
                    let is_largest = z[i] == 0.0;
                    ties[i] += if is_largest { 1.0 } else { 0.0 };
                    let other = if is_largest { 0.0 } else { exp_z[i] };
                    // Not −∞·0.
                    let distance = if exp_z[i] == 0.0 { 0.0 } else { z[i] };
                    others[i] += other.f64();
                    weighted[i] -= distance.f64() * exp_z[i].f64();
                }
            }
            self.ties[first..first + BLOCK].copy_from_slice(&ties.map(|ties| ties.f64()));
            self.others[first..first + BLOCK].copy_from_slice(&others);
            self.weighted[first..first + BLOCK].copy_from_slice(&weighted);
        }
    }

    /// Of a single row of logits: what its columns come to.
    #[inline(always)]
    fn of_row(row: &mut [f32], exps: &mut [f32]) -> (f32, [f64; 3]) {
        let mut columns = Self::new();
        columns.find_largest(row);
        let mut largest = f32::MIN;
        for &of_column in &columns.largest {
            largest = if of_column > largest { of_column } else { largest };
        }
        columns.largest = [largest; LANES];
        columns.exponentiate(row, exps);
        (largest, [columns.ties, columns.others, columns.weighted].map(|lanes| lanes.iter().sum()))
    }
}

/// Of a tile's samples.
struct Distribution {
    log_sum: Lanes<f32>,
    inverse_sum: Lanes<f32>,
    entropy: Lanes<f32>,
    /// Mean of largest − logit: log p + H is logit − largest plus this.
    mean_distance: Lanes<f32>,
}

impl Distribution {
    #[inline(always)]
    fn new(softmax: &LogSoftmax) -> Self {
        let zeros = [0.0; LANES];
        let mut tile = Self { log_sum: zeros, inverse_sum: zeros, entropy: zeros, mean_distance: zeros };
        for i in 0..LANES {
            // A row without a valid action has logp 0 and entropy 0.
            let is_empty = (softmax.ties[i] == 0.0) & (softmax.others[i] == 0.0);
            // The sum without the largest itself: small, and so precise, where one action is all but certain.
            let others = if is_empty { 0.0 } else { softmax.others[i] + (softmax.ties[i] - 1.0) };
            let inverse_sum = 1.0 / (1.0 + others);
            let mean_distance = softmax.weighted[i] * inverse_sum;
            tile.log_sum[i] = f32::of(ln_1p(others));
            tile.inverse_sum[i] = f32::of(inverse_sum);
            tile.entropy[i] = f32::of(tile.log_sum[i].f64() + mean_distance);
            tile.mean_distance[i] = f32::of(mean_distance);
        }
        tile
    }
}

/// Derivative with respect to a logit, `z` below the largest.
#[inline(always)]
fn logit_gradient(is_taken: bool, z: f32, exp_z: f32, inverse_sum: f32, mean_distance: f32, d_logp: f32, d_entropy: f32) -> f32 {
    let p = exp_z * inverse_sum;
    let through_logp = d_logp * (if is_taken { 1.0 } else { 0.0 } - p);
    // Not −∞·0.
    if p > 0.0 { through_logp - d_entropy * p * (z + mean_distance) } else { through_logp }
}

/// The policy's part of successive samples; every slice starts with the first of them. Means are over `op.batch`.
pub(crate) fn categorical_rows(
    op: &Surrogate,
    width: usize,
    logits: &[f32],
    mask: Option<&[u32]>,
    actions: &[u32],
    samples: &[f32],
    d_logits: &mut [f32],
) -> Sums {
    // A wide row is padded to whole groups of lanes.
    let stride = width.next_multiple_of(LANES);
    let is_wide = width >= WIDE;
    let rows = if is_wide { (WIDE_TILE / stride).clamp(1, LANES) } else { LANES };
    let elements = if is_wide { rows * stride } else { width * LANES };
    with_scratch(2 * elements, |scratch: &mut [f32]| {
        let (z, exps) = scratch.split_at_mut(elements);
        let mut sums = LaneSums::new();
        for (tile, d_logits) in d_logits.chunks_mut(rows * width).enumerate() {
            let elements = tile * rows * width..tile * rows * width + d_logits.len();
            let rows = elements.start / width..elements.end / width;
            let samples = &samples[rows.start * sample::COLUMNS..rows.end * sample::COLUMNS];
            let mask = mask.map(|mask| &mask[elements.clone()]);
            let tile = Tile { width, is_wide, logits: &logits[elements], mask, actions: &actions[rows] };
            vectorised!(tile.loss(op, samples, d_logits, z, exps, &mut sums));
        }
        sums.total()
    })
}

/// At most [`LANES`] samples.
struct Tile<'a> {
    width: usize,
    is_wide: bool,
    logits: &'a [f32],
    mask: Option<&'a [u32]>,
    actions: &'a [u32],
}

impl Tile<'_> {
    #[inline(always)]
    fn loss(self, op: &Surrogate, samples: &[f32], d_logits: &mut [f32], z: &mut [f32], exps: &mut [f32], sums: &mut LaneSums) {
        let softmax = if self.is_wide { self.softmax_by_row(z, exps) } else { self.softmax_by_column(z, exps) };
        let mut distribution = Distribution::new(&softmax);
        distribution.entropy[self.actions.len()..].fill(0.0);
        let logp = self.log_probs(&softmax.largest, &distribution.log_sum);
        let mut loss = policy_losses(op, &logp, &column(samples, sample::OLD_LOGP), &column(samples, sample::ADVANTAGE));
        for (i, d_logp) in loss.d_logp[..self.actions.len()].iter_mut().enumerate() {
            *d_logp = if self.took_invalid(i) { 0.0 } else { *d_logp };
        }
        let d_entropy = f32::of(-op.ent_coef / op.batch as f64);
        if self.is_wide {
            self.gradient_by_row(&distribution, &loss.d_logp, d_entropy, z, exps, d_logits);
        } else {
            self.gradient_by_column(&distribution, &loss.d_logp, d_entropy, z, exps, d_logits);
        }
        if let Some(mask) = self.mask {
            for (d_logit, &valid) in d_logits.iter_mut().zip(mask) {
                *d_logit = if valid == 0 { 0.0 } else { *d_logit };
            }
        }
        sums.add_policy(&loss, &distribution.entropy);
    }

    /// Whether sample `i` took an action that exists and is masked.
    #[inline(always)]
    fn took_invalid(&self, i: usize) -> bool {
        let action = self.actions[i] as usize;
        action < self.width && self.mask.is_some_and(|mask| mask[i * self.width + action] == 0)
    }

    /// Each row of logits in a row of `z [rows, stride]`.
    #[inline(always)]
    fn softmax_by_row(&self, z: &mut [f32], exps: &mut [f32]) -> LogSoftmax {
        let mut softmax = LogSoftmax::new();
        let stride = self.width.next_multiple_of(LANES);
        let rows = z.chunks_exact_mut(stride).zip(exps.chunks_exact_mut(stride)).zip(self.logits.chunks_exact(self.width));
        for (i, ((z, exps), logits)) in rows.enumerate() {
            z[..self.width].copy_from_slice(logits);
            z[self.width..].fill(f32::NEG_INFINITY);
            if let Some(mask) = self.mask {
                for (z, &valid) in z.iter_mut().zip(&mask[i * self.width..][..self.width]) {
                    *z = if valid == 0 { f32::NEG_INFINITY } else { *z };
                }
            }
            (softmax.largest[i], [softmax.ties[i], softmax.others[i], softmax.weighted[i]]) = LogSoftmax::of_row(z, exps);
        }
        softmax
    }

    /// Each row of logits in a column of `z [width, LANES]`.
    #[inline(always)]
    fn softmax_by_column(&self, z: &mut [f32], exps: &mut [f32]) -> LogSoftmax {
        if self.actions.len() < LANES {
            z.fill(0.0);
        }
        transpose_into(self.logits, self.width, z);
        if let Some(mask) = self.mask {
            for (i, mask) in mask.chunks_exact(self.width).enumerate() {
                for (column, &valid) in z.chunks_exact_mut(LANES).zip(mask) {
                    column[i] = if valid == 0 { f32::NEG_INFINITY } else { column[i] };
                }
            }
        }
        let mut softmax = LogSoftmax::new();
        softmax.find_largest(z);
        softmax.exponentiate(z, exps);
        softmax
    }

    /// Of the actions taken: 0 where it is masked, NaN where it does not exist.
    #[inline(always)]
    fn log_probs(&self, largest: &Lanes<f32>, log_sum: &Lanes<f32>) -> Lanes<f64> {
        let mut logp = [0.0; LANES];
        for (i, (&action, logits)) in self.actions.iter().zip(self.logits.chunks_exact(self.width)).enumerate() {
            logp[i] = match logits.get(action as usize) {
                None => f64::NAN,
                Some(_) if self.took_invalid(i) => 0.0,
                Some(&logit) => logit.f64() - largest[i].f64() - log_sum[i].f64(),
            };
        }
        logp
    }

    #[inline(always)]
    fn gradient_by_row(
        &self,
        distribution: &Distribution,
        d_logp: &Lanes<f32>,
        d_entropy: f32,
        z: &[f32],
        exps: &[f32],
        d_logits: &mut [f32],
    ) {
        let stride = self.width.next_multiple_of(LANES);
        let rows = z.chunks_exact(stride).zip(exps.chunks_exact(stride)).zip(d_logits.chunks_exact_mut(self.width));
        for (i, ((z, exps), d_logits)) in rows.enumerate() {
            let (inverse_sum, mean_distance) = (distribution.inverse_sum[i], distribution.mean_distance[i]);
            let (d_logp, taken) = (d_logp[i], self.actions[i]);
            for (j, ((d_logit, &z), &exp_z)) in d_logits.iter_mut().zip(z).zip(exps).enumerate() {
                *d_logit = logit_gradient(j as u32 == taken, z, exp_z, inverse_sum, mean_distance, d_logp, d_entropy);
            }
        }
    }

    /// Leaves the gradient's transpose in `z`.
    #[inline(always)]
    fn gradient_by_column(
        &self,
        distribution: &Distribution,
        d_logp: &Lanes<f32>,
        d_entropy: f32,
        z: &mut [f32],
        exps: &[f32],
        d_logits: &mut [f32],
    ) {
        let Distribution { inverse_sum, mean_distance, .. } = distribution;
        let taken = padded(self.actions);
        for (j, (z, exps)) in z.chunks_exact_mut(LANES).zip(exps.chunks_exact(LANES)).enumerate() {
            for i in 0..LANES {
                let is_taken = j as u32 == taken[i];
                z[i] = logit_gradient(is_taken, z[i], exps[i], inverse_sum[i], mean_distance[i], d_logp[i], d_entropy);
            }
        }
        transpose_from(z, self.width, d_logits);
    }
}
