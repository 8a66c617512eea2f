//! Loss and gradient of one sample, and of a tile of them side by side.

use super::tile::{LANES, Lanes};
use crate::elementary::exp;
use crate::kernels::surrogate::{CriticLoss, PolicyLoss, Surrogate, ValueLoss};
use crate::real::Real;

/// 1/2!, 1/4!, 1/6!, …
const EVEN: [f32; 6] = reciprocal_factorials(2);
/// 1/3!, 1/5!, 1/7!, …
const ODD: [f32; 6] = reciprocal_factorials(3);

const fn reciprocal_factorials(first: usize) -> [f32; 6] {
    let mut all = [0.0; 6];
    let (mut factorial, mut n) = (1.0, 1);
    while n < first + 12 {
        if n >= first && (n - first).is_multiple_of(2) {
            all[(n - first) / 2] = (1.0 / factorial) as f32;
        }
        n += 1;
        factorial *= n as f64;
    }
    all
}

/// Σ coefficientₙ·x2ⁿ: as many terms as x2 below 1 needs.
#[inline(always)]
fn series(coefficients: &[f32; 6], x2: f32) -> f32 {
    let mut sum = 0.0;
    for &coefficient in coefficients.iter().rev() {
        sum = coefficient + x2 * sum;
    }
    sum
}

/// eˣ − 1 − x and e⁻ˣ − 1 + x of x, eˣ and e⁻ˣ. Their terms cancel for small x: there by their series, split into even and odd powers. Both are infinite
/// where x is.
#[inline(always)]
fn exp_residuals(x: f32, exp_x: f32, exp_minus_x: f32) -> (f32, f32) {
    let x2 = x * x;
    let (even, odd) = (series(&EVEN, x2), x * series(&ODD, x2));
    let (above, below) = (x.min(f32::MAX), x.max(f32::MIN));
    let far = (exp_x - 1.0 - above, exp_minus_x - 1.0 + below);
    if x.abs() >= 1.0 { far } else { (x2 * (even + odd), x2 * (even - odd)) }
}

/// Of one sample.
#[inline(always)]
fn policy_loss(op: &Surrogate, log_ratio: f32, advantage: f32) -> PolicyLoss<f32> {
    let (zero, one) = (0.0f32, 1.0f32);
    let [low, high, dual_clip] = [1.0 - op.clip_low, 1.0 + op.clip_high, op.dual_clip.unwrap_or(f64::INFINITY)].map(f32::of);
    let (ratio, inverse_ratio) = (exp(log_ratio), exp(-log_ratio));
    let (below, above) = (ratio < low, ratio > high);
    let not_below = if below { low } else { ratio };
    let clipped_ratio = if above { high } else { not_below };
    let is_clipped = (advantage > zero) & above | (advantage < zero) & below;
    let is_dual_clipped = (advantage < zero) & (ratio >= dual_clip);
    let counted_ratio = if is_clipped { clipped_ratio } else { ratio };
    // Neither this nor the slope becomes 0·∞ where the ratio overflows; a log-ratio that is NaN still shows.
    let counts_not = (advantage == zero) & !log_ratio.is_nan();
    let pg_loss = -advantage * if is_dual_clipped { dual_clip } else { counted_ratio };
    let pg_loss = if counts_not { zero } else { pg_loss };
    // torch.min of two equal arguments gives half the gradient to each.
    let dual_slope = if ratio == dual_clip { f32::of(-0.5) * advantage } else { zero };
    let slope = if is_clipped { zero } else { -advantage };
    let slope = if is_dual_clipped { dual_slope } else { slope };
    let through_ratio = if (slope == zero) & !log_ratio.is_nan() { zero } else { slope * ratio };
    let (k3, kl_penalty) = exp_residuals(log_ratio, ratio, inverse_ratio);
    let kl_slope = if log_ratio.abs() < one { log_ratio - kl_penalty } else { one - inverse_ratio };
    let d_log_ratio = if op.kl_coef == 0.0 { through_ratio } else { through_ratio + f32::of(op.kl_coef) * kl_slope };
    PolicyLoss {
        log_ratio,
        ratio,
        clipped_ratio,
        pg_loss,
        k3,
        kl_penalty,
        outside: if below | above { one } else { zero },
        d_logp: d_log_ratio / f32::of(op.batch as f64),
    }
}

#[inline(always)]
fn squared_error(op: &Surrogate, value: f32, target: f32) -> CriticLoss<f32> {
    let error = value - target;
    CriticLoss { clipped_value: value, v_loss: f32::of(0.5) * error * error, d_value: derivative(op, error) }
}

#[inline(always)]
fn clipped_squared_error(op: &Surrogate, clip: f32, value: f32, target: f32, old_value: f32) -> CriticLoss<f32> {
    let half = f32::of(0.5);
    let (error, moved) = (value - target, value - old_value);
    let square = half * error * error;
    let clipped_value = old_value + moved.max(-clip).min(clip);
    let clipped_error = clipped_value - target;
    let clipped_square = half * clipped_error * clipped_error;
    // torch.max of two equal arguments gives half the gradient to each; that of the clipped value passes on nothing beyond the clip.
    let beyond = if clipped_square == square { half } else { f32::NAN };
    let beyond = if clipped_square > square { 0.0 } else { beyond };
    let share = if (moved.abs() <= clip) | (clipped_square < square) { 1.0 } else { beyond };
    let v_loss = if clipped_square > square { clipped_square } else { square };
    CriticLoss { clipped_value, v_loss, d_value: derivative(op, share * error) }
}

#[inline(always)]
fn huber(op: &Surrogate, delta: f32, value: f32, target: f32) -> CriticLoss<f32> {
    let half = f32::of(0.5);
    let error = value - target;
    let is_near = error.abs() < delta;
    let scaled = error / delta;
    let v_loss = if is_near { half * error * scaled } else { error.abs() - half * delta };
    CriticLoss { clipped_value: value, v_loss, d_value: derivative(op, if is_near { scaled } else { error.signum() }) }
}

/// Of the loss of the whole batch, from the derivative of a sample's own.
#[inline(always)]
fn derivative(op: &Surrogate, slope: f32) -> f32 {
    if op.vf_coef == 0.0 { 0.0 } else { f32::of(op.vf_coef) * slope / f32::of(op.batch as f64) }
}

/// Of a tile, as [`policy_loss`]. Log-probabilities come unrounded: log ratios are far smaller, and the rounding would be all of their error.
#[inline(always)]
pub(crate) fn policy_losses(
    op: &Surrogate,
    logp: &Lanes<f64>,
    old_logp: &Lanes<f32>,
    advantage: &Lanes<f32>,
) -> PolicyLoss<Lanes<f32>> {
    let zeros = [0.0; LANES];
    let mut tile = PolicyLoss {
        log_ratio: zeros,
        ratio: zeros,
        clipped_ratio: zeros,
        pg_loss: zeros,
        k3: zeros,
        kl_penalty: zeros,
        outside: zeros,
        d_logp: zeros,
    };
    // A loop of its own, because vectors hold half as many numbers in double precision.
    for i in 0..LANES {
        tile.log_ratio[i] = f32::of(logp[i] - old_logp[i].f64());
    }
    for (i, &advantage) in advantage.iter().enumerate() {
        let loss = policy_loss(op, tile.log_ratio[i], advantage);
        tile.ratio[i] = loss.ratio;
        tile.clipped_ratio[i] = loss.clipped_ratio;
        tile.pg_loss[i] = loss.pg_loss;
        tile.k3[i] = loss.k3;
        tile.kl_penalty[i] = loss.kl_penalty;
        tile.outside[i] = loss.outside;
        tile.d_logp[i] = loss.d_logp;
    }
    tile
}

/// Of a tile: a loop for each loss, because a choice in the loop would keep it from being vectorised.
#[inline(always)]
pub(crate) fn critic_losses(
    op: &Surrogate,
    values: &Lanes<f32>,
    targets: &Lanes<f32>,
    old_values: &Lanes<f32>,
) -> CriticLoss<Lanes<f32>> {
    let zeros = [0.0; LANES];
    let mut tile = CriticLoss { clipped_value: zeros, v_loss: zeros, d_value: zeros };
    match op.value_loss {
        ValueLoss::Mse => set_each(
            &mut tile,
            #[inline(always)]
            |i| squared_error(op, values[i], targets[i]),
        ),
        ValueLoss::Clipped { clip } => {
            set_each(
                &mut tile,
                #[inline(always)]
                |i| clipped_squared_error(op, f32::of(clip), values[i], targets[i], old_values[i]),
            );
        }
        ValueLoss::Huber { delta } => set_each(
            &mut tile,
            #[inline(always)]
            |i| huber(op, f32::of(delta), values[i], targets[i]),
        ),
    }
    tile
}

#[inline(always)]
fn set_each(tile: &mut CriticLoss<Lanes<f32>>, loss: impl Fn(usize) -> CriticLoss<f32>) {
    for i in 0..LANES {
        let loss = loss(i);
        tile.clipped_value[i] = loss.clipped_value;
        tile.v_loss[i] = loss.v_loss;
        tile.d_value[i] = loss.d_value;
    }
}
