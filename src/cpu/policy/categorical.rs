//! Categorical distributions, a row after the other.

use crate::kernels::policy::{
    Categorical, CategoricalBackwardOperands, CategoricalDistributionOperands, CategoricalEvaluateOperands,
    CategoricalKlBackwardOperands, CategoricalKlOperands, CategoricalSampleOperands, KlArgument,
};

/// A row of logits with its mask.
#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    logits: &'a [f32],
    mask: Option<&'a [u32]>,
    maximum: f32,
    /// log Σ exp(l − maximum) over the valid actions.
    log_sum: f32,
    /// Whether any action is valid.
    any: bool,
}

impl<'a> Row<'a> {
    fn new(logits: &'a [f32], mask: Option<&'a [u32]>) -> Self {
        let mut row = Self { logits, mask, maximum: f32::NEG_INFINITY, log_sum: 0.0, any: false };
        for (a, &logit) in logits.iter().enumerate() {
            if row.valid(a) {
                row.maximum = row.maximum.max(logit);
                row.any = true;
            }
        }
        if row.any {
            let sum: f64 = (0..logits.len()).filter(|&a| row.valid(a)).map(|a| f64::from((logits[a] - row.maximum).exp())).sum();
            row.log_sum = sum.ln() as f32;
        }
        row
    }

    /// Row `i` of a batch.
    fn of(op: &Categorical, logits: &'a [f32], mask: Option<&'a Vec<u32>>, i: usize) -> Self {
        let range = i * op.actions..(i + 1) * op.actions;
        Self::new(&logits[range.clone()], mask.map(|mask| &mask[range]))
    }

    /// Whether action `a` may be taken.
    fn valid(&self, a: usize) -> bool {
        self.mask.is_none_or(|mask| mask[a] != 0)
    }

    /// log p of action `a`; 0 where masked.
    fn log_prob(&self, a: usize) -> f32 {
        if self.valid(a) { self.logits[a] - self.maximum - self.log_sum } else { 0.0 }
    }

    /// p of action `a`; 0 where masked.
    fn prob(&self, a: usize) -> f32 {
        if self.valid(a) { self.log_prob(a).exp() } else { 0.0 }
    }

    /// log p of an action given as a word; NaN where it is out of range.
    fn action_log_prob(&self, action: u32) -> f32 {
        if (action as usize) < self.logits.len() { self.log_prob(action as usize) } else { f32::NAN }
    }

    /// −Σ p·log p.
    fn entropy(&self) -> f32 {
        -(0..self.logits.len()).map(|a| f64::from(self.prob(a) * self.log_prob(a))).sum::<f64>() as f32
    }

    /// Σ p·(log p − log q).
    fn kl(&self, q: &Self) -> f32 {
        (0..self.logits.len()).map(|a| f64::from(self.prob(a) * (self.log_prob(a) - q.log_prob(a)))).sum::<f64>() as f32
    }

    /// The first valid action whose cumulative probability exceeds `u`; the last one of probability above 0 where rounding leaves the sum
    /// below it.
    fn draw(&self, u: f32) -> usize {
        let (mut cumulative, mut last) = (0.0, 0);
        for a in (0..self.logits.len()).filter(|&a| self.valid(a)) {
            let p = f64::from(self.prob(a));
            cumulative += p;
            if p > 0.0 {
                last = a;
            }
            if cumulative > f64::from(u) {
                break;
            }
        }
        last
    }
}

/// log p, p, log-sum-exp and mode of every row.
pub fn distribution(op: &Categorical, operands: CategoricalDistributionOperands<'_, Vec<f32>, Vec<u32>>) {
    let CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode } = operands;
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        for a in 0..op.actions {
            log_probs[i * op.actions + a] = row.log_prob(a);
            probs[i * op.actions + a] = row.prob(a);
        }
        logsumexp[i] = if row.any { row.maximum + row.log_sum } else { 0.0 };
        mode[i] = (0..op.actions).find(|&a| row.valid(a) && row.logits[a] == row.maximum).unwrap_or(0) as u32;
    }
}

/// `log p[action]` and the entropy.
pub fn evaluate(op: &Categorical, operands: CategoricalEvaluateOperands<'_, Vec<f32>, Vec<u32>>) {
    let CategoricalEvaluateOperands { logits, mask, actions, logp, entropy } = operands;
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        logp[i] = row.action_log_prob(actions[i]);
        entropy[i] = row.entropy();
    }
}

/// Actions by inverting the cumulative distribution, with their log p.
pub fn sample(op: &Categorical, operands: CategoricalSampleOperands<'_, Vec<f32>, Vec<u32>>) {
    let CategoricalSampleOperands { logits, mask, uniforms, offset, actions, logp } = operands;
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        let action = row.draw(uniforms[offset + i]);
        actions[offset + i] = action as u32;
        logp[offset + i] = if row.any { row.log_prob(action) } else { 0.0 };
    }
}

/// Gradient of Σ d_logp·logp + d_entropy·entropy.
pub fn backward(op: &Categorical, operands: CategoricalBackwardOperands<'_, Vec<f32>, Vec<u32>>) {
    let CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits } = operands;
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        let entropy = row.entropy();
        let action = actions[i] as usize;
        let d_logp = match action {
            a if a >= op.actions => f32::NAN,
            a if !row.valid(a) => 0.0,
            _ => d_logp[i],
        };
        for a in 0..op.actions {
            let taken = if a == action { 1.0 } else { 0.0 };
            let p = row.prob(a);
            let gradient = d_logp * (taken - p) - d_entropy[i] * p * (row.log_prob(a) + entropy);
            d_logits[i * op.actions + a] = if row.valid(a) { gradient } else { 0.0 };
        }
    }
}

/// KL(p ‖ q).
pub fn kl(op: &Categorical, operands: CategoricalKlOperands<'_, Vec<f32>, Vec<u32>>) {
    let CategoricalKlOperands { p_logits, q_logits, mask, kl } = operands;
    for (i, kl) in kl.iter_mut().take(op.batch).enumerate() {
        *kl = Row::of(op, p_logits, mask, i).kl(&Row::of(op, q_logits, mask, i));
    }
}

/// Gradient of Σ d_kl·KL(p ‖ q) with respect to the logits of one of the two.
pub fn kl_backward(op: &Categorical, argument: KlArgument, operands: CategoricalKlBackwardOperands<'_, Vec<f32>, Vec<u32>>) {
    let CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits } = operands;
    for i in 0..op.batch {
        let (p, q) = (Row::of(op, p_logits, mask, i), Row::of(op, q_logits, mask, i));
        let kl = p.kl(&q);
        for a in 0..op.actions {
            d_logits[i * op.actions + a] = d_kl[i]
                * match argument {
                    KlArgument::P => p.prob(a) * (p.log_prob(a) - q.log_prob(a) - kl),
                    KlArgument::Q => q.prob(a) - p.prob(a),
                };
        }
    }
}
