//! Operations of [`kernels::surrogate`](crate::kernels::surrogate): bound by memory, and by exponentials on the CPU.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::{Backend, Memory};
use crate::error::Result;
use crate::kernels::normalize::{EpsilonMode, Normalize};
use crate::kernels::policy::{Categorical, Gaussian, HALF_LOG_TWO_PI};
use crate::kernels::surrogate::{CategoricalOperands, GaussianOperands, Surrogate, SurrogateOperands, ValueLoss};
use crate::layout::{control, sample, stat, stop, term};

/// Around workgroups of 256, and the 32 rows of partial sums that one invocation adds up.
const SAMPLES: Domain = Domain {
    kernel: "surrogate",
    sizes: &["batch"],
    most: &[2000],
    edges: &[&[1], &[63], &[64], &[65], &[255], &[256], &[257], &[4097], &[8191], &[8193]],
};

/// More tiles of 64 rows than there are workgroups.
const MANY_TILES: &[usize] = &[64 * 2048 + 65, 2];

/// One, 8 and 32 invocations a row, each around workgroups; tiles of rows of up to 49.
const ROWS: Domain = Domain {
    kernel: "surrogate",
    sizes: &["batch", "actions"],
    most: &[2000, 40],
    edges: &[
        &[1, 1],
        &[1, 2],
        &[64, 4],
        &[65, 2],
        &[255, 2],
        &[256, 3],
        &[257, 16],
        &[31, 17],
        &[33, 18],
        &[63, 49],
        &[65, 50],
        &[7, 65],
        &[65, 128],
        &[7, 129],
        &[9, 1025],
        &[4097, 2],
        &[8193, 5],
        MANY_TILES,
    ],
};

/// Likewise; log-stds that the batch shares are summed in workgroups of 256, and by eight dimensions.
const MEANS: Domain = Domain {
    kernel: "surrogate",
    sizes: &["batch", "dim"],
    most: &[2000, 40],
    edges: &[
        &[1, 1],
        &[63, 3],
        &[65, 2],
        &[255, 1],
        &[256, 6],
        &[257, 2],
        &[8, 16],
        &[513, 21],
        &[64, 33],
        &[65, 49],
        &[3, 50],
        &[3, 255],
        &[5, 256],
        &[99, 257],
        &[2, 600],
        &[1, 4001],
        &[4097, 2],
        MANY_TILES,
    ],
};

/// Rows of statistics that an objective chooses from.
pub(crate) const STATS_ROWS: usize = 3;

/// An objective as trainers use it, with any of its options.
pub(crate) fn objective(draw: &mut Draw, batch: usize) -> Surrogate {
    let value_loss = draw.one(&[ValueLoss::Mse, ValueLoss::Clipped { clip: 0.2 }, ValueLoss::Huber { delta: 1.0 }]);
    let (clip_low, clip_high) = draw.one(&[(0.2, 0.2), (0.2, 0.28), (f64::INFINITY, f64::INFINITY)]);
    Surrogate {
        batch,
        clip_low,
        clip_high,
        dual_clip: draw.one(&[None, None, Some(3.0)]),
        vf_coef: 0.5,
        ent_coef: draw.one(&[0.0, 0.01]),
        kl_coef: draw.one(&[0.0, 0.1]),
        value_loss,
        stats_row: draw.below(STATS_ROWS),
    }
}

/// Coefficients wherever they may be.
fn any_objective(draw: &mut Draw, batch: usize) -> Surrogate {
    let usual = objective(draw, batch);
    let range = draw.number(0.01, 2.0);
    let value_loss = [ValueLoss::Clipped { clip: range }, ValueLoss::Huber { delta: range }, usual.value_loss, usual.value_loss];
    let clips = [(0.1, 0.3), (0.2, f64::INFINITY), (draw.number(0.0, 1.5), draw.number(0.0, 2.0))];
    let (clip_low, clip_high) = draw.one(&[clips[0], clips[1], clips[2], (usual.clip_low, usual.clip_high)]);
    Surrogate {
        clip_low,
        clip_high,
        dual_clip: draw.one(&[usual.dual_clip, usual.dual_clip, Some(1.5), Some(1.01)]),
        ent_coef: draw.one(&[usual.ent_coef, usual.ent_coef, -0.5, 1.0]),
        kl_coef: draw.one(&[usual.kl_coef, usual.kl_coef, 0.3, 2.0]),
        value_loss: draw.one(&value_loss),
        ..usual
    }
}

/// CleanRL's.
pub(crate) fn cleanrl(batch: usize) -> Surrogate {
    Surrogate {
        batch,
        clip_low: 0.2,
        clip_high: 0.2,
        dual_clip: None,
        vf_coef: 0.5,
        ent_coef: 0.01,
        kl_coef: 0.0,
        value_loss: ValueLoss::Clipped { clip: 0.2 },
        stats_row: 0,
    }
}

/// Packed rows: old log-probabilities near `logp`, advantages, returns, old values.
pub(crate) fn samples<B: Memory>(backend: &mut B, batch: usize, logp: f32, draw: &mut Draw) -> Result<B::Floats> {
    let columns = [draw.normal(batch, logp, 0.3), draw.floats(batch, 1.0), draw.floats(batch, 1.0), draw.floats(batch, 1.0)];
    let packed: Vec<f32> = (0..batch).flat_map(|i| columns.each_ref().map(|column| column[i])).collect();
    backend.upload_floats(&packed)
}

/// Distance of old from new log-probabilities: a tenth to a third of the ratios is beyond a clip of 0.2.
pub(crate) const LOG_RATIO: f64 = 0.15;

/// A log-ratio that is not on the edge of a clip of 0.2, where rounding decides whether a sample has a gradient: one of a million is.
pub(crate) fn off_the_edges(log_ratio: f64) -> f64 {
    let near = |edge: f64| (log_ratio - edge.ln()).abs() < 1e-3;
    if near(0.8) || near(1.2) { 0.9 * log_ratio } else { log_ratio }
}

/// Log-probability of each row's action under softmax, on the host; 0 where it is masked.
pub(crate) fn categorical_logp(actions: usize, logits: &[f32], mask: Option<&[u32]>, taken: &[u32]) -> Vec<f64> {
    let logp = |(i, &action): (usize, &u32)| {
        let valid = |j: &usize| mask.is_none_or(|mask| mask[*j] != 0);
        let row = || (i * actions..(i + 1) * actions).filter(valid).map(|j| f64::from(logits[j]));
        let largest = row().fold(f64::NEG_INFINITY, f64::max);
        let chosen = Some(i * actions + action as usize).filter(|j| *j < logits.len() && valid(j));
        chosen.map_or(0.0, |j| f64::from(logits[j]) - largest - row().map(|l| (l - largest).exp()).sum::<f64>().ln())
    };
    taken.iter().enumerate().map(logp).collect()
}

/// Log-probability of each row's action under a normal distribution, on the host.
fn gaussian_logp(op: &Gaussian, mean: &[f32], log_std: &[f32], actions: &[f32]) -> Vec<f64> {
    let element = |row: usize, d: usize| {
        let (i, s) = (row * op.dim + d, f64::from(log_std[op.log_std_index(row, d)]));
        let z = f64::from(actions[i] - mean[i]) * (-s).exp();
        -0.5 * z * z - s - HALF_LOG_TWO_PI
    };
    (0..op.batch).map(|row| (0..op.dim).map(|d| element(row, d)).sum()).collect()
}

/// How samples lie to what the policy gives now.
#[derive(Debug, Clone, Copy)]
struct Spread {
    /// Standard deviations of the log-ratio, and of the value's distance from the old one.
    log_ratio: f64,
    value: f32,
    /// Whether some ratios overflow, where an advantage of 0 keeps them out of the loss.
    overflows: bool,
}

impl Spread {
    fn draw(draw: &mut Draw) -> Self {
        Self { log_ratio: draw.one(&[0.01, LOG_RATIO, 0.4]), value: 0.4, overflows: draw.coin() }
    }

    /// Packed samples `[batch, 4]` and values `[batch]`.
    fn samples<B: Backend>(&self, inputs: &mut Inputs<'_, B>, logp: &[f64]) -> Result<[B::Floats; 2]> {
        let mut column = || inputs.draw.floats(logp.len(), 1.0);
        let [shift, advantage, distance, old_value, moved] = [column(), column(), column(), column(), column()];
        let row = |i: usize| {
            let target = old_value[i] + distance[i];
            if self.overflows && i % 13 == 5 {
                return [(logp[i] - 200.0) as f32, 0.0, target, old_value[i]];
            }
            let log_ratio = off_the_edges(self.log_ratio * f64::from(shift[i]));
            [(logp[i] - log_ratio) as f32, advantage[i], target, old_value[i]]
        };
        let values: Vec<f32> = old_value.iter().zip(&moved).map(|(old, by)| old + self.value * by).collect();
        Ok([inputs.upload(&(0..logp.len()).flat_map(row).collect::<Vec<_>>())?, inputs.upload(&values)?])
    }
}

fn stats<B: Backend>(inputs: &mut Inputs<'_, B>) -> Result<B::Floats> {
    inputs.upload(&[0.0; STATS_ROWS * stat::COLUMNS])
}

/// Normalises the advantages of a batch. A second call normalises what already is: the same work.
#[derive(Debug)]
struct Normalization<F> {
    op: Normalize,
    moments: F,
}

impl<F> Normalization<F> {
    fn new<B: Backend<Floats = F>>(inputs: &mut Inputs<'_, B>, batch: usize) -> Result<Self> {
        let op = Normalize {
            len: batch,
            vectors: 1,
            offset: sample::ADVANTAGE,
            stride: sample::COLUMNS,
            ddof: 1,
            epsilon: 1e-8,
            epsilon_mode: EpsilonMode::AddToStd,
        };
        Ok(Self { op, moments: inputs.output(Normalize::MOMENTS)? })
    }
}

/// Per logit: maximum, difference, exponential, sum, and entropy and gradient in twice as many; per dimension about as many. Per sample:
/// normalisation, ratio, both losses and their gradients.
pub(crate) fn loss_flops(batch: usize, width: usize) -> usize {
    12 * batch * width + 40 * batch
}

/// Words read and written a sample besides those of the head: four packed numbers and the value, and its gradient.
const WORDS_A_SAMPLE: usize = sample::COLUMNS + 2;

/// [`surrogate`](crate::backend::SurrogateOps::surrogate).
#[derive(Debug)]
pub struct FromLogp {
    op: Surrogate,
    spread: Spread,
}

impl Call for FromLogp {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (op, batch) = (self.op, self.op.batch);
        let (logp, entropy) = (inputs.draw.normal(batch, -1.0, 0.3), inputs.draw.normal(batch, 1.0, 0.1));
        let [samples, values] = self.spread.samples(inputs, &logp.iter().map(|&x| f64::from(x)).collect::<Vec<_>>())?;
        let [logp, entropy] = [inputs.upload(&logp)?, inputs.upload(&entropy)?];
        let [mut terms, mut d_logp] = [inputs.output(batch * term::COLUMNS)?, inputs.output(batch)?];
        let [mut d_values, mut stats] = [inputs.output(batch)?, stats(inputs)?];
        Ok(Box::new(move |backend| {
            let (logp, entropy, values, samples) = (&logp, &entropy, &values, &samples);
            let (terms, d_logp, d_values, stats) = (&mut terms, &mut d_logp, &mut d_values, &mut stats);
            backend.surrogate(&op, SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats })
        }))
    }

    fn work(&self) -> Work {
        let words = self.op.batch * (WORDS_A_SAMPLE + 3 + term::COLUMNS);
        Work::new(40 * self.op.batch, words, ("samples_per_s", self.op.batch))
    }
}

impl Operation for FromLogp {
    const NAME: &'static str = "surrogate";
    const DOMAIN: &'static Domain = &SAMPLES;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self { op: any_objective(draw, sizes[0]), spread: Spread::draw(draw) }
    }
}

/// [`surrogate_categorical`](crate::backend::SurrogateOps::surrogate_categorical).
#[derive(Debug)]
pub struct ThroughCategorical {
    op: Surrogate,
    policy: Categorical,
    spread: Spread,
    /// Of logits.
    scale: f32,
    masked: bool,
    normalizes: bool,
    rate: &'static str,
}

impl ThroughCategorical {
    fn bench(batch: usize, actions: usize) -> Self {
        Self {
            op: cleanrl(batch),
            policy: Categorical { batch, actions },
            spread: Spread { log_ratio: LOG_RATIO, value: 0.2, overflows: false },
            scale: 1.0,
            masked: false,
            normalizes: true,
            rate: "samples_per_s",
        }
    }

    /// Of a vocabulary: no value function, no entropy bonus, advantages as they are.
    fn tokens(batch: usize, vocabulary: usize) -> Self {
        let bench = Self::bench(batch, vocabulary);
        let op = Surrogate { vf_coef: 0.0, ent_coef: 0.0, value_loss: ValueLoss::Mse, ..bench.op };
        Self { op, scale: 2.0, normalizes: false, rate: "tokens_per_s", ..bench }
    }
}

impl Call for ThroughCategorical {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { op, policy, .. } = self;
        let n = policy.elements();
        let logits = inputs.draw.long(n, self.scale);
        let mask = self.masked.then(|| inputs.draw.flags(n.max(1), 0.7));
        let actions = inputs.draw.words(policy.batch.max(1), policy.actions.max(1));
        let logp = categorical_logp(policy.actions, &logits, mask.as_deref(), &actions[..policy.batch]);
        let [mut samples, values] = self.spread.samples(inputs, &logp)?;
        let (logits, actions) = (inputs.upload(&logits)?, inputs.backend.upload_words(&actions)?);
        let mask = mask.map(|mask| inputs.backend.upload_words(&mask)).transpose()?;
        let [mut d_logits, mut d_values, mut stats] = [inputs.output(n)?, inputs.output(op.batch)?, stats(inputs)?];
        let mut normalization = self.normalizes.then(|| Normalization::new(inputs, op.batch)).transpose()?;
        Ok(Box::new(move |backend| {
            if let Some(Normalization { op, moments }) = &mut normalization {
                backend.normalize(op, &mut samples, moments)?;
            }
            let (logits, mask, actions, values, samples) = (&logits, mask.as_ref(), &actions, &values, &samples);
            let (d_logits, d_values, stats) = (&mut d_logits, &mut d_values, &mut stats);
            let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
            backend.surrogate_categorical(&op, &policy, operands)
        }))
    }

    fn work(&self) -> Work {
        let Categorical { batch, actions } = self.policy;
        Work::new(loss_flops(batch, actions), batch * (2 * actions + 1 + WORDS_A_SAMPLE), (self.rate, batch))
    }
}

impl Operation for ThroughCategorical {
    const NAME: &'static str = "surrogate_categorical";
    const DOMAIN: &'static Domain = &ROWS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let bench = Self::bench(sizes[0], sizes[1]);
        let (op, scale) = (any_objective(draw, sizes[0]), draw.one(&[0.5, 1.0, 30.0]));
        Self { op, spread: Spread::draw(draw), scale, masked: draw.coin(), normalizes: false, ..bench }
    }
}

/// [`surrogate_gaussian`](crate::backend::SurrogateOps::surrogate_gaussian), the log-std depending on the state or not.
#[derive(Debug)]
pub struct ThroughGaussian<const OWN: bool> {
    op: Surrogate,
    policy: Gaussian,
    spread: Spread,
    d_log_std_offset: usize,
    normalizes: bool,
}

impl<const OWN: bool> ThroughGaussian<OWN> {
    fn bench(batch: usize, dim: usize) -> Self {
        Self {
            op: cleanrl(batch),
            policy: Gaussian { batch, dim, state_dependent_std: OWN, log_std_offset: 0 },
            spread: Spread { log_ratio: LOG_RATIO, value: 0.2, overflows: false },
            d_log_std_offset: 0,
            normalizes: true,
        }
    }
}

impl<const OWN: bool> Call for ThroughGaussian<OWN> {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { op, policy, d_log_std_offset, .. } = self;
        let n = policy.elements();
        let (mean, noise) = (inputs.draw.long(n, 1.0), inputs.draw.long(n, 1.0));
        let log_std = inputs.draw.long(policy.log_std_offset + policy.log_std_len(), 0.3);
        let std = |i: usize| log_std[policy.log_std_index(i / policy.dim, i % policy.dim)].exp();
        let actions: Vec<f32> = (0..n).map(|i| mean[i] + std(i) * noise[i]).collect();
        let [mut samples, values] = self.spread.samples(inputs, &gaussian_logp(&policy, &mean, &log_std, &actions))?;
        let [mean, log_std, actions] = [inputs.upload(&mean)?, inputs.upload(&log_std)?, inputs.upload(&actions)?];
        let [mut d_mean, mut d_log_std] = [inputs.output(n)?, inputs.output(d_log_std_offset + policy.log_std_len())?];
        let [mut d_values, mut stats] = [inputs.output(op.batch)?, stats(inputs)?];
        let mut normalization = self.normalizes.then(|| Normalization::new(inputs, op.batch)).transpose()?;
        Ok(Box::new(move |backend| {
            if let Some(Normalization { op, moments }) = &mut normalization {
                backend.normalize(op, &mut samples, moments)?;
            }
            let operands = GaussianOperands {
                mean: &mean,
                log_std: &log_std,
                actions: &actions,
                values: &values,
                samples: &samples,
                d_mean: &mut d_mean,
                d_log_std: &mut d_log_std,
                d_log_std_offset,
                d_values: &mut d_values,
                stats: &mut stats,
            };
            backend.surrogate_gaussian(&op, &policy, operands)
        }))
    }

    fn work(&self) -> Work {
        let Gaussian { batch, dim, .. } = self.policy;
        Work::new(loss_flops(batch, dim), batch * (3 * dim + WORDS_A_SAMPLE), ("samples_per_s", batch))
    }
}

impl<const OWN: bool> Operation for ThroughGaussian<OWN> {
    const NAME: &'static str = "surrogate_gaussian";
    const DOMAIN: &'static Domain = &MEANS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let bench = Self::bench(sizes[0], sizes[1]);
        let (op, policy) = (any_objective(draw, sizes[0]), Gaussian { log_std_offset: draw.below(4), ..bench.policy });
        Self { op, policy, spread: Spread::draw(draw), d_log_std_offset: draw.below(4), normalizes: false }
    }
}

/// [`stop_on_kl`](crate::backend::SurrogateOps::stop_on_kl).
#[derive(Debug)]
pub struct StopOnKl {
    stats_row: usize,
    stopped: u32,
}

impl Call for StopOnKl {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { stats_row, stopped } = self;
        let stats = inputs.floats(STATS_ROWS * stat::COLUMNS, 0.02)?;
        let mut control = inputs.backend.upload_words(&control::INITIAL)?;
        inputs.backend.write_words(&mut control, control::STOP, &[stopped])?;
        Ok(Box::new(move |backend| backend.stop_on_kl(0.015, stats_row, &stats, &mut control)))
    }

    fn work(&self) -> Work {
        Work::new(1, 3, ("calls_per_s", 1))
    }
}

impl Operation for StopOnKl {
    const NAME: &'static str = "stop_on_kl";
    const DOMAIN: &'static Domain =
        &Domain { kernel: "surrogate", sizes: &[], most: &[], edges: &[&[], &[], &[], &[], &[], &[], &[], &[]] };

    fn draw(_: &[usize], draw: &mut Draw) -> Self {
        Self { stats_row: draw.below(STATS_ROWS), stopped: draw.one(&[stop::NONE, stop::NONE, stop::NON_FINITE]) }
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<FromLogp>()?;
    list.add::<ThroughCategorical>()?;
    list.add::<ThroughGaussian<false>>()?;
    list.add::<ThroughGaussian<true>>()?;
    list.add::<StopOnKl>()
}

/// The loss includes the normalisation of the advantages and the loss of the value function, but for tokens.
pub(super) fn benches(list: &mut impl Benches) {
    const BATCHES: [(usize, bool); 2] = [(1 << 14, true), (1 << 20, false)];
    for actions in [2, 6, 18] {
        for (batch, small) in BATCHES {
            list.add(format!("loss_cat/A{actions}_B{batch}"), small, ThroughCategorical::bench(batch, actions));
        }
    }
    for dim in [6, 21] {
        for (batch, small) in BATCHES {
            list.add(format!("loss_gauss/A{dim}_B{batch}"), small, ThroughGaussian::<false>::bench(batch, dim));
        }
    }
    for (batch, small) in [(512, true), (4096, false)] {
        list.add(format!("loss_token/N{batch}_V32000"), small, ThroughCategorical::tokens(batch, 32_000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_moves_its_head_twice_and_six_numbers_a_sample() {
        assert_eq!(ThroughCategorical::bench(10, 6).work().bytes, 4.0 * 10.0 * (12.0 + 1.0 + 6.0));
        assert_eq!(ThroughGaussian::<false>::bench(10, 6).work().bytes, 4.0 * 10.0 * (18.0 + 6.0));
    }
}
