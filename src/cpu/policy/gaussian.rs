//! Diagonal Gaussians and tanh-squashed ones, a row after the other.

use crate::kernels::policy::{
    Gaussian, GaussianBackwardOperands, GaussianEvaluateOperands, GaussianKlBackwardOperands, GaussianKlOperands,
    GaussianSampleOperands, HALF_LOG_TWO_PI, KlArgument, SquashedBackwardOperands, SquashedEvaluateOperands, SquashedGaussian,
};

/// −½z² − s − ½log 2π.
fn log_density(z: f32, s: f32) -> f64 {
    f64::from(-0.5 * z * z - s) - HALF_LOG_TWO_PI
}

/// (x − mean)·e^(−s).
fn standardise(x: f32, mean: f32, s: f32) -> f32 {
    (x - mean) * (-s).exp()
}

/// logp and entropy of every row.
pub fn evaluate(op: &Gaussian, operands: GaussianEvaluateOperands<'_, Vec<f32>>) {
    let GaussianEvaluateOperands { mean, log_std, actions, logp, entropy } = operands;
    for row in 0..op.batch {
        let (mut sum, mut h) = (0.0, 0.0);
        for d in 0..op.dim {
            let (element, s) = (row * op.dim + d, log_std[op.log_std_index(row, d)]);
            sum += log_density(standardise(actions[element], mean[element], s), s);
            h += f64::from(s) + HALF_LOG_TWO_PI + 0.5;
        }
        logp[row] = sum as f32;
        entropy[row] = h as f32;
    }
}

/// mean + e^s·noise and its logp.
pub fn sample(op: &Gaussian, operands: GaussianSampleOperands<'_, Vec<f32>>) {
    let GaussianSampleOperands { mean, log_std, noise, offset, actions, logp } = operands;
    for row in 0..op.batch {
        let mut sum = 0.0;
        for d in 0..op.dim {
            let (element, s) = ((offset + row) * op.dim + d, log_std[op.log_std_index(row, d)]);
            actions[element] = mean[row * op.dim + d] + s.exp() * noise[element];
            sum += log_density(noise[element], s);
        }
        logp[offset + row] = sum as f32;
    }
}

/// Writes `gradient(row, d)` = (to mean, to log-std), the second summed over the batch where the log-std is shared.
fn write_gradients(op: &Gaussian, d_mean: &mut [f32], d_log_std: &mut [f32], gradient: impl Fn(usize, usize) -> (f32, f32)) {
    for d in 0..op.dim {
        let mut sum = 0.0;
        for row in 0..op.batch {
            let (to_mean, to_log_std) = gradient(row, d);
            d_mean[row * op.dim + d] = to_mean;
            sum += f64::from(to_log_std);
            if op.state_dependent_std {
                d_log_std[row * op.dim + d] = to_log_std;
            }
        }
        if !op.state_dependent_std {
            d_log_std[d] = sum as f32;
        }
    }
}

/// d_logp·z·e^(−s) and d_logp·(z² − 1): 0, and not 0·∞, where d_logp is 0.
fn through_logp(d_logp: f32, z: f32, s: f32) -> (f32, f32) {
    if d_logp == 0.0 { (d_logp, d_logp) } else { (d_logp * z * (-s).exp(), d_logp * (z * z - 1.0)) }
}

/// Gradient of Σ d_logp·logp + d_entropy·entropy.
pub fn backward(op: &Gaussian, operands: GaussianBackwardOperands<'_, Vec<f32>>) {
    let GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset } = operands;
    write_gradients(op, d_mean, &mut d_log_std[d_log_std_offset..], |row, d| {
        let (element, s) = (row * op.dim + d, log_std[op.log_std_index(row, d)]);
        let (of_mean, of_log_std) = through_logp(d_logp[row], standardise(actions[element], mean[element], s), s);
        (of_mean, of_log_std + d_entropy[row])
    });
}

/// e^t − 1 − t, by its series near zero, where the difference would cancel.
fn exp_minus_tangent(t: f32) -> f32 {
    if t.abs() >= 0.5 {
        return t.exp_m1() - t;
    }
    let mut sum = 0.0;
    for n in (2..18u8).rev() {
        sum = (1.0 + sum) * t / f32::from(n);
    }
    // The loop has made Σ tⁿ⁻¹/n! from n = 2.
    sum * t
}

/// z = (p_mean − q_mean)·e^(−q), t = 2(p − q) and e^(−q) of one row and dimension.
fn kl_terms(op: &Gaussian, [p_mean, p_log_std, q_mean, q_log_std]: [&[f32]; 4], row: usize, d: usize) -> (f32, f32, f32) {
    let (element, s) = (row * op.dim + d, op.log_std_index(row, d));
    let z = standardise(p_mean[element], q_mean[element], q_log_std[s]);
    (z, 2.0 * (p_log_std[s] - q_log_std[s]), (-q_log_std[s]).exp())
}

/// KL(p ‖ q).
pub fn kl(op: &Gaussian, operands: GaussianKlOperands<'_, Vec<f32>>) {
    let GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl } = operands;
    for (row, kl) in kl.iter_mut().take(op.batch).enumerate() {
        let term = |d| {
            let (z, t, _) = kl_terms(op, [p_mean, p_log_std, q_mean, q_log_std], row, d);
            f64::from(0.5 * exp_minus_tangent(t) + 0.5 * z * z)
        };
        *kl = (0..op.dim).map(term).sum::<f64>() as f32;
    }
}

/// Gradient of Σ d_kl·KL(p ‖ q) with respect to mean and log-std of one of the two.
pub fn kl_backward(op: &Gaussian, argument: KlArgument, operands: GaussianKlBackwardOperands<'_, Vec<f32>>) {
    let GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std } = operands;
    write_gradients(op, d_mean, d_log_std, |row, d| {
        let (z, t, inverse) = kl_terms(op, [p_mean, p_log_std, q_mean, q_log_std], row, d);
        match argument {
            KlArgument::P => (d_kl[row] * z * inverse, d_kl[row] * t.exp_m1()),
            KlArgument::Q => (-d_kl[row] * z * inverse, -d_kl[row] * (t.exp_m1() + z * z)),
        }
    });
}

/// log(1 − tanh²u), written with |u| so that nothing cancels.
fn squash_log_det(u: f32) -> f32 {
    2.0 * (std::f32::consts::LN_2 - u.abs() - (-2.0 * u.abs()).exp().ln_1p())
}

/// Actions, log(1 − tanh²u), and logp of the scaled actions.
pub fn squashed_evaluate(op: &SquashedGaussian, operands: SquashedEvaluateOperands<'_, Vec<f32>>) {
    let SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp } = operands;
    let gaussian = &op.gaussian;
    let log_half_width = (0.5 * (op.high - op.low)).ln();
    for row in 0..gaussian.batch {
        let mut sum = 0.0;
        for d in 0..gaussian.dim {
            let (element, s) = (row * gaussian.dim + d, log_std[gaussian.log_std_index(row, d)]);
            // The difference is rounded, and may lead past the upper end.
            let action = op.low + 0.5 * (f64::from(u[element].tanh()) + 1.0) * (op.high - op.low);
            actions[element] = action.min(op.high) as f32;
            log_det[element] = squash_log_det(u[element]);
            sum += log_density(standardise(u[element], mean[element], s), s) - f64::from(log_det[element]) - log_half_width;
        }
        logp[row] = sum as f32;
    }
}

/// Gradient of Σ d_logp·logp for u that stands still, or, reparameterised, for u = mean + e^s·noise.
pub fn squashed_backward(op: &SquashedGaussian, reparameterised: bool, operands: SquashedBackwardOperands<'_, Vec<f32>>) {
    let SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std } = operands;
    write_gradients(&op.gaussian, d_mean, d_log_std, |row, d| {
        let (element, s) = (row * op.gaussian.dim + d, log_std[op.gaussian.log_std_index(row, d)]);
        if reparameterised {
            let slope = 2.0 * u[element].tanh();
            return (d_logp[row] * slope, d_logp[row] * (slope * (u[element] - mean[element]) - 1.0));
        }
        through_logp(d_logp[row], standardise(u[element], mean[element], s), s)
    });
}
