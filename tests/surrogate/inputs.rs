//! Seeded inputs, and running each form of the operation on them.

use ppo_kernels::backend::{Memory, SurrogateOps};
use ppo_kernels::kernels::policy::*;
use ppo_kernels::kernels::surrogate::{GaussianOperands, Surrogate, SurrogateOperands};
use ppo_kernels::layout::{sample, stat, term};

use crate::categorical;
use crate::common::Draw;

/// What the composition hands on after the loss.
struct Between<B: Memory> {
    d_logp: B::Floats,
    d_entropy: B::Floats,
    d_values: Vec<f64>,
    stats: Vec<f64>,
}

/// Seeded inputs of every kind.
pub struct Inputs {
    pub batch: usize,
    pub width: usize,
    pub head: Vec<f32>,
    pub mask: Vec<u32>,
    pub actions: Vec<u32>,
    pub gaussian_actions: Vec<f32>,
    pub log_std: Vec<f32>,
    pub values: Vec<f32>,
    pub samples: Vec<f32>,
}

impl Inputs {
    pub fn new(seed: u64, batch: usize, width: usize, scale: f32) -> Self {
        let mut draw = Draw::new(seed);
        let head = draw.floats(batch * width, scale);
        let actions = draw.words(batch, width as u32);
        let mut mask = draw.flags(batch * width, 0.7);
        for (i, &action) in actions.iter().enumerate() {
            mask[i * width + action as usize] = 1;
        }
        let [shifts, advantages, targets, old_values, moves] = [0.4, 1.0, 1.0, 1.0, 0.4].map(|scale| draw.floats(batch, scale));
        let log_std = draw.floats(batch * width, 0.3);
        let noise = draw.floats(batch * width, 1.0);
        let gaussian_actions: Vec<f32> = (0..batch * width).map(|i| head[i] + noise[i]).collect();
        let values: Vec<f32> = old_values.iter().zip(&moves).map(|(old, by)| old + by).collect();
        let samples = (0..batch).flat_map(|i| [shifts[i], advantages[i], targets[i], old_values[i]]).collect();
        Self { batch, width, head, mask, actions, gaussian_actions, log_std, values, samples }
    }

    /// Makes old log-probs those of the head, shifted, so that ratios are around 1.
    pub fn near_categorical(mut self, masked: bool) -> Self {
        for i in 0..self.batch {
            let elements = i * self.width..(i + 1) * self.width;
            let hidden = |element: &usize| masked && self.mask[*element] == 0;
            let row: Vec<f32> = elements.filter(|element| !hidden(element)).map(|element| self.head[element]).collect();
            let largest = row.iter().fold(f32::MIN, |a, &b| a.max(b));
            let log_sum = row.iter().map(|l| f64::from(l - largest).exp()).sum::<f64>().ln() as f32;
            let chosen = self.head[i * self.width + self.actions[i] as usize];
            self.samples[i * sample::COLUMNS] += chosen - largest - log_sum;
        }
        self
    }

    pub fn near_gaussian(mut self, state_dependent_std: bool) -> Self {
        for i in 0..self.batch {
            let logp: f32 = (0..self.width)
                .map(|d| {
                    let element = i * self.width + d;
                    let log_std = self.log_std[if state_dependent_std { element } else { d }];
                    let z = (self.gaussian_actions[element] - self.head[element]) / log_std.exp();
                    -0.5 * z * z - log_std - 0.918_938_5
                })
                .sum();
            self.samples[i * sample::COLUMNS] += logp;
        }
        self
    }

    pub fn categorical<B: SurrogateOps>(
        &self,
        backend: &mut B,
        op: &Surrogate,
        masked: bool,
    ) -> ppo_kernels::Result<[Vec<f64>; 3]> {
        let mask = masked.then_some(self.mask.as_slice());
        let (stats, d_logits, d_values) =
            categorical(backend, op, self.width, &self.head, mask, &self.actions, &self.values, &self.samples)?;
        Ok([stats, d_logits, d_values])
    }

    /// Statistics, d_mean, d_log_std and d_values.
    pub fn gaussian<B: SurrogateOps>(
        &self,
        backend: &mut B,
        op: &Surrogate,
        state_dependent_std: bool,
    ) -> ppo_kernels::Result<[Vec<f64>; 4]> {
        let op = Surrogate { batch: self.batch, ..*op };
        let policy = Gaussian { batch: self.batch, dim: self.width, state_dependent_std, log_std_offset: 0 };
        let log_stds = if state_dependent_std { self.batch * self.width } else { self.width };
        let (mean, log_std) = (&backend.upload_floats(&self.head)?, &backend.upload_floats(&self.log_std[..log_stds])?);
        let (actions, values) = (&backend.upload_floats(&self.gaussian_actions)?, &backend.upload_floats(&self.values)?);
        let (samples, d_log_std_offset) = (&backend.upload_floats(&self.samples)?, 3);
        let (d_mean, d_log_std) = (&mut backend.alloc_floats(self.head.len())?, &mut backend.alloc_floats(3 + log_stds)?);
        let (d_values, stats) = (&mut backend.alloc_floats(self.batch)?, &mut backend.upload_floats(&[0.0; stat::COLUMNS])?);
        let operands =
            GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats };
        backend.surrogate_gaussian(&op, &policy, operands)?;
        Ok([
            backend.read_f64(stats, 0, stat::COLUMNS)?,
            backend.read_f64(d_mean, 0, self.head.len())?,
            backend.read_f64(d_log_std, 3, log_stds)?,
            backend.read_f64(d_values, 0, self.batch)?,
        ])
    }

    /// As [`categorical`](Self::categorical), by the operations it consists of.
    pub fn composed_categorical<B: SurrogateOps>(
        &self,
        backend: &mut B,
        op: &Surrogate,
        masked: bool,
    ) -> ppo_kernels::Result<[Vec<f64>; 3]> {
        let policy = Categorical { batch: self.batch, actions: self.width };
        let (logits, mask) = (&backend.upload_floats(&self.head)?, backend.upload_words(&self.mask)?);
        let (mask, actions) = (masked.then_some(&mask), &backend.upload_words(&self.actions)?);
        let (logp, entropy) = (&mut backend.alloc_floats(self.batch)?, &mut backend.alloc_floats(self.batch)?);
        backend.categorical_evaluate(&policy, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy })?;
        let Between { d_logp, d_entropy, d_values, stats } = &self.between(backend, op, logp, entropy)?;
        let d_logits = &mut backend.alloc_floats(self.head.len())?;
        let operands = CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits };
        backend.categorical_backward(&policy, operands)?;
        Ok([stats.clone(), backend.read_f64(d_logits, 0, self.head.len())?, d_values.clone()])
    }

    /// As [`gaussian`](Self::gaussian), by the operations it consists of.
    pub fn composed_gaussian<B: SurrogateOps>(
        &self,
        backend: &mut B,
        op: &Surrogate,
        state_dependent_std: bool,
    ) -> ppo_kernels::Result<[Vec<f64>; 4]> {
        let policy = Gaussian { batch: self.batch, dim: self.width, state_dependent_std, log_std_offset: 0 };
        let log_stds = if state_dependent_std { self.batch * self.width } else { self.width };
        let (mean, log_std) = (&backend.upload_floats(&self.head)?, &backend.upload_floats(&self.log_std[..log_stds])?);
        let actions = &backend.upload_floats(&self.gaussian_actions)?;
        let (logp, entropy) = (&mut backend.alloc_floats(self.batch)?, &mut backend.alloc_floats(self.batch)?);
        backend.gaussian_evaluate(&policy, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })?;
        let Between { d_logp, d_entropy, d_values, stats } = &self.between(backend, op, logp, entropy)?;
        let (d_mean, d_log_std) = (&mut backend.alloc_floats(self.head.len())?, &mut backend.alloc_floats(log_stds)?);
        let d_log_std_offset = 0;
        let operands =
            GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
        backend.gaussian_backward(&policy, operands)?;
        let d_mean = backend.read_f64(d_mean, 0, self.head.len())?;
        Ok([stats.clone(), d_mean, backend.read_f64(d_log_std, 0, log_stds)?, d_values.clone()])
    }

    fn between<B: SurrogateOps>(
        &self,
        backend: &mut B,
        op: &Surrogate,
        logp: &B::Floats,
        entropy: &B::Floats,
    ) -> ppo_kernels::Result<Between<B>> {
        let op = Surrogate { batch: self.batch, ..*op };
        let (values, samples) = (&backend.upload_floats(&self.values)?, &backend.upload_floats(&self.samples)?);
        let (terms, d_values) = (&mut backend.alloc_floats(self.batch * term::COLUMNS)?, &mut backend.alloc_floats(self.batch)?);
        let (mut own_d_logp, stats) = (backend.alloc_floats(self.batch)?, &mut backend.upload_floats(&[0.0; stat::COLUMNS])?);
        let d_logp = &mut own_d_logp;
        backend.surrogate(&op, SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats })?;
        let mut d_entropy = backend.alloc_floats(self.batch)?;
        backend.write_f64(&mut d_entropy, 0, &vec![-op.ent_coef / self.batch as f64; self.batch])?;
        let stats = backend.read_f64(stats, 0, stat::COLUMNS)?;
        let d_values = backend.read_f64(d_values, 0, self.batch)?;
        Ok(Between { d_logp: own_d_logp, d_entropy, d_values, stats })
    }
}
