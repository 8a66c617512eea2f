//! Twin of `shaders/policy/categorical.wgsl`.

use crate::kernels::policy::{
    Categorical, CategoricalBackwardOperands, CategoricalDistributionOperands, CategoricalEvaluateOperands,
    CategoricalKlBackwardOperands, CategoricalKlOperands, CategoricalSampleOperands, KlArgument,
};
use crate::real::Real;

/// Row `i` of a softmax over the actions that are not masked.
pub struct Softmax {
    /// log p = l − max − log Σ e^(l − max); `None` where masked.
    pub log_p: Vec<Option<f64>>,
    /// log Σ e^l; 0 where all are masked.
    logsumexp: f64,
    /// The first of the largest.
    mode: usize,
}

impl Softmax {
    /// Of `logits [batch, actions]`.
    pub fn new<T: Real>(op: &Categorical, logits: &[T], mask: Option<&Vec<u32>>, i: usize) -> Self {
        let row = i * op.actions..(i + 1) * op.actions;
        let valid = |j: usize| mask.is_none_or(|mask| mask[j] != 0);
        let logits: Vec<Option<f64>> = row.map(|j| valid(j).then(|| logits[j].f64())).collect();
        let largest = logits.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = logits.iter().flatten().map(|l| (l - largest).exp()).sum::<f64>().ln();
        Self {
            log_p: logits.iter().map(|l| l.map(|l| l - largest - log_sum)).collect(),
            logsumexp: if logits.iter().flatten().next().is_some() { largest + log_sum } else { 0.0 },
            mode: logits.iter().position(|l| *l == Some(largest)).unwrap_or(0),
        }
    }

    /// p, 0 where masked.
    pub fn p(&self) -> impl Iterator<Item = f64> {
        self.log_p.iter().map(|log_p| log_p.map_or(0.0, f64::exp))
    }

    /// H = −Σ p·log p.
    fn entropy(&self) -> f64 {
        -self.log_p.iter().flatten().map(|log_p| weighted(log_p.exp(), *log_p)).sum::<f64>()
    }

    /// KL = Σ p·(log p − log q), with each log p − log q, `None` where masked.
    fn kl(&self, q: &Self) -> (f64, Vec<Option<f64>>) {
        let ratios = self.log_p.iter().zip(&q.log_p).map(|(p, q)| Some((*p)? - (*q)?)).collect::<Vec<_>>();
        let terms = self.p().zip(&ratios).map(|(p, ratio)| ratio.map_or(0.0, |ratio| weighted(p, ratio)));
        (terms.sum(), ratios)
    }
}

/// p·x, and 0 where p is, even if x is infinite.
fn weighted(p: f64, x: f64) -> f64 {
    if p == 0.0 { 0.0 } else { p * x }
}

/// log p, p, log Σ e^l and the mode.
pub fn distribution<T: Real>(op: &Categorical, operands: CategoricalDistributionOperands<'_, Vec<T>, Vec<u32>>) {
    let CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode } = operands;
    for i in 0..op.batch {
        let softmax = Softmax::new(op, logits, mask, i);
        for (a, (log_p, p)) in softmax.log_p.iter().zip(softmax.p()).enumerate() {
            log_probs[i * op.actions + a] = T::of(log_p.unwrap_or(0.0));
            probs[i * op.actions + a] = T::of(p);
        }
        logsumexp[i] = T::of(softmax.logsumexp);
        mode[i] = softmax.mode as u32;
    }
}

/// `log p[action]`, 0 where masked and NaN where there is none, and H.
pub fn evaluate<T: Real>(op: &Categorical, operands: CategoricalEvaluateOperands<'_, Vec<T>, Vec<u32>>) {
    let CategoricalEvaluateOperands { logits, mask, actions, logp, entropy } = operands;
    for i in 0..op.batch {
        let softmax = Softmax::new(op, logits, mask, i);
        let log_p = softmax.log_p.get(actions[i] as usize);
        logp[i] = T::of(log_p.map_or(f64::NAN, |log_p| log_p.unwrap_or(0.0)));
        entropy[i] = T::of(softmax.entropy());
    }
}

/// The first action whose cumulative probability exceeds the number; where rounding leaves the sum below it, the last that is possible.
pub fn sample<T: Real>(op: &Categorical, operands: CategoricalSampleOperands<'_, Vec<T>, Vec<u32>>) {
    let CategoricalSampleOperands { logits, mask, uniforms, offset, actions, logp } = operands;
    for i in 0..op.batch {
        let softmax = Softmax::new(op, logits, mask, i);
        let (mut cumulative, mut drawn) = (0.0, 0);
        for (a, p) in softmax.p().enumerate().filter(|(_, p)| *p > 0.0) {
            cumulative += p;
            drawn = a;
            if cumulative > uniforms[offset + i].f64() {
                break;
            }
        }
        actions[offset + i] = drawn as u32;
        logp[offset + i] = T::of(softmax.log_p[drawn].unwrap_or(0.0));
    }
}

/// d_logp·(δ_a − p) − d_entropy·p·(log p + H).
pub fn backward<T: Real>(op: &Categorical, operands: CategoricalBackwardOperands<'_, Vec<T>, Vec<u32>>) {
    let CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits } = operands;
    for i in 0..op.batch {
        let softmax = Softmax::new(op, logits, mask, i);
        let (entropy, action) = (softmax.entropy(), actions[i] as usize);
        let d_logp = match softmax.log_p.get(action) {
            None => f64::NAN,
            Some(None) => 0.0,
            Some(Some(_)) => d_logp[i].f64(),
        };
        for (a, log_p) in softmax.log_p.iter().enumerate() {
            let gradient = log_p.map_or(0.0, |log_p| {
                let (p, taken) = (log_p.exp(), f64::from(u8::from(a == action)));
                d_logp * (taken - p) - d_entropy[i].f64() * weighted(p, log_p + entropy)
            });
            d_logits[i * op.actions + a] = T::of(gradient);
        }
    }
}

/// Σ p·(log p − log q).
pub fn kl<T: Real>(op: &Categorical, operands: CategoricalKlOperands<'_, Vec<T>, Vec<u32>>) {
    let CategoricalKlOperands { p_logits, q_logits, mask, kl } = operands;
    for (i, kl) in kl.iter_mut().take(op.batch).enumerate() {
        let [p, q] = [p_logits, q_logits].map(|logits| Softmax::new(op, logits, mask, i));
        *kl = T::of(p.kl(&q).0);
    }
}

/// d_kl·p·(log p − log q − KL) for p, d_kl·(q − p) for q.
pub fn kl_backward<T: Real>(
    op: &Categorical,
    argument: KlArgument,
    operands: CategoricalKlBackwardOperands<'_, Vec<T>, Vec<u32>>,
) {
    let CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits } = operands;
    for i in 0..op.batch {
        let [p, q] = [p_logits, q_logits].map(|logits| Softmax::new(op, logits, mask, i));
        let (kl, ratios) = p.kl(&q);
        for (a, ((p, q), ratio)) in p.p().zip(q.p()).zip(ratios).enumerate() {
            let gradient = match argument {
                KlArgument::P => ratio.map_or(0.0, |ratio| weighted(p, ratio - kl)),
                KlArgument::Q => q - p,
            };
            d_logits[i * op.actions + a] = T::of(d_kl[i].f64() * gradient);
        }
    }
}
