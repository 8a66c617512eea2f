//! The operations of [`kernels::policy`](crate::kernels::policy) on every backend.

use super::Memory;
use crate::error::Result;
use crate::kernels::policy::{Categorical, Gaussian, KlArgument, SquashedGaussian};
use crate::real::Real;

/// Log-probabilities, entropies, KL divergences, samples, and the gradients of all of them.
pub trait PolicyOps: Memory {
    /// All there is to know of each row: `log_probs [batch, actions]` (0 where masked), `probs [batch, actions]`, `logsumexp [batch]`,
    /// and the most likely action `mode [batch]` (the first of equals).
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a buffer too small.
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        log_probs: &mut Self::Floats,
        probs: &mut Self::Floats,
        logsumexp: &mut Self::Floats,
        mode: &mut Self::Words,
    ) -> Result<()>;

    /// `logp [batch]` of the given `actions [batch]` and `entropy [batch]`. An action outside 0..actions gives NaN.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        logp: &mut Self::Floats,
        entropy: &mut Self::Floats,
    ) -> Result<()>;

    /// Draws actions by inverting the cumulative distribution: the first valid action whose cumulative probability exceeds
    /// `uniforms[offset + i]`. Writes `actions` and `logp` at `offset + i` too, so that whole rollouts share one buffer.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_sample(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        uniforms: &Self::Floats,
        offset: usize,
        actions: &mut Self::Words,
        logp: &mut Self::Floats,
    ) -> Result<()>;

    /// `d_logits [batch, actions]` of Σ d_logp·logp + d_entropy·entropy, with `d_logp` and `d_entropy [batch]`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_backward(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        d_logp: &Self::Floats,
        d_entropy: &Self::Floats,
        d_logits: &mut Self::Floats,
    ) -> Result<()>;

    /// `kl [batch]` = KL(p ‖ q) of two batches of logits under one mask.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_kl(
        &mut self,
        op: &Categorical,
        p_logits: &Self::Floats,
        q_logits: &Self::Floats,
        mask: Option<&Self::Words>,
        kl: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of Σ d_kl·KL(p ‖ q) with respect to the logits of `argument`, `[batch, actions]`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        p_logits: &Self::Floats,
        q_logits: &Self::Floats,
        mask: Option<&Self::Words>,
        d_kl: &Self::Floats,
        d_logits: &mut Self::Floats,
    ) -> Result<()>;

    /// `logp [batch]` of `actions [batch, dim]` and `entropy [batch]`, summed over dimensions.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_evaluate(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        logp: &mut Self::Floats,
        entropy: &mut Self::Floats,
    ) -> Result<()>;

    /// actions = mean + e^log_std·noise and their `logp`. `offset` counts rows: `noise` and `actions` (`[.., dim]`) and `logp` are read and
    /// written from row `offset` on; `mean` starts at its row 0.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_sample(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        noise: &Self::Floats,
        offset: usize,
        actions: &mut Self::Floats,
        logp: &mut Self::Floats,
    ) -> Result<()>;

    /// `d_mean [batch, dim]` and `d_log_std` (from element `d_log_std_offset` on) of Σ d_logp·logp + d_entropy·entropy.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_backward(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        d_logp: &Self::Floats,
        d_entropy: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
        d_log_std_offset: usize,
    ) -> Result<()>;

    /// `kl [batch]` = KL(p ‖ q), summed over dimensions. Both log-stds have the shape that `op` says.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_kl(
        &mut self,
        op: &Gaussian,
        p_mean: &Self::Floats,
        p_log_std: &Self::Floats,
        q_mean: &Self::Floats,
        q_log_std: &Self::Floats,
        kl: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of Σ d_kl·KL(p ‖ q) with respect to mean and log-std of `argument`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        p_mean: &Self::Floats,
        p_log_std: &Self::Floats,
        q_mean: &Self::Floats,
        q_log_std: &Self::Floats,
        d_kl: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
    ) -> Result<()>;

    /// For given u `[batch, dim]`: the scaled `actions [batch, dim]`, `log_det [batch, dim]` = log(1 − tanh²u) of the squashing alone, and
    /// `logp [batch]` of the scaled action: Σ_d log N(u) − log_det − log((high − low)/2).
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        u: &Self::Floats,
        actions: &mut Self::Floats,
        log_det: &mut Self::Floats,
        logp: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of Σ d_logp·logp. With `reparameterised`, u counts as mean + e^log_std·noise and moves with mean and log-std; otherwise it
    /// stands still.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        u: &Self::Floats,
        d_logp: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
    ) -> Result<()>;
}

impl<T: Real> PolicyOps for super::Cpu<T> {
    #[allow(unused_variables)]
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        log_probs: &mut Vec<T>,
        probs: &mut Vec<T>,
        logsumexp: &mut Vec<T>,
        mode: &mut Vec<u32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        actions: &Vec<u32>,
        logp: &mut Vec<T>,
        entropy: &mut Vec<T>,
    ) -> Result<()> {
        let a = op.actions;
        for i in 0..op.batch {
            let v = |j: usize| mask.is_none_or(|m| m[i * a + j] != 0);
            let row: Vec<f64> = (0..a).map(|j| logits[i * a + j].f64()).collect();
            let mx = (0..a).filter(|&j| v(j)).map(|j| row[j]).fold(f64::MIN, f64::max);
            let s: f64 = (0..a).filter(|&j| v(j)).map(|j| (row[j] - mx).exp()).sum();
            let ls = s.ln();
            let act = actions[i] as usize;
            logp[i] = T::of(if act >= a {
                f64::NAN
            } else if v(act) {
                row[act] - mx - ls
            } else {
                0.0
            });
            entropy[i] = T::of(
                (0..a)
                    .filter(|&j| v(j))
                    .map(|j| {
                        let l = row[j] - mx - ls;
                        let p = l.exp();
                        if p > 0.0 { -p * l } else { 0.0 }
                    })
                    .sum(),
            );
        }
        Ok(())
    }
    #[allow(unused_variables)]
    fn categorical_sample(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        uniforms: &Vec<T>,
        offset: usize,
        actions: &mut Vec<u32>,
        logp: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_backward(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        actions: &Vec<u32>,
        d_logp: &Vec<T>,
        d_entropy: &Vec<T>,
        d_logits: &mut Vec<T>,
    ) -> Result<()> {
        let a = op.actions;
        for i in 0..op.batch {
            let v = |j: usize| mask.is_none_or(|m| m[i * a + j] != 0);
            let row: Vec<f64> = (0..a).map(|j| logits[i * a + j].f64()).collect();
            let mx = (0..a).filter(|&j| v(j)).map(|j| row[j]).fold(f64::MIN, f64::max);
            let s: f64 = (0..a).filter(|&j| v(j)).map(|j| (row[j] - mx).exp()).sum();
            let ls = s.ln();
            let h: f64 = (0..a)
                .filter(|&j| v(j))
                .map(|j| {
                    let l = row[j] - mx - ls;
                    let p = l.exp();
                    if p > 0.0 { -p * l } else { 0.0 }
                })
                .sum();
            let act = actions[i] as usize;
            for j in 0..a {
                d_logits[i * a + j] = T::of(if !v(j) {
                    0.0
                } else {
                    let l = row[j] - mx - ls;
                    let p = l.exp();
                    d_logp[i].f64() * ((if j == act { 1.0 } else { 0.0 }) - p)
                        - if p > 0.0 { d_entropy[i].f64() * p * (l + h) } else { 0.0 }
                });
            }
        }
        Ok(())
    }
    #[allow(unused_variables)]
    fn categorical_kl(
        &mut self,
        op: &Categorical,
        p_logits: &Vec<T>,
        q_logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        kl: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        p_logits: &Vec<T>,
        q_logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        d_kl: &Vec<T>,
        d_logits: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_evaluate(
        &mut self,
        op: &Gaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        actions: &Vec<T>,
        logp: &mut Vec<T>,
        entropy: &mut Vec<T>,
    ) -> Result<()> {
        let c = 0.5 * (2.0 * std::f64::consts::PI).ln();
        for i in 0..op.batch {
            let (mut l, mut h) = (0.0, 0.0);
            for d in 0..op.dim {
                let ls = log_std[op.log_std_offset + if op.state_dependent_std { i * op.dim + d } else { d }].f64();
                let z = (actions[i * op.dim + d].f64() - mean[i * op.dim + d].f64()) * (-ls).exp();
                l -= 0.5 * z * z + ls + c;
                h += ls + 0.5 + c;
            }
            logp[i] = T::of(l);
            entropy[i] = T::of(h);
        }
        Ok(())
    }
    #[allow(unused_variables)]
    fn gaussian_sample(
        &mut self,
        op: &Gaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        noise: &Vec<T>,
        offset: usize,
        actions: &mut Vec<T>,
        logp: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_backward(
        &mut self,
        op: &Gaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        actions: &Vec<T>,
        d_logp: &Vec<T>,
        d_entropy: &Vec<T>,
        d_mean: &mut Vec<T>,
        d_log_std: &mut Vec<T>,
        d_log_std_offset: usize,
    ) -> Result<()> {
        let mut acc = vec![0.0; op.dim];
        for i in 0..op.batch {
            for d in 0..op.dim {
                let e = i * op.dim + d;
                let ls = log_std[op.log_std_offset + if op.state_dependent_std { e } else { d }].f64();
                let z = (actions[e].f64() - mean[e].f64()) * (-ls).exp();
                d_mean[e] = T::of(d_logp[i].f64() * z * (-ls).exp());
                let g = d_logp[i].f64() * (z * z - 1.0) + d_entropy[i].f64();
                if op.state_dependent_std { d_log_std[d_log_std_offset + e] = T::of(g) } else { acc[d] += g }
            }
        }
        if !op.state_dependent_std {
            for d in 0..op.dim {
                d_log_std[d_log_std_offset + d] = T::of(acc[d])
            }
        }
        Ok(())
    }
    #[allow(unused_variables)]
    fn gaussian_kl(
        &mut self,
        op: &Gaussian,
        p_mean: &Vec<T>,
        p_log_std: &Vec<T>,
        q_mean: &Vec<T>,
        q_log_std: &Vec<T>,
        kl: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        p_mean: &Vec<T>,
        p_log_std: &Vec<T>,
        q_mean: &Vec<T>,
        q_log_std: &Vec<T>,
        d_kl: &Vec<T>,
        d_mean: &mut Vec<T>,
        d_log_std: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        u: &Vec<T>,
        actions: &mut Vec<T>,
        log_det: &mut Vec<T>,
        logp: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        u: &Vec<T>,
        d_logp: &Vec<T>,
        d_mean: &mut Vec<T>,
        d_log_std: &mut Vec<T>,
    ) -> Result<()> {
        unimplemented!()
    }
}
impl PolicyOps for super::Gpu {
    #[allow(unused_variables)]
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        logits: &crate::gpu::Buffer<f32>,
        mask: Option<&crate::gpu::Buffer<u32>>,
        log_probs: &mut crate::gpu::Buffer<f32>,
        probs: &mut crate::gpu::Buffer<f32>,
        logsumexp: &mut crate::gpu::Buffer<f32>,
        mode: &mut crate::gpu::Buffer<u32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        logits: &crate::gpu::Buffer<f32>,
        mask: Option<&crate::gpu::Buffer<u32>>,
        actions: &crate::gpu::Buffer<u32>,
        logp: &mut crate::gpu::Buffer<f32>,
        entropy: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        let c_logits = self.context.read(logits, 0, logits.len())?;
        let c_actions = self.context.read(actions, 0, actions.len())?;
        let m = match mask {
            Some(m) => Some(self.context.read(m, 0, m.len())?),
            None => None,
        };
        let (mut l, mut h) = (vec![0f32; op.batch], vec![0f32; op.batch]);
        super::Cpu::<f32>::new().categorical_evaluate(op, &c_logits, m.as_ref(), &c_actions, &mut l, &mut h)?;
        self.context.write(logp, 0, &l)?;
        self.context.write(entropy, 0, &h)
    }
    #[allow(unused_variables)]
    fn categorical_sample(
        &mut self,
        op: &Categorical,
        logits: &crate::gpu::Buffer<f32>,
        mask: Option<&crate::gpu::Buffer<u32>>,
        uniforms: &crate::gpu::Buffer<f32>,
        offset: usize,
        actions: &mut crate::gpu::Buffer<u32>,
        logp: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_backward(
        &mut self,
        op: &Categorical,
        logits: &crate::gpu::Buffer<f32>,
        mask: Option<&crate::gpu::Buffer<u32>>,
        actions: &crate::gpu::Buffer<u32>,
        d_logp: &crate::gpu::Buffer<f32>,
        d_entropy: &crate::gpu::Buffer<f32>,
        d_logits: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        let c_logits = self.context.read(logits, 0, logits.len())?;
        let c_actions = self.context.read(actions, 0, actions.len())?;
        let c_d_logp = self.context.read(d_logp, 0, d_logp.len())?;
        let c_d_entropy = self.context.read(d_entropy, 0, d_entropy.len())?;
        let m = match mask {
            Some(m) => Some(self.context.read(m, 0, m.len())?),
            None => None,
        };
        let mut l = vec![0f32; op.batch * op.actions];
        super::Cpu::<f32>::new().categorical_backward(op, &c_logits, m.as_ref(), &c_actions, &c_d_logp, &c_d_entropy, &mut l)?;
        self.context.write(d_logits, 0, &l)
    }
    #[allow(unused_variables)]
    fn categorical_kl(
        &mut self,
        op: &Categorical,
        p_logits: &crate::gpu::Buffer<f32>,
        q_logits: &crate::gpu::Buffer<f32>,
        mask: Option<&crate::gpu::Buffer<u32>>,
        kl: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        p_logits: &crate::gpu::Buffer<f32>,
        q_logits: &crate::gpu::Buffer<f32>,
        mask: Option<&crate::gpu::Buffer<u32>>,
        d_kl: &crate::gpu::Buffer<f32>,
        d_logits: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_evaluate(
        &mut self,
        op: &Gaussian,
        mean: &crate::gpu::Buffer<f32>,
        log_std: &crate::gpu::Buffer<f32>,
        actions: &crate::gpu::Buffer<f32>,
        logp: &mut crate::gpu::Buffer<f32>,
        entropy: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        let c_mean = self.context.read(mean, 0, mean.len())?;
        let c_actions = self.context.read(actions, 0, actions.len())?;
        let c_log_std = self.context.read(log_std, 0, log_std.len())?;
        let (mut l, mut h) = (vec![0f32; op.batch], vec![0f32; op.batch]);
        super::Cpu::<f32>::new().gaussian_evaluate(op, &c_mean, &c_log_std, &c_actions, &mut l, &mut h)?;
        self.context.write(logp, 0, &l)?;
        self.context.write(entropy, 0, &h)
    }
    #[allow(unused_variables)]
    fn gaussian_sample(
        &mut self,
        op: &Gaussian,
        mean: &crate::gpu::Buffer<f32>,
        log_std: &crate::gpu::Buffer<f32>,
        noise: &crate::gpu::Buffer<f32>,
        offset: usize,
        actions: &mut crate::gpu::Buffer<f32>,
        logp: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_backward(
        &mut self,
        op: &Gaussian,
        mean: &crate::gpu::Buffer<f32>,
        log_std: &crate::gpu::Buffer<f32>,
        actions: &crate::gpu::Buffer<f32>,
        d_logp: &crate::gpu::Buffer<f32>,
        d_entropy: &crate::gpu::Buffer<f32>,
        d_mean: &mut crate::gpu::Buffer<f32>,
        d_log_std: &mut crate::gpu::Buffer<f32>,
        d_log_std_offset: usize,
    ) -> Result<()> {
        let c_mean = self.context.read(mean, 0, mean.len())?;
        let c_actions = self.context.read(actions, 0, actions.len())?;
        let c_log_std = self.context.read(log_std, 0, log_std.len())?;
        let c_d_logp = self.context.read(d_logp, 0, d_logp.len())?;
        let c_d_entropy = self.context.read(d_entropy, 0, d_entropy.len())?;
        let mut l = vec![0f32; op.batch * op.dim];
        let mut g = self.context.read(d_log_std, 0, d_log_std.len())?;
        super::Cpu::<f32>::new().gaussian_backward(
            op,
            &c_mean,
            &c_log_std,
            &c_actions,
            &c_d_logp,
            &c_d_entropy,
            &mut l,
            &mut g,
            d_log_std_offset,
        )?;
        self.context.write(d_mean, 0, &l)?;
        self.context.write(d_log_std, 0, &g)
    }
    #[allow(unused_variables)]
    fn gaussian_kl(
        &mut self,
        op: &Gaussian,
        p_mean: &crate::gpu::Buffer<f32>,
        p_log_std: &crate::gpu::Buffer<f32>,
        q_mean: &crate::gpu::Buffer<f32>,
        q_log_std: &crate::gpu::Buffer<f32>,
        kl: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        p_mean: &crate::gpu::Buffer<f32>,
        p_log_std: &crate::gpu::Buffer<f32>,
        q_mean: &crate::gpu::Buffer<f32>,
        q_log_std: &crate::gpu::Buffer<f32>,
        d_kl: &crate::gpu::Buffer<f32>,
        d_mean: &mut crate::gpu::Buffer<f32>,
        d_log_std: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mean: &crate::gpu::Buffer<f32>,
        log_std: &crate::gpu::Buffer<f32>,
        u: &crate::gpu::Buffer<f32>,
        actions: &mut crate::gpu::Buffer<f32>,
        log_det: &mut crate::gpu::Buffer<f32>,
        logp: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mean: &crate::gpu::Buffer<f32>,
        log_std: &crate::gpu::Buffer<f32>,
        u: &crate::gpu::Buffer<f32>,
        d_logp: &crate::gpu::Buffer<f32>,
        d_mean: &mut crate::gpu::Buffer<f32>,
        d_log_std: &mut crate::gpu::Buffer<f32>,
    ) -> Result<()> {
        unimplemented!()
    }
}
impl<A: PolicyOps, B: PolicyOps> PolicyOps for super::CrossCheck<A, B> {
    #[allow(unused_variables)]
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        log_probs: &mut Self::Floats,
        probs: &mut Self::Floats,
        logsumexp: &mut Self::Floats,
        mode: &mut Self::Words,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        logp: &mut Self::Floats,
        entropy: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_sample(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        uniforms: &Self::Floats,
        offset: usize,
        actions: &mut Self::Words,
        logp: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_backward(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        d_logp: &Self::Floats,
        d_entropy: &Self::Floats,
        d_logits: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_kl(
        &mut self,
        op: &Categorical,
        p_logits: &Self::Floats,
        q_logits: &Self::Floats,
        mask: Option<&Self::Words>,
        kl: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        p_logits: &Self::Floats,
        q_logits: &Self::Floats,
        mask: Option<&Self::Words>,
        d_kl: &Self::Floats,
        d_logits: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_evaluate(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        logp: &mut Self::Floats,
        entropy: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_sample(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        noise: &Self::Floats,
        offset: usize,
        actions: &mut Self::Floats,
        logp: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_backward(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        d_logp: &Self::Floats,
        d_entropy: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
        d_log_std_offset: usize,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_kl(
        &mut self,
        op: &Gaussian,
        p_mean: &Self::Floats,
        p_log_std: &Self::Floats,
        q_mean: &Self::Floats,
        q_log_std: &Self::Floats,
        kl: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        p_mean: &Self::Floats,
        p_log_std: &Self::Floats,
        q_mean: &Self::Floats,
        q_log_std: &Self::Floats,
        d_kl: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        u: &Self::Floats,
        actions: &mut Self::Floats,
        log_det: &mut Self::Floats,
        logp: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
    #[allow(unused_variables)]
    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        u: &Self::Floats,
        d_logp: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
    ) -> Result<()> {
        unimplemented!()
    }
}
