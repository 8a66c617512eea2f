//! Twin of `shaders/policy/gaussian.wgsl`.

use crate::kernels::policy::{Gaussian, KlArgument, SquashedGaussian};
use crate::real::Real;

/// ½·log 2π.
pub(in crate::reference) const HALF_LOG_TWO_PI: f64 = 0.918_938_533_204_672_7;

/// −½z² − s − ½log 2π.
fn log_density<T: Real>(z: T, s: T) -> f64 {
    (-T::of(0.5) * z * z - s).f64() - HALF_LOG_TWO_PI
}

/// z = (x − mean)·e^(−s).
fn standardise<T: Real>(x: T, mean: T, s: T) -> T {
    (x - mean) * (-s).exp()
}

/// logp and entropy of every row.
pub fn evaluate<T: Real>(op: &Gaussian, mean: &[T], log_std: &[T], actions: &[T], logp: &mut [T], entropy: &mut [T]) {
    for row in 0..op.batch {
        let (mut sum, mut h) = (0.0, 0.0);
        for d in 0..op.dim {
            let (element, s) = (row * op.dim + d, log_std[op.log_std_index(row, d)]);
            sum += log_density(standardise(actions[element], mean[element], s), s);
            h += s.f64() + HALF_LOG_TWO_PI + 0.5;
        }
        logp[row] = T::of(sum);
        entropy[row] = T::of(h);
    }
}

/// mean + e^s·noise and its logp; `noise`, `actions` and `logp` start at the first row to write.
pub fn sample<T: Real>(op: &Gaussian, mean: &[T], log_std: &[T], noise: &[T], actions: &mut [T], logp: &mut [T]) {
    for (row, logp) in logp.iter_mut().take(op.batch).enumerate() {
        let mut sum = 0.0;
        for d in 0..op.dim {
            let (element, s) = (row * op.dim + d, log_std[op.log_std_index(row, d)]);
            actions[element] = mean[element] + s.exp() * noise[element];
            sum += log_density(noise[element], s);
        }
        *logp = T::of(sum);
    }
}

/// Writes `gradient(row, d)` = (to mean, to log-std), the second summed over the batch where the log-std is shared.
fn write_gradients<T: Real>(op: &Gaussian, d_mean: &mut [T], d_log_std: &mut [T], gradient: impl Fn(usize, usize) -> (T, T)) {
    for d in 0..op.dim {
        let mut sum = 0.0;
        for row in 0..op.batch {
            let (to_mean, to_log_std) = gradient(row, d);
            d_mean[row * op.dim + d] = to_mean;
            sum += to_log_std.f64();
            if op.state_dependent_std {
                d_log_std[row * op.dim + d] = to_log_std;
            }
        }
        if !op.state_dependent_std {
            d_log_std[d] = T::of(sum);
        }
    }
}

/// d_logp·z·e^(−s) and d_logp·(z² − 1): 0, and not 0·∞, where d_logp is 0.
fn through_logp<T: Real>(d_logp: T, z: T, s: T) -> (T, T) {
    if d_logp == T::zero() { (d_logp, d_logp) } else { (d_logp * z * (-s).exp(), d_logp * (z * z - T::one())) }
}

/// d_logp·z·e^(−s) and d_logp·(z² − 1) + d_entropy.
pub fn backward<T: Real>(
    op: &Gaussian,
    mean: &[T],
    log_std: &[T],
    actions: &[T],
    d_logp: &[T],
    d_entropy: &[T],
    d_mean: &mut [T],
    d_log_std: &mut [T],
) {
    write_gradients(op, d_mean, d_log_std, |row, d| {
        let (element, s) = (row * op.dim + d, log_std[op.log_std_index(row, d)]);
        let (of_mean, of_log_std) = through_logp(d_logp[row], standardise(actions[element], mean[element], s), s);
        (of_mean, of_log_std + d_entropy[row])
    });
}

/// e^t − 1 − t, by its series near zero, where the difference would cancel.
fn exp_minus_tangent<T: Real>(t: T) -> T {
    if t.abs() >= T::of(0.5) {
        return t.exp_m1() - t;
    }
    // Σ tⁿ/n! from n = 2; 2⁻¹⁸/18! is below 10⁻²¹.
    let mut sum = T::zero();
    for n in (2..18).rev() {
        sum = (T::one() + sum) * t / T::of(f64::from(n));
    }
    // The loop has made Σ tⁿ⁻¹/n! from n = 2.
    sum * t
}

/// z = (p_mean − q_mean)·e^(−q) and t = 2(p − q) of one row and dimension of (p_mean, p_log_std, q_mean, q_log_std).
fn kl_terms<T: Real>(op: &Gaussian, [p_mean, p_log_std, q_mean, q_log_std]: [&[T]; 4], row: usize, d: usize) -> (T, T, T) {
    let (element, s) = (row * op.dim + d, op.log_std_index(row, d));
    let z = standardise(p_mean[element], q_mean[element], q_log_std[s]);
    (z, T::of(2.0) * (p_log_std[s] - q_log_std[s]), (-q_log_std[s]).exp())
}

/// KL(p ‖ q) of (p_mean, p_log_std, q_mean, q_log_std).
pub fn kl<T: Real>(op: &Gaussian, distributions: [&[T]; 4], kl: &mut [T]) {
    for (row, kl) in kl.iter_mut().take(op.batch).enumerate() {
        let term = |d| {
            let (z, t, _) = kl_terms(op, distributions, row, d);
            (T::of(0.5) * exp_minus_tangent(t) + T::of(0.5) * z * z).f64()
        };
        *kl = T::of((0..op.dim).map(term).sum());
    }
}

/// Derivatives of d_kl·KL(p ‖ q) with respect to mean and log-std of one of the two.
pub fn kl_backward<T: Real>(
    op: &Gaussian,
    argument: KlArgument,
    distributions: [&[T]; 4],
    d_kl: &[T],
    d_mean: &mut [T],
    d_log_std: &mut [T],
) {
    write_gradients(op, d_mean, d_log_std, |row, d| {
        let (z, t, inverse) = kl_terms(op, distributions, row, d);
        match argument {
            KlArgument::P => (d_kl[row] * z * inverse, d_kl[row] * t.exp_m1()),
            KlArgument::Q => (-d_kl[row] * z * inverse, -d_kl[row] * (t.exp_m1() + z * z)),
        }
    });
}

/// log(1 − tanh²u), written with |u| so that nothing cancels.
fn squash_log_det<T: Real>(u: T) -> T {
    let two = T::of(2.0);
    two * (T::of(std::f64::consts::LN_2) - u.abs() - (-two * u.abs()).exp().ln_1p())
}

/// low + (tanh u + 1)/2·(high − low), log(1 − tanh²u), and logp of the scaled action.
pub fn squashed_evaluate<T: Real>(
    op: &SquashedGaussian,
    mean: &[T],
    log_std: &[T],
    u: &[T],
    actions: &mut [T],
    log_det: &mut [T],
    logp: &mut [T],
) {
    let gaussian = &op.gaussian;
    let log_half_width = (0.5 * (op.high - op.low)).ln();
    for row in 0..gaussian.batch {
        let mut sum = 0.0;
        for d in 0..gaussian.dim {
            let (element, s) = (row * gaussian.dim + d, log_std[gaussian.log_std_index(row, d)]);
            // The difference is rounded, and may lead past the upper end.
            actions[element] = T::of((op.low + 0.5 * (u[element].tanh().f64() + 1.0) * (op.high - op.low)).min(op.high));
            log_det[element] = squash_log_det(u[element]);
            sum += log_density(standardise(u[element], mean[element], s), s) - log_det[element].f64() - log_half_width;
        }
        logp[row] = T::of(sum);
    }
}

/// Gradient of d_logp·logp for u that stands still, or, reparameterised, for u = mean + e^s·noise.
pub fn squashed_backward<T: Real>(
    op: &SquashedGaussian,
    reparameterised: bool,
    mean: &[T],
    log_std: &[T],
    u: &[T],
    d_logp: &[T],
    d_mean: &mut [T],
    d_log_std: &mut [T],
) {
    write_gradients(&op.gaussian, d_mean, d_log_std, |row, d| {
        let (element, s) = (row * op.gaussian.dim + d, log_std[op.gaussian.log_std_index(row, d)]);
        if reparameterised {
            let slope = T::of(2.0) * u[element].tanh();
            return (d_logp[row] * slope, d_logp[row] * (slope * (u[element] - mean[element]) - T::one()));
        }
        through_logp(d_logp[row], standardise(u[element], mean[element], s), s)
    });
}
