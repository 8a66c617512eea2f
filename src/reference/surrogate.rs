//! Twin of `shaders/surrogate/`: PPO's loss and its gradient, sample by sample.

use std::cmp::Ordering;

use super::policy::{categorical, exp_minus_tangent, gaussian};
use crate::kernels::policy::{
    Categorical, CategoricalBackwardOperands, CategoricalEvaluateOperands, Gaussian, GaussianBackwardOperands,
    GaussianEvaluateOperands,
};
use crate::kernels::surrogate::{
    CategoricalOperands, CriticLoss, GaussianOperands, PolicyLoss, Surrogate, SurrogateOperands, ValueLoss,
};
use crate::layout::{control, sample, stat, stop, term};
use crate::real::Real;

/// coefficient·x, and 0 where the coefficient is, whatever x.
fn weighted(coefficient: f64, x: f64) -> f64 {
    if coefficient == 0.0 { 0.0 } else { coefficient * x }
}

/// max(−A·ratio, −A·clip(ratio)), for A < 0 at most −c·A with the dual clip c, and its derivative with respect to logp. An advantage of 0
/// counts for nothing even where the ratio is infinite. Two equal sides of a maximum or minimum share the derivative.
pub fn policy_loss(op: &Surrogate, log_ratio: f64, advantage: f64) -> PolicyLoss<f64> {
    let ratio = log_ratio.exp();
    let times_ratio = |factor: f64, ratio: f64| if ratio.is_nan() { ratio } else { weighted(factor, ratio) };
    let (low, high) = (1.0 - op.clip_low, 1.0 + op.clip_high);
    let clipped_ratio = ratio.clamp(low, high);
    let (unclipped, clipped) = (times_ratio(-advantage, ratio), times_ratio(-advantage, clipped_ratio));
    let (loss, slope) = if clipped > unclipped { (clipped, 0.0) } else { (unclipped, -advantage) };
    let most = op.dual_clip.filter(|_| advantage < 0.0).map_or(f64::INFINITY, |c| -c * advantage);
    let pg_loss = if loss > most { most } else { loss };
    let share = if loss == most { 0.5 } else { 1.0 };
    let slope = if loss > most { 0.0 } else { share * slope };
    PolicyLoss {
        log_ratio,
        ratio,
        clipped_ratio,
        pg_loss,
        k3: exp_minus_tangent(log_ratio),
        kl_penalty: exp_minus_tangent(-log_ratio),
        outside: f64::from(u8::from(ratio < low || ratio > high)),
        d_logp: (times_ratio(slope, ratio) - weighted(op.kl_coef, (-log_ratio).exp_m1())) / op.batch as f64,
    }
}

/// The value loss, and its derivative with respect to the value. Two equal squares share the derivative; that of a clipped value is 0.
pub fn critic_loss(op: &Surrogate, value: f64, target: f64, old_value: f64) -> CriticLoss<f64> {
    let error = value - target;
    let square = 0.5 * error * error;
    let (clipped_value, v_loss, slope) = match op.value_loss {
        ValueLoss::Mse => (value, square, error),
        ValueLoss::Clipped { clip } => {
            let clipped_value = old_value + (value - old_value).clamp(-clip, clip);
            let clipped_square = 0.5 * (clipped_value - target).powi(2);
            let is_inside = (value - old_value).abs() <= clip;
            let share = match square.partial_cmp(&clipped_square) {
                Some(Ordering::Greater) => 1.0,
                Some(Ordering::Equal) => 0.5,
                Some(Ordering::Less) => 0.0,
                None => f64::NAN,
            };
            (clipped_value, square.max(clipped_square), if is_inside { error } else { share * error })
        }
        ValueLoss::Huber { delta } if error.abs() < delta => (value, square / delta, error / delta),
        ValueLoss::Huber { delta } => (value, error.abs() - 0.5 * delta, error.signum()),
    };
    CriticLoss { clipped_value, v_loss, d_value: weighted(op.vf_coef, slope) / op.batch as f64 }
}

/// From log-probabilities, for any distribution: terms and gradients of every sample, and the means of all.
pub fn surrogate<T: Real>(op: &Surrogate, operands: SurrogateOperands<'_, Vec<T>>) {
    let SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats } = operands;
    let mut means = [0.0; stat::COLUMNS];
    for i in 0..op.batch {
        let column = |column: usize| samples[i * sample::COLUMNS + column].f64();
        let policy = policy_loss(op, logp[i].f64() - column(sample::OLD_LOGP), column(sample::ADVANTAGE));
        let critic = critic_loss(op, values[i].f64(), column(sample::RETURN), column(sample::OLD_VALUE));
        let mut row = [T::zero(); term::COLUMNS];
        row[term::LOG_RATIO] = T::of(policy.log_ratio);
        row[term::RATIO] = T::of(policy.ratio);
        row[term::CLIPPED_RATIO] = T::of(policy.clipped_ratio);
        row[term::PG_LOSS] = T::of(policy.pg_loss);
        row[term::CLIPPED_VALUE] = T::of(critic.clipped_value);
        row[term::V_LOSS] = T::of(critic.v_loss);
        terms[i * term::COLUMNS..(i + 1) * term::COLUMNS].copy_from_slice(&row);
        d_logp[i] = T::of(policy.d_logp);
        d_values[i] = T::of(critic.d_value);
        for (column, x) in [
            (stat::PG_LOSS, policy.pg_loss),
            (stat::V_LOSS, critic.v_loss),
            (stat::ENTROPY, entropy[i].f64()),
            (stat::OLD_APPROX_KL, -policy.log_ratio),
            (stat::APPROX_KL, policy.k3),
            (stat::CLIPFRAC, policy.outside),
            (stat::KL_PENALTY, policy.kl_penalty),
        ] {
            means[column] += x / op.batch as f64;
        }
    }
    means[stat::LOSS] = means[stat::PG_LOSS] - weighted(op.ent_coef, means[stat::ENTROPY])
        + weighted(op.vf_coef, means[stat::V_LOSS])
        + weighted(op.kl_coef, means[stat::KL_PENALTY]);
    for column in (stat::LOSS..=stat::CLIPFRAC).chain([stat::KL_PENALTY]) {
        stats[op.stats_row * stat::COLUMNS + column] = T::of(means[column]);
    }
}

/// What lies between a head and its loss: logp, entropy, terms, and the gradients of the first two.
fn between<T: Real>(op: &Surrogate) -> [Vec<T>; 5] {
    let mut all = [1, 1, term::COLUMNS, 1, 1].map(|columns| vec![T::zero(); op.batch * columns]);
    all[4].fill(T::of(-op.ent_coef / op.batch as f64));
    all
}

/// Through a categorical head: its evaluation, the loss, and back.
pub fn surrogate_categorical<T: Real>(op: &Surrogate, policy: &Categorical, operands: CategoricalOperands<'_, Vec<T>, Vec<u32>>) {
    let CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats } = operands;
    let [logp, entropy, terms, d_logp, d_entropy] = &mut between(op);
    categorical::evaluate(policy, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy });
    surrogate(op, SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats });
    categorical::backward(policy, CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits });
}

/// Through a diagonal Gaussian head.
pub fn surrogate_gaussian<T: Real>(op: &Surrogate, policy: &Gaussian, operands: GaussianOperands<'_, Vec<T>>) {
    let GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats } =
        operands;
    let [logp, entropy, terms, d_logp, d_entropy] = &mut between(op);
    gaussian::evaluate(policy, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy });
    surrogate(op, SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats });
    let backward = GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
    gaussian::backward(policy, backward);
}

/// Stops where nothing stopped before and approx_kl is above the threshold, as the `f32` that a device gets.
pub fn stop_on_kl<T: Real>(threshold: f64, stats_row: usize, stats: &[T], control: &mut [u32]) {
    let approx_kl = stats[stats_row * stat::COLUMNS + stat::APPROX_KL].f64();
    if control[control::STOP] == stop::NONE && approx_kl > f64::from(threshold as f32) {
        control[control::STOP] = stop::TARGET_KL;
    }
}
