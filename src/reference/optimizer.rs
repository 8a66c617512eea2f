//! Twin of `shaders/optimizer/`.

use crate::kernels::optimizer::{Adam, AdamOperands, GradientNorm};
use crate::layout::{control, schedule, stat, stop};
use crate::real::Real;

/// norm = √Σ grads², coef = min(1, max_grad_norm/(norm + ε)) into the row of `stats`.
pub fn gradient_norm<T: Real>(op: &GradientNorm, grads: &[T], stats: &mut [T]) {
    let norm = grads[..op.len].iter().map(|g| g.f64() * g.f64()).sum::<f64>().sqrt();
    let coef = match op.max_grad_norm / (norm + op.epsilon) {
        _ if norm.is_nan() => norm,
        // Not a number where both are infinite: nothing is clipped then.
        ratio => ratio.min(1.0),
    };
    stats[op.stats_row * stat::COLUMNS + stat::GRAD_NORM] = T::of(norm);
    stats[op.stats_row * stat::COLUMNS + stat::CLIP_COEF] = T::of(coef);
}

/// One step of Adam: g = coef·grad + l2·p; m = β₁m + (1 − β₁)g; v = β₂v + (1 − β₂)g²;
/// p = (1 − lr·decay)·p − lr/(1 − β₁ᵗ)·m/(√v/√(1 − β₂ᵗ) + ε).
pub fn adam_step<T: Real>(op: &Adam, operands: AdamOperands<'_, Vec<T>, Vec<u32>>) {
    let AdamOperands { params, grads, m, v, schedule, stats, control } = operands;
    if control[control::STOP] != stop::NONE {
        return;
    }
    control[control::STEPS_DONE] = control[control::STEPS_DONE].wrapping_add(1);
    let of_schedule = |column: usize| schedule[op.schedule_row * schedule::COLUMNS + column].f64();
    let (learning_rate, step_size) = (of_schedule(schedule::LEARNING_RATE), of_schedule(schedule::STEP_SIZE));
    let inv_sqrt_correction = of_schedule(schedule::INV_SQRT_BIAS_CORRECTION2);
    let coef = stats[op.stats_row * stat::COLUMNS + stat::CLIP_COEF].f64();
    for i in 0..op.len {
        let param = params[i].f64();
        let g = coef * grads[i].f64() + op.l2() * param;
        let new_m = op.beta1 * m[i].f64() + (1.0 - op.beta1) * g;
        let new_v = op.beta2 * v[i].f64() + (1.0 - op.beta2) * g * g;
        let denominator = new_v.sqrt() * inv_sqrt_correction + op.epsilon;
        params[i] = T::of(param * (1.0 - learning_rate * op.decay()) - step_size * new_m / denominator);
        (m[i], v[i]) = (T::of(new_m), T::of(new_v));
    }
}
