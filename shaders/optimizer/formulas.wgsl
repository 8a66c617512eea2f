// The formulas of clipping and of Adam, an element at a time, behind elementary.wgsl, for shaders that define STATS_COLUMNS.
// What they are, range and tolerance: optimizer.wgsl.

const GRAD_NORM = 7u;
const CLIP_COEF = 8u;
const SCHEDULE_COLUMNS = 4u;
const LEARNING_RATE = 0u;
const STEP_SIZE = 1u;
const INV_SQRT_BIAS_CORRECTION2 = 2u;
const STOP = 0u;
const STEPS_DONE = 1u;

struct Clip {
    norm: f32,
    coef: f32,
}

fn clip_of(sum_of_squares: f32, limited: bool, max_grad_norm: f32, epsilon: f32) -> Clip {
    let norm = sqrt(sum_of_squares);
    let divisor = norm + epsilon;
    var coef = 1.0;
    if limited && divisor > max_grad_norm {
        coef = max_grad_norm / divisor;
    }
    if is_nan(sum_of_squares) {
        coef = sum_of_squares;
    }
    return Clip(norm, coef);
}

struct AdamConstants {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    epsilon: f32,
    l2: f32,
    decay: f32,
    // Of the schedule's row.
    learning_rate: f32,
    step_size: f32,
    inv_sqrt_bias_correction2: f32,
}

struct AdamElement {
    param: f32,
    m: f32,
    v: f32,
}

fn adam_of(old: AdamElement, clipped_grad: f32, adam: AdamConstants) -> AdamElement {
    let g = clipped_grad + adam.l2 * old.param;
    let m = adam.beta1 * old.m + adam.one_minus_beta1 * g;
    let v = adam.beta2 * old.v + adam.one_minus_beta2 * (g * g);
    let denominator = sqrt(v) * adam.inv_sqrt_bias_correction2 + adam.epsilon;
    let param = old.param * (1.0 - adam.learning_rate * adam.decay) - adam.step_size * (m / denominator);
    return AdamElement(param, m, v);
}
