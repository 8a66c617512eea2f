//! Twin of `shaders/policy/categorical.wgsl`.

use crate::kernels::policy::{Categorical, KlArgument};
use crate::real::Real;

/// A row of logits with its mask.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a, T> {
    logits: &'a [T],
    mask: Option<&'a [u32]>,
    maximum: T,
    /// log Σ exp(l − maximum) over the valid actions.
    log_sum: T,
    /// Whether any action is valid.
    any: bool,
}

impl<'a, T: Real> Row<'a, T> {
    fn new(logits: &'a [T], mask: Option<&'a [u32]>) -> Self {
        let mut row = Self { logits, mask, maximum: T::neg_infinity(), log_sum: T::zero(), any: false };
        for (a, &logit) in logits.iter().enumerate() {
            if row.valid(a) {
                row.maximum = row.maximum.max(logit);
                row.any = true;
            }
        }
        if row.any {
            let sum: f64 = (0..logits.len()).filter(|&a| row.valid(a)).map(|a| (logits[a] - row.maximum).exp().f64()).sum();
            row.log_sum = T::of(sum.ln());
        }
        row
    }

    /// Row `i` of a batch.
    pub fn of(op: &Categorical, logits: &'a [T], mask: Option<&'a [u32]>, i: usize) -> Self {
        let range = i * op.actions..(i + 1) * op.actions;
        Self::new(&logits[range.clone()], mask.map(|mask| &mask[range]))
    }

    /// Whether action `a` may be taken.
    pub fn valid(&self, a: usize) -> bool {
        self.mask.is_none_or(|mask| mask[a] != 0)
    }

    /// log p of action `a`; 0 where masked.
    pub fn log_prob(&self, a: usize) -> T {
        if self.valid(a) { self.logits[a] - self.maximum - self.log_sum } else { T::zero() }
    }

    /// p of action `a`; 0 where masked.
    pub fn prob(&self, a: usize) -> T {
        if self.valid(a) { self.log_prob(a).exp() } else { T::zero() }
    }

    /// log p of an action given as a word; NaN where it is out of range.
    fn action_log_prob(&self, action: u32) -> T {
        if (action as usize) < self.logits.len() { self.log_prob(action as usize) } else { T::nan() }
    }

    /// −Σ p·log p.
    pub fn entropy(&self) -> T {
        T::of(-(0..self.logits.len()).map(|a| (self.prob(a) * self.log_prob(a)).f64()).sum::<f64>())
    }

    /// Σ p·(log p − log q).
    fn kl(&self, q: &Self) -> T {
        T::of((0..self.logits.len()).map(|a| (self.prob(a) * (self.log_prob(a) - q.log_prob(a))).f64()).sum())
    }

    /// The first valid action whose cumulative probability exceeds `u`; the last one of probability above 0 where rounding leaves the sum
    /// below it.
    fn draw(&self, u: T) -> usize {
        let (mut cumulative, mut last) = (0.0, 0);
        for a in (0..self.logits.len()).filter(|&a| self.valid(a)) {
            let p = self.prob(a).f64();
            cumulative += p;
            if p > 0.0 {
                last = a;
            }
            if cumulative > u.f64() {
                break;
            }
        }
        last
    }

    /// Distance of `u` from the stretch of the cumulative distribution that belongs to `action`; infinite for an action that cannot be drawn.
    pub fn distance_from_stretch(&self, action: u32, u: f64) -> f64 {
        let action = action as usize;
        if !self.any {
            return if action == 0 { 0.0 } else { f64::INFINITY };
        }
        if action >= self.logits.len() || self.prob(action) == T::zero() {
            return f64::INFINITY;
        }
        let before: f64 = (0..action).map(|a| self.prob(a).f64()).sum();
        let after = before + self.prob(action).f64();
        (before - u).max(u - after).max(0.0)
    }
}

/// log p, p, log-sum-exp and mode of every row.
pub fn distribution<T: Real>(
    op: &Categorical,
    logits: &[T],
    mask: Option<&[u32]>,
    log_probs: &mut [T],
    probs: &mut [T],
    logsumexp: &mut [T],
    mode: &mut [u32],
) {
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        for a in 0..op.actions {
            log_probs[i * op.actions + a] = row.log_prob(a);
            probs[i * op.actions + a] = row.prob(a);
        }
        logsumexp[i] = if row.any { row.maximum + row.log_sum } else { T::zero() };
        mode[i] = (0..op.actions).find(|&a| row.valid(a) && row.logits[a] == row.maximum).unwrap_or(0) as u32;
    }
}

/// `log p[action]` and H = −Σ p·log p.
pub fn evaluate<T: Real>(
    op: &Categorical,
    logits: &[T],
    mask: Option<&[u32]>,
    actions: &[u32],
    logp: &mut [T],
    entropy: &mut [T],
) {
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        logp[i] = row.action_log_prob(actions[i]);
        entropy[i] = row.entropy();
    }
}

/// Actions by inverting the cumulative distribution, with their log p; slices start at the first row to write.
pub fn sample<T: Real>(
    op: &Categorical,
    logits: &[T],
    mask: Option<&[u32]>,
    uniforms: &[T],
    actions: &mut [u32],
    logp: &mut [T],
) {
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        let action = row.draw(uniforms[i]);
        actions[i] = action as u32;
        logp[i] = if row.any { row.log_prob(action) } else { T::zero() };
    }
}

/// `d_logp·(1[a] − p) − d_entropy·p·(log p + H)`.
pub fn backward<T: Real>(
    op: &Categorical,
    logits: &[T],
    mask: Option<&[u32]>,
    actions: &[u32],
    d_logp: &[T],
    d_entropy: &[T],
    d_logits: &mut [T],
) {
    for i in 0..op.batch {
        let row = Row::of(op, logits, mask, i);
        let entropy = row.entropy();
        let action = actions[i] as usize;
        let d_logp = match action {
            a if a >= op.actions => T::nan(),
            a if !row.valid(a) => T::zero(),
            _ => d_logp[i],
        };
        for a in 0..op.actions {
            let taken = if a == action { T::one() } else { T::zero() };
            let p = row.prob(a);
            let gradient = d_logp * (taken - p) - d_entropy[i] * p * (row.log_prob(a) + entropy);
            d_logits[i * op.actions + a] = if row.valid(a) { gradient } else { T::zero() };
        }
    }
}

/// KL(p ‖ q) = Σ p·(log p − log q).
pub fn kl<T: Real>(op: &Categorical, p_logits: &[T], q_logits: &[T], mask: Option<&[u32]>, kl: &mut [T]) {
    for (i, kl) in kl.iter_mut().take(op.batch).enumerate() {
        *kl = Row::of(op, p_logits, mask, i).kl(&Row::of(op, q_logits, mask, i));
    }
}

/// d_kl·p·(log p − log q − KL) for p, d_kl·(q − p) for q.
pub fn kl_backward<T: Real>(
    op: &Categorical,
    argument: KlArgument,
    p_logits: &[T],
    q_logits: &[T],
    mask: Option<&[u32]>,
    d_kl: &[T],
    d_logits: &mut [T],
) {
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
