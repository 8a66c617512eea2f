//! Twin of `shaders/policy/gaussian.wgsl`. Everywhere σ = e^s, s the log-std, and z = (x − mean)/σ.

use super::exp_minus_tangent;
use crate::kernels::policy::{
    Gaussian, GaussianBackwardOperands, GaussianEvaluateOperands, GaussianKlBackwardOperands, GaussianKlOperands,
    GaussianSampleOperands, HALF_LOG_TWO_PI, KlArgument, SquashedBackwardOperands, SquashedEvaluateOperands, SquashedGaussian,
};
use crate::real::Real;

/// (mean, s, x) of a row's dimensions.
fn dimensions<T: Real>(op: &Gaussian, row: usize, mean: &[T], log_std: &[T], x: &[T]) -> impl Iterator<Item = [f64; 3]> {
    let at = move |d| [mean[row * op.dim + d], log_std[op.log_std_index(row, d)], x[row * op.dim + d]].map(T::f64);
    (0..op.dim).map(at)
}

/// −½z² − s − ½log 2π.
fn log_density([mean, s, x]: [f64; 3]) -> f64 {
    let z = (x - mean) / s.exp();
    -0.5 * z * z - s - HALF_LOG_TWO_PI
}

/// logp, and the entropy Σ s + ½log 2πe.
pub fn evaluate<T: Real>(op: &Gaussian, operands: GaussianEvaluateOperands<'_, Vec<T>>) {
    let GaussianEvaluateOperands { mean, log_std, actions, logp, entropy } = operands;
    for row in 0..op.batch {
        let dimensions = || dimensions(op, row, mean, log_std, actions);
        logp[row] = T::of(dimensions().map(log_density).sum());
        entropy[row] = T::of(dimensions().map(|[_, s, _]| s + HALF_LOG_TWO_PI + 0.5).sum());
    }
}

/// mean + σ·noise, and its logp.
pub fn sample<T: Real>(op: &Gaussian, operands: GaussianSampleOperands<'_, Vec<T>>) {
    let GaussianSampleOperands { mean, log_std, noise, offset, actions, logp } = operands;
    let first = offset * op.dim;
    for row in 0..op.batch {
        for (d, [mean, s, noise]) in dimensions(op, row, mean, log_std, &noise[first..]).enumerate() {
            actions[first + row * op.dim + d] = T::of(mean + s.exp() * noise);
        }
        let terms = dimensions(op, row, mean, log_std, &noise[first..]).map(|[_, s, noise]| log_density([0.0, 0.0, noise]) - s);
        logp[offset + row] = T::of(terms.sum());
    }
}

/// Writes `gradient(row, d)` = (to mean, to log-std), the second summed over the batch where it shares the log-std.
fn write_gradients<T: Real>(op: &Gaussian, d_mean: &mut [T], d_log_std: &mut [T], gradient: impl Fn(usize, usize) -> (f64, f64)) {
    for d in 0..op.dim {
        let mut sum = 0.0;
        for row in 0..op.batch {
            let (to_mean, to_log_std) = gradient(row, d);
            sum = if op.state_dependent_std { to_log_std } else { sum + to_log_std };
            d_mean[row * op.dim + d] = T::of(to_mean);
            d_log_std[op.log_std_index(row, d) - op.log_std_offset] = T::of(sum);
        }
    }
}

/// d_logp·z/σ and d_logp·(z² − 1): 0 where d_logp is, even if z is infinite.
fn through_logp(d_logp: f64, mean: f64, s: f64, x: f64) -> (f64, f64) {
    let z = (x - mean) / s.exp();
    if d_logp == 0.0 { (0.0, 0.0) } else { (d_logp * z / s.exp(), d_logp * (z * z - 1.0)) }
}

/// d_logp·z/σ and d_logp·(z² − 1) + d_entropy.
pub fn backward<T: Real>(op: &Gaussian, operands: GaussianBackwardOperands<'_, Vec<T>>) {
    let GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset } = operands;
    write_gradients(op, d_mean, &mut d_log_std[d_log_std_offset..], |row, d| {
        let (i, s) = (row * op.dim + d, log_std[op.log_std_index(row, d)].f64());
        let (to_mean, to_log_std) = through_logp(d_logp[row].f64(), mean[i].f64(), s, actions[i].f64());
        (to_mean, to_log_std + d_entropy[row].f64())
    });
}

/// KL(p ‖ q) = Σ ½(e^t − 1 − t) + ½z², t = 2(p's s − q's s), z = (p's mean − q's mean)/q's σ.
pub fn kl<T: Real>(op: &Gaussian, operands: GaussianKlOperands<'_, Vec<T>>) {
    let GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl } = operands;
    for (row, kl) in kl.iter_mut().take(op.batch).enumerate() {
        let term = |d| {
            let (i, s) = (row * op.dim + d, op.log_std_index(row, d));
            let z = (p_mean[i].f64() - q_mean[i].f64()) / q_log_std[s].f64().exp();
            0.5 * exp_minus_tangent(2.0 * (p_log_std[s].f64() - q_log_std[s].f64())) + 0.5 * z * z
        };
        *kl = T::of((0..op.dim).map(term).sum());
    }
}

/// d_kl·z/σ and d_kl·(e^t − 1) for p, −d_kl·z/σ and −d_kl·(e^t − 1 + z²) for q; σ is q's.
pub fn kl_backward<T: Real>(op: &Gaussian, argument: KlArgument, operands: GaussianKlBackwardOperands<'_, Vec<T>>) {
    let GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std } = operands;
    write_gradients(op, d_mean, d_log_std, |row, d| {
        let (i, s) = (row * op.dim + d, op.log_std_index(row, d));
        let std = q_log_std[s].f64().exp();
        let z = (p_mean[i].f64() - q_mean[i].f64()) / std;
        let excess = (2.0 * (p_log_std[s].f64() - q_log_std[s].f64())).exp_m1();
        let d_kl = d_kl[row].f64();
        match argument {
            KlArgument::P => (d_kl * z / std, d_kl * excess),
            KlArgument::Q => (-d_kl * z / std, -d_kl * (excess + z * z)),
        }
    });
}

/// low + ½(tanh u + 1)·(high − low), log(1 − tanh²u), and the logp of the scaled action, Σ log N(u) − log(1 − tanh²u) − log ½(high − low).
pub fn squashed_evaluate<T: Real>(op: &SquashedGaussian, operands: SquashedEvaluateOperands<'_, Vec<T>>) {
    let SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp } = operands;
    let width = op.high - op.low;
    for (row, logp) in logp.iter_mut().take(op.gaussian.batch).enumerate() {
        let mut sum = 0.0;
        for (d, [mean, s, u]) in dimensions(&op.gaussian, row, mean, log_std, u).enumerate() {
            let i = row * op.gaussian.dim + d;
            // The sum is rounded, and may lead past the upper end.
            actions[i] = T::of((op.low + 0.5 * (u.tanh() + 1.0) * width).min(op.high));
            // = log 4/(e^u + e^−u)², which is even.
            let squeezed = 2.0 * (std::f64::consts::LN_2 - u.abs() - (-2.0 * u.abs()).exp().ln_1p());
            log_det[i] = T::of(squeezed);
            sum += log_density([mean, s, u]) - squeezed - (0.5 * width).ln();
        }
        *logp = T::of(sum);
    }
}

/// Gradient of d_logp·logp for u that stands still, or, reparameterised, for u = mean + σ·noise: 2·tanh u and 2·tanh u·(u − mean) − 1.
pub fn squashed_backward<T: Real>(op: &SquashedGaussian, reparameterised: bool, operands: SquashedBackwardOperands<'_, Vec<T>>) {
    let SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std } = operands;
    let gaussian = &op.gaussian;
    write_gradients(gaussian, d_mean, d_log_std, |row, d| {
        let (i, s) = (row * gaussian.dim + d, log_std[gaussian.log_std_index(row, d)].f64());
        let (mean, u, d_logp) = (mean[i].f64(), u[i].f64(), d_logp[row].f64());
        let slope = 2.0 * u.tanh();
        if reparameterised { (d_logp * slope, d_logp * (slope * (u - mean) - 1.0)) } else { through_logp(d_logp, mean, s, u) }
    });
}
