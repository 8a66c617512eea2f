//! Twin of `shaders/optimizer.wgsl`.

use rayon::prelude::*;

use crate::elementary::vectorised;
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::layout::{control, schedule, stat, stop};
use crate::real::Real;
use crate::scratch::in_parts;

/// Elements of a sum that a thread takes at once. Smaller buffers stay on one thread, which is done before another has woken up.
const CHUNK: usize = 1 << 15;
/// And of a step, which has a root and a division an element; also so that the other threads of an update do not fall asleep.
const STEP_CHUNK: usize = 1 << 12;

/// Σ x², in sums side by side: a single one would wait for each addition before the next.
fn sum_of_squares<T: Real>(x: &[T]) -> f64 {
    const LANES: usize = 32;
    let mut lanes = [0.0; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    vectorised!({
        for block in blocks {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *lane += x.f64() * x.f64();
            }
        }
    });
    rest.iter().map(|x| x.f64() * x.f64()).sum::<f64>() + lanes.iter().sum::<f64>()
}

/// norm = √Σ grads², coef = min(1, max_grad_norm/(norm + ε)) into the row of `stats`.
pub fn gradient_norm<T: Real>(op: &GradientNorm, grads: &[T], stats: &mut [T]) {
    let grads = &grads[..op.len];
    let sum: f64 = if op.len <= CHUNK {
        sum_of_squares(grads)
    } else {
        let part = |i: usize| sum_of_squares(&grads[i * CHUNK..grads.len().min((i + 1) * CHUNK)]);
        in_parts(grads.len().div_ceil(CHUNK), part, |parts| parts.iter().sum())
    };
    let norm = sum.sqrt();
    let divisor = norm + op.epsilon;
    let coef = if norm.is_nan() {
        norm
    } else if divisor > op.max_grad_norm {
        op.max_grad_norm / divisor
    } else {
        1.0
    };
    stats[op.stats_row * stat::COLUMNS + stat::GRAD_NORM] = T::of(norm);
    stats[op.stats_row * stat::COLUMNS + stat::CLIP_COEF] = T::of(coef);
}

/// One step on `params`, `m` and `v`.
pub fn adam_step<T: Real>(
    op: &Adam,
    params: &mut [T],
    grads: &[T],
    m: &mut [T],
    v: &mut [T],
    schedule: &[T],
    stats: &[T],
    control: &mut [u32],
) {
    if control[control::STOP] != stop::NONE {
        return;
    }
    control[control::STEPS_DONE] = control[control::STEPS_DONE].wrapping_add(1);
    let row = &schedule[op.schedule_row * schedule::COLUMNS..][..schedule::COLUMNS];
    let coef = stats[op.stats_row * stat::COLUMNS + stat::CLIP_COEF];
    let [beta1, beta2, epsilon, l2, decay] = [op.beta1, op.beta2, op.epsilon, op.l2(), op.decay()].map(T::of);
    let [one_minus_beta1, one_minus_beta2] = [1.0 - op.beta1, 1.0 - op.beta2].map(T::of);
    let kept = T::one() - row[schedule::LEARNING_RATE] * decay;
    let (step_size, inv_sqrt_correction) = (row[schedule::STEP_SIZE], row[schedule::INV_SQRT_BIAS_CORRECTION2]);
    let (params, grads, m, v) = (&mut params[..op.len], &grads[..op.len], &mut m[..op.len], &mut v[..op.len]);
    let chunk = |params: &mut [T], grads: &[T], m: &mut [T], v: &mut [T]| {
        vectorised!({
            for (((param, &grad), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
                let g = coef * grad + l2 * *param;
                *m = beta1 * *m + one_minus_beta1 * g;
                *v = beta2 * *v + one_minus_beta2 * (g * g);
                let denominator = v.sqrt() * inv_sqrt_correction + epsilon;
                *param = *param * kept - step_size * (*m / denominator);
            }
        });
    };
    if op.len <= STEP_CHUNK {
        chunk(params, grads, m, v);
    } else {
        // A chunk a thread: of two, each finds half of the parameters in its cache, and has made the gradient of most of them.
        let len = op.len.div_ceil(rayon::current_num_threads()).max(STEP_CHUNK);
        let parts = params.par_chunks_mut(len).zip(grads.par_chunks(len));
        parts
            .zip(m.par_chunks_mut(len))
            .zip(v.par_chunks_mut(len))
            .for_each(|(((params, grads), m), v)| chunk(params, grads, m, v));
    }
}
