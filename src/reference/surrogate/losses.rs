//! Loss and gradient of one sample, and of a tile of them side by side.

use super::tile::{LANES, Lanes};
use crate::kernels::surrogate::{Surrogate, ValueLoss};
use crate::real::Real;

/// The policy's part: of one sample with numbers for `F`, of a tile with lanes of them. Gradients are of the mean loss.
#[derive(Debug, Clone, Copy)]
pub struct PolicyLoss<F> {
    /// logp − old_logp.
    pub log_ratio: F,
    /// e^log_ratio.
    pub ratio: F,
    /// The ratio within its clip.
    pub clipped_ratio: F,
    /// Surrogate loss.
    pub pg_loss: F,
    /// ratio − 1 − log_ratio.
    pub k3: F,
    /// e^(−log_ratio) − 1 + log_ratio.
    pub kl_penalty: F,
    /// 1 where the ratio is beyond its clip, else 0.
    pub outside: F,
    /// Derivative with respect to logp.
    pub d_logp: F,
}

/// The critic's part, likewise.
#[derive(Debug, Clone, Copy)]
pub struct CriticLoss<F> {
    /// The value within its clip.
    pub clipped_value: F,
    /// Value loss.
    pub v_loss: F,
    /// Derivative with respect to the value.
    pub d_value: F,
}

/// 1/2!, 1/4!, 1/6!, …
const EVEN: [f64; 10] = reciprocal_factorials(2);
/// 1/3!, 1/5!, 1/7!, …
const ODD: [f64; 10] = reciprocal_factorials(3);

const fn reciprocal_factorials(first: usize) -> [f64; 10] {
    let mut all = [0.0; 10];
    let (mut factorial, mut n) = (1.0, 1);
    while n < first + 20 {
        if n >= first && (n - first).is_multiple_of(2) {
            all[(n - first) / 2] = 1.0 / factorial;
        }
        n += 1;
        factorial *= n as f64;
    }
    all
}

/// Σ coefficientₙ·x2ⁿ: as many terms as f64 needs for x2 below 1, or f32.
#[inline(always)]
fn series<T: Real>(coefficients: &[f64; 10], x2: T) -> T {
    let terms = if T::UNIT_ROUNDOFF < 1e-12 { 10 } else { 6 };
    let mut sum = T::zero();
    for &coefficient in coefficients[..terms].iter().rev() {
        sum = T::of(coefficient) + x2 * sum;
    }
    sum
}

/// eˣ − 1 − x and e⁻ˣ − 1 + x of x, eˣ and e⁻ˣ. Their terms cancel for small x: there by their series, split into even and odd powers. Both are infinite
/// where x is.
#[inline(always)]
fn exp_residuals<T: Real>(x: T, exp_x: T, exp_minus_x: T) -> (T, T) {
    let x2 = x * x;
    let (even, odd) = (series(&EVEN, x2), x * series(&ODD, x2));
    let (above, below) = (x.min(T::max_value()), x.max(T::min_value()));
    let far = (exp_x - T::one() - above, exp_minus_x - T::one() + below);
    if x.abs() >= T::one() { far } else { (x2 * (even + odd), x2 * (even - odd)) }
}

/// Of one sample.
#[inline(always)]
pub fn policy_loss<T: Real>(op: &Surrogate, log_ratio: T, advantage: T) -> PolicyLoss<T> {
    let (zero, one) = (T::zero(), T::one());
    let [low, high, dual_clip] = [1.0 - op.clip_low, 1.0 + op.clip_high, op.dual_clip.unwrap_or(f64::INFINITY)].map(T::of);
    let (ratio, inverse_ratio) = (log_ratio.exp_in_loops(), (-log_ratio).exp_in_loops());
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
    let dual_slope = if ratio == dual_clip { T::of(-0.5) * advantage } else { zero };
    let slope = if is_clipped { zero } else { -advantage };
    let slope = if is_dual_clipped { dual_slope } else { slope };
    let through_ratio = if (slope == zero) & !log_ratio.is_nan() { zero } else { slope * ratio };
    let (k3, kl_penalty) = exp_residuals(log_ratio, ratio, inverse_ratio);
    let kl_slope = if log_ratio.abs() < one { log_ratio - kl_penalty } else { one - inverse_ratio };
    let d_log_ratio = if op.kl_coef == 0.0 { through_ratio } else { through_ratio + T::of(op.kl_coef) * kl_slope };
    PolicyLoss {
        log_ratio,
        ratio,
        clipped_ratio,
        pg_loss,
        k3,
        kl_penalty,
        outside: if below | above { one } else { zero },
        d_logp: d_log_ratio / T::of(op.batch as f64),
    }
}

/// Of one value; `target` is the return.
#[inline(always)]
pub fn critic_loss<T: Real>(op: &Surrogate, value: T, target: T, old_value: T) -> CriticLoss<T> {
    match op.value_loss {
        ValueLoss::Mse => squared_error(op, value, target),
        ValueLoss::Clipped { clip } => clipped_squared_error(op, T::of(clip), value, target, old_value),
        ValueLoss::Huber { delta } => huber(op, T::of(delta), value, target),
    }
}

#[inline(always)]
fn squared_error<T: Real>(op: &Surrogate, value: T, target: T) -> CriticLoss<T> {
    let error = value - target;
    CriticLoss { clipped_value: value, v_loss: T::of(0.5) * error * error, d_value: derivative(op, error) }
}

#[inline(always)]
fn clipped_squared_error<T: Real>(op: &Surrogate, clip: T, value: T, target: T, old_value: T) -> CriticLoss<T> {
    let half = T::of(0.5);
    let (error, moved) = (value - target, value - old_value);
    let square = half * error * error;
    let clipped_value = old_value + moved.max(-clip).min(clip);
    let clipped_error = clipped_value - target;
    let clipped_square = half * clipped_error * clipped_error;
    // torch.max of two equal arguments gives half the gradient to each; that of the clipped value passes on nothing beyond the clip.
    let beyond = if clipped_square == square { half } else { T::nan() };
    let beyond = if clipped_square > square { T::zero() } else { beyond };
    let share = if (moved.abs() <= clip) | (clipped_square < square) { T::one() } else { beyond };
    let v_loss = if clipped_square > square { clipped_square } else { square };
    CriticLoss { clipped_value, v_loss, d_value: derivative(op, share * error) }
}

#[inline(always)]
fn huber<T: Real>(op: &Surrogate, delta: T, value: T, target: T) -> CriticLoss<T> {
    let half = T::of(0.5);
    let error = value - target;
    let is_near = error.abs() < delta;
    let scaled = error / delta;
    let v_loss = if is_near { half * error * scaled } else { error.abs() - half * delta };
    CriticLoss { clipped_value: value, v_loss, d_value: derivative(op, if is_near { scaled } else { error.signum() }) }
}

/// Of the loss of the whole batch, from the derivative of a sample's own.
#[inline(always)]
fn derivative<T: Real>(op: &Surrogate, slope: T) -> T {
    if op.vf_coef == 0.0 { T::zero() } else { T::of(op.vf_coef) * slope / T::of(op.batch as f64) }
}

/// Of a tile, as [`policy_loss`]. Log-probabilities come unrounded: log ratios are far smaller, and the rounding would be all of their error.
#[inline(always)]
pub(crate) fn policy_losses<T: Real>(
    op: &Surrogate,
    logp: &Lanes<f64>,
    old_logp: &Lanes<T>,
    advantage: &Lanes<T>,
) -> PolicyLoss<Lanes<T>> {
    let zeros = [T::zero(); LANES];
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
        tile.log_ratio[i] = T::of(logp[i] - old_logp[i].f64());
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

/// Of a tile, as [`critic_loss`]: a loop for each loss, because a choice in the loop would keep it from being vectorised.
#[inline(always)]
pub(crate) fn critic_losses<T: Real>(
    op: &Surrogate,
    values: &Lanes<T>,
    targets: &Lanes<T>,
    old_values: &Lanes<T>,
) -> CriticLoss<Lanes<T>> {
    let zeros = [T::zero(); LANES];
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
                |i| clipped_squared_error(op, T::of(clip), values[i], targets[i], old_values[i]),
            );
        }
        ValueLoss::Huber { delta } => set_each(
            &mut tile,
            #[inline(always)]
            |i| huber(op, T::of(delta), values[i], targets[i]),
        ),
    }
    tile
}

#[inline(always)]
fn set_each<T: Real>(tile: &mut CriticLoss<Lanes<T>>, loss: impl Fn(usize) -> CriticLoss<T>) {
    for i in 0..LANES {
        let loss = loss(i);
        tile.clipped_value[i] = loss.clipped_value;
        tile.v_loss[i] = loss.v_loss;
        tile.d_value[i] = loss.d_value;
    }
}
