//! Inputs of every operation, kept in f64 so that finite differences can move them. Drawn ones are exact in f32.

use ppo_kernels::Result;
use ppo_kernels::backend::{Memory, PolicyOps};
use ppo_kernels::kernels::policy::tolerance::CategoricalBounds;
use ppo_kernels::kernels::policy::*;
use ppo_kernels::tolerance::{F32_ROUNDOFF, Tolerance};

use crate::common::Draw;

pub fn upload<B: Memory>(backend: &mut B, x: &[f64]) -> Result<B::Floats> {
    let mut buffer = backend.alloc_floats(x.len())?;
    backend.write_f64(&mut buffer, 0, x)?;
    Ok(buffer)
}

/// Unit roundoff of what the backend stores.
pub fn roundoff<B: Memory>(backend: &mut B) -> f64 {
    let just_above_one = 1.0 + f64::EPSILON;
    let stored = upload(backend, &[just_above_one]).unwrap();
    if backend.read_f64(&stored, 0, 1).unwrap() == [just_above_one] { f64::EPSILON / 2.0 } else { F32_ROUNDOFF }
}

/// Within the contract's bound for f32, scaled to the backend's roundoff. The contract takes inputs as they are; where `expected` is a
/// decimal, storing the inputs moves it by a rounding or two more.
#[track_caller]
pub fn assert_within<B: Memory>(backend: &mut B, found: &[f64], expected: &[f64], tolerance: &Tolerance) {
    assert_eq!(found.len(), expected.len());
    let unit = roundoff(backend);
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance.allowed(i, *y) / F32_ROUNDOFF * unit + 2.0 * unit * y.abs().max(1.0);
        assert!((x - y).abs() <= allowed, "element {i}: {x:e}, expected {y:e} within {allowed:e}");
    }
}

fn wide(x: Vec<f32>) -> Vec<f64> {
    x.into_iter().map(f64::from).collect()
}

/// Rows of logits and all that the categorical operations take besides.
#[derive(Debug, Clone)]
pub struct Rows {
    pub op: Categorical,
    pub logits: Vec<f64>,
    pub q_logits: Vec<f64>,
    pub mask: Option<Vec<u32>>,
    pub actions: Vec<u32>,
    pub uniforms: Vec<f64>,
    pub d_logp: Vec<f64>,
    pub d_entropy: Vec<f64>,
    pub d_kl: Vec<f64>,
}

/// Outputs of `categorical_distribution`.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    pub log_probs: Vec<f64>,
    pub probs: Vec<f64>,
    pub logsumexp: Vec<f64>,
    pub mode: Vec<u32>,
}

impl Rows {
    /// Given logits; q is uniform, action 0 is taken, every gradient that comes in is 1.
    pub fn of(actions: usize, logits: &[f64]) -> Self {
        let batch = logits.len() / actions;
        Self {
            op: Categorical { batch, actions },
            logits: logits.to_vec(),
            q_logits: vec![0.0; logits.len()],
            mask: None,
            actions: vec![0; batch],
            uniforms: vec![0.5; batch],
            d_logp: vec![1.0; batch],
            d_entropy: vec![1.0; batch],
            d_kl: vec![1.0; batch],
        }
    }

    /// Logits, actions and gradients at random; under a mask every third action or so may not be taken, and whole rows of few actions.
    pub fn drawn(seed: u64, batch: usize, actions: usize, scale: f32, masked: bool) -> Self {
        let mut draw = Draw::new(seed);
        let n = batch * actions;
        let grid = 1 << 20;
        Self {
            op: Categorical { batch, actions },
            logits: wide(draw.floats(n, scale)),
            q_logits: wide(draw.floats(n, scale)),
            mask: masked.then(|| draw.flags(n, 0.7)),
            actions: draw.words(batch, actions as u32),
            uniforms: draw.words(batch, grid).into_iter().map(|word| (f64::from(word) + 0.5) / f64::from(grid)).collect(),
            d_logp: wide(draw.floats(batch, 1.0)),
            d_entropy: wide(draw.floats(batch, 1.0)),
            d_kl: wide(draw.floats(batch, 1.0)),
        }
    }

    pub fn masked_by(self, mask: &[u32]) -> Self {
        Self { mask: Some(mask.to_vec()), ..self }
    }

    fn mask<B: Memory>(&self, backend: &mut B) -> Result<Option<B::Words>> {
        self.mask.as_ref().map(|mask| backend.upload_words(mask)).transpose()
    }

    /// The contract's bounds for p and for q.
    pub fn bounds(&self) -> [CategoricalBounds; 2] {
        [&self.logits, &self.q_logits].map(|logits| self.op.bounds(logits, self.mask.as_deref()))
    }

    pub fn valid(&self, element: usize) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask[element] != 0)
    }

    pub fn distribution<B: PolicyOps>(&self, backend: &mut B) -> Result<Distribution> {
        let (n, batch) = (self.logits.len(), self.op.batch);
        let (logits, mask) = (&upload(backend, &self.logits)?, &self.mask(backend)?);
        let (log_probs, probs) = (&mut backend.alloc_floats(n)?, &mut backend.alloc_floats(n)?);
        let (logsumexp, mode) = (&mut backend.alloc_floats(batch)?, &mut backend.alloc_words(batch)?);
        let operands = CategoricalDistributionOperands { logits, mask: mask.as_ref(), log_probs, probs, logsumexp, mode };
        backend.categorical_distribution(&self.op, operands)?;
        Ok(Distribution {
            log_probs: backend.read_f64(log_probs, 0, n)?,
            probs: backend.read_f64(probs, 0, n)?,
            logsumexp: backend.read_f64(logsumexp, 0, batch)?,
            mode: backend.read_words(mode, 0, batch)?,
        })
    }

    /// logp and entropy.
    pub fn evaluate<B: PolicyOps>(&self, backend: &mut B) -> Result<(Vec<f64>, Vec<f64>)> {
        let batch = self.op.batch;
        let (logits, mask) = (&upload(backend, &self.logits)?, &self.mask(backend)?);
        let actions = &backend.upload_words(&self.actions)?;
        let (logp, entropy) = (&mut backend.alloc_floats(batch)?, &mut backend.alloc_floats(batch)?);
        backend.categorical_evaluate(
            &self.op,
            CategoricalEvaluateOperands { logits, mask: mask.as_ref(), actions, logp, entropy },
        )?;
        Ok((backend.read_f64(logp, 0, batch)?, backend.read_f64(entropy, 0, batch)?))
    }

    /// Actions and logp, written from row `offset` of buffers that end with them.
    pub fn sample<B: PolicyOps>(&self, backend: &mut B, offset: usize) -> Result<(Vec<u32>, Vec<f64>)> {
        let batch = self.op.batch;
        let (logits, mask) = (&upload(backend, &self.logits)?, &self.mask(backend)?);
        let uniforms = &mut backend.alloc_floats(offset + batch)?;
        backend.write_f64(uniforms, offset, &self.uniforms)?;
        let (actions, logp) = (&mut backend.alloc_words(offset + batch)?, &mut backend.alloc_floats(offset + batch)?);
        backend.categorical_sample(
            &self.op,
            CategoricalSampleOperands { logits, mask: mask.as_ref(), uniforms, offset, actions, logp },
        )?;
        Ok((backend.read_words(actions, offset, batch)?, backend.read_f64(logp, offset, batch)?))
    }

    pub fn backward<B: PolicyOps>(&self, backend: &mut B) -> Result<Vec<f64>> {
        let (logits, mask) = (&upload(backend, &self.logits)?, &self.mask(backend)?);
        let actions = &backend.upload_words(&self.actions)?;
        let (d_logp, d_entropy) = (&upload(backend, &self.d_logp)?, &upload(backend, &self.d_entropy)?);
        let d_logits = &mut backend.alloc_floats(self.logits.len())?;
        let operands = CategoricalBackwardOperands { logits, mask: mask.as_ref(), actions, d_logp, d_entropy, d_logits };
        backend.categorical_backward(&self.op, operands)?;
        backend.read_f64(d_logits, 0, self.logits.len())
    }

    pub fn kl<B: PolicyOps>(&self, backend: &mut B) -> Result<Vec<f64>> {
        let (p_logits, q_logits) = (&upload(backend, &self.logits)?, &upload(backend, &self.q_logits)?);
        let (mask, kl) = (&self.mask(backend)?, &mut backend.alloc_floats(self.op.batch)?);
        backend.categorical_kl(&self.op, CategoricalKlOperands { p_logits, q_logits, mask: mask.as_ref(), kl })?;
        backend.read_f64(kl, 0, self.op.batch)
    }

    pub fn kl_backward<B: PolicyOps>(&self, backend: &mut B, argument: KlArgument) -> Result<Vec<f64>> {
        let (p_logits, q_logits) = (&upload(backend, &self.logits)?, &upload(backend, &self.q_logits)?);
        let (mask, d_kl) = (&self.mask(backend)?, &upload(backend, &self.d_kl)?);
        let d_logits = &mut backend.alloc_floats(self.logits.len())?;
        let operands = CategoricalKlBackwardOperands { p_logits, q_logits, mask: mask.as_ref(), d_kl, d_logits };
        backend.categorical_kl_backward(&self.op, argument, operands)?;
        backend.read_f64(d_logits, 0, self.logits.len())
    }

    /// Every operation, for backends that judge by themselves.
    pub fn everything<B: PolicyOps>(&self, backend: &mut B) -> Result<()> {
        self.distribution(backend)?;
        self.evaluate(backend)?;
        self.sample(backend, 3)?;
        self.backward(backend)?;
        self.kl(backend)?;
        self.kl_backward(backend, KlArgument::P)?;
        self.kl_backward(backend, KlArgument::Q)?;
        Ok(())
    }
}

/// Gaussian rows and all that their operations take besides. `x` serves as action, as noise and as u.
#[derive(Debug, Clone)]
pub struct Normals {
    pub op: Gaussian,
    pub mean: Vec<f64>,
    pub log_std: Vec<f64>,
    pub x: Vec<f64>,
    pub q_mean: Vec<f64>,
    pub q_log_std: Vec<f64>,
    pub d_logp: Vec<f64>,
    pub d_entropy: Vec<f64>,
    pub d_kl: Vec<f64>,
    pub d_log_std_offset: usize,
    pub low: f64,
    pub high: f64,
}

impl Normals {
    /// Given means and x with one log-std a dimension; q is standard normal, every gradient that comes in is 1, actions lie in −1..1.
    pub fn of(mean: &[f64], log_std: &[f64], x: &[f64]) -> Self {
        let dim = log_std.len();
        let batch = mean.len() / dim;
        Self {
            op: Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 },
            mean: mean.to_vec(),
            log_std: log_std.to_vec(),
            x: x.to_vec(),
            q_mean: vec![0.0; mean.len()],
            q_log_std: vec![0.0; dim],
            d_logp: vec![1.0; batch],
            d_entropy: vec![1.0; batch],
            d_kl: vec![1.0; batch],
            d_log_std_offset: 0,
            low: -1.0,
            high: 1.0,
        }
    }

    /// All at random, with log-stds around −0.5 that do not start their buffers.
    pub fn drawn(seed: u64, batch: usize, dim: usize, state_dependent_std: bool) -> Self {
        let mut draw = Draw::new(seed);
        let op = Gaussian { batch, dim, state_dependent_std, log_std_offset: 2 };
        let mut log_std = || -> Vec<f64> {
            let drawn = draw.floats(op.log_std_offset + op.log_std_len(), 0.5);
            drawn.into_iter().map(|s| f64::from(s - 0.5)).collect()
        };
        let (log_std, q_log_std) = (log_std(), log_std());
        let n = batch * dim;
        let mut floats = |n| wide(draw.floats(n, 1.0));
        Self {
            op,
            mean: floats(n),
            log_std,
            x: floats(n),
            q_mean: floats(n),
            q_log_std,
            d_logp: floats(batch),
            d_entropy: floats(batch),
            d_kl: floats(batch),
            d_log_std_offset: 3,
            low: -0.5,
            high: 2.25,
        }
    }

    pub fn squashed(&self) -> SquashedGaussian {
        SquashedGaussian { gaussian: self.op, low: self.low, high: self.high }
    }

    fn inputs<B: Memory>(&self, backend: &mut B) -> Result<[B::Floats; 3]> {
        Ok([upload(backend, &self.mean)?, upload(backend, &self.log_std)?, upload(backend, &self.x)?])
    }

    /// logp and entropy.
    pub fn evaluate<B: PolicyOps>(&self, backend: &mut B) -> Result<(Vec<f64>, Vec<f64>)> {
        let batch = self.op.batch;
        let [mean, log_std, actions] = &self.inputs(backend)?;
        let (logp, entropy) = (&mut backend.alloc_floats(batch)?, &mut backend.alloc_floats(batch)?);
        backend.gaussian_evaluate(&self.op, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })?;
        Ok((backend.read_f64(logp, 0, batch)?, backend.read_f64(entropy, 0, batch)?))
    }

    /// Actions and logp, with `x` as the noise, from row `offset` of buffers that end with them.
    pub fn sample<B: PolicyOps>(&self, backend: &mut B, offset: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let (batch, dim) = (self.op.batch, self.op.dim);
        let (mean, log_std) = (&upload(backend, &self.mean)?, &upload(backend, &self.log_std)?);
        let noise = &mut backend.alloc_floats((offset + batch) * dim)?;
        backend.write_f64(noise, offset * dim, &self.x)?;
        let (actions, logp) = (&mut backend.alloc_floats((offset + batch) * dim)?, &mut backend.alloc_floats(offset + batch)?);
        backend.gaussian_sample(&self.op, GaussianSampleOperands { mean, log_std, noise, offset, actions, logp })?;
        Ok((backend.read_f64(actions, offset * dim, batch * dim)?, backend.read_f64(logp, offset, batch)?))
    }

    /// d_mean and d_log_std.
    pub fn backward<B: PolicyOps>(&self, backend: &mut B) -> Result<(Vec<f64>, Vec<f64>)> {
        let (n, log_stds) = (self.mean.len(), self.op.log_std_len());
        let [mean, log_std, actions] = &self.inputs(backend)?;
        let (d_logp, d_entropy) = (&upload(backend, &self.d_logp)?, &upload(backend, &self.d_entropy)?);
        let d_log_std_offset = self.d_log_std_offset;
        let (d_mean, d_log_std) = (&mut backend.alloc_floats(n)?, &mut backend.alloc_floats(d_log_std_offset + log_stds)?);
        let operands =
            GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
        backend.gaussian_backward(&self.op, operands)?;
        Ok((backend.read_f64(d_mean, 0, n)?, backend.read_f64(d_log_std, d_log_std_offset, log_stds)?))
    }

    pub fn kl<B: PolicyOps>(&self, backend: &mut B) -> Result<Vec<f64>> {
        let (p_mean, p_log_std) = (&upload(backend, &self.mean)?, &upload(backend, &self.log_std)?);
        let (q_mean, q_log_std) = (&upload(backend, &self.q_mean)?, &upload(backend, &self.q_log_std)?);
        let kl = &mut backend.alloc_floats(self.op.batch)?;
        backend.gaussian_kl(&self.op, GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl })?;
        backend.read_f64(kl, 0, self.op.batch)
    }

    /// d_mean and d_log_std of p or of q.
    pub fn kl_backward<B: PolicyOps>(&self, backend: &mut B, argument: KlArgument) -> Result<(Vec<f64>, Vec<f64>)> {
        let (n, log_stds) = (self.mean.len(), self.op.log_std_len());
        let (p_mean, p_log_std) = (&upload(backend, &self.mean)?, &upload(backend, &self.log_std)?);
        let (q_mean, q_log_std) = (&upload(backend, &self.q_mean)?, &upload(backend, &self.q_log_std)?);
        let d_kl = &upload(backend, &self.d_kl)?;
        let (d_mean, d_log_std) = (&mut backend.alloc_floats(n)?, &mut backend.alloc_floats(log_stds)?);
        let operands = GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std };
        backend.gaussian_kl_backward(&self.op, argument, operands)?;
        Ok((backend.read_f64(d_mean, 0, n)?, backend.read_f64(d_log_std, 0, log_stds)?))
    }

    /// Scaled actions, log-determinants and logp, with `x` as u.
    pub fn squashed_evaluate<B: PolicyOps>(&self, backend: &mut B) -> Result<[Vec<f64>; 3]> {
        let (n, batch) = (self.mean.len(), self.op.batch);
        let [mean, log_std, u] = &self.inputs(backend)?;
        let [actions, log_det, logp] = &mut [backend.alloc_floats(n)?, backend.alloc_floats(n)?, backend.alloc_floats(batch)?];
        let operands = SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp };
        backend.squashed_gaussian_evaluate(&self.squashed(), operands)?;
        Ok([backend.read_f64(actions, 0, n)?, backend.read_f64(log_det, 0, n)?, backend.read_f64(logp, 0, batch)?])
    }

    /// d_mean and d_log_std, with `x` as u.
    pub fn squashed_backward<B: PolicyOps>(&self, backend: &mut B, reparameterised: bool) -> Result<(Vec<f64>, Vec<f64>)> {
        let (n, log_stds) = (self.mean.len(), self.op.log_std_len());
        let ([mean, log_std, u], d_logp) = (&self.inputs(backend)?, &upload(backend, &self.d_logp)?);
        let (d_mean, d_log_std) = (&mut backend.alloc_floats(n)?, &mut backend.alloc_floats(log_stds)?);
        let operands = SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std };
        backend.squashed_gaussian_backward(&self.squashed(), reparameterised, operands)?;
        Ok((backend.read_f64(d_mean, 0, n)?, backend.read_f64(d_log_std, 0, log_stds)?))
    }

    /// Every operation, for backends that judge by themselves.
    pub fn everything<B: PolicyOps>(&self, backend: &mut B) -> Result<()> {
        self.evaluate(backend)?;
        self.sample(backend, 3)?;
        self.backward(backend)?;
        self.kl(backend)?;
        self.kl_backward(backend, KlArgument::P)?;
        self.kl_backward(backend, KlArgument::Q)?;
        self.squashed_evaluate(backend)?;
        self.squashed_backward(backend, false)?;
        self.squashed_backward(backend, true)?;
        Ok(())
    }
}
