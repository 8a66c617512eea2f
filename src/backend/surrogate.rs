//! The operations of [`kernels::surrogate`](crate::kernels::surrogate) on every backend.

use super::{Cpu, CrossCheck, Memory, PolicyOps};
#[cfg(feature = "gpu")]
use super::{Gpu, Variant};
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::{self as kernels, Surrogate};
use crate::layout::{control, sample, stat, term};
use crate::real::Real;
use crate::reference::surrogate as reference;
use crate::tolerance::Tolerance;

/// PPO's objective and its gradient.
///
/// `samples [batch, 4]` are packed minibatch rows ([`sample`](crate::layout::sample)); `stats [rows, 16]`
/// ([`stat`](crate::layout::stat)) takes losses, KL estimates and clip fraction in row `op.stats_row`. Gradients are of the
/// mean loss. Where maxima and clamps have a choice they are torch's: a ratio or value exactly on the edge of its clip counts as inside, and
/// two equal squares of a clipped value share the gradient, as do two equal sides of the dual clip.
pub trait SurrogateOps: PolicyOps {
    /// From log-probabilities, for any distribution: per-sample `terms [batch, 8]` ([`term`](crate::layout::term)),
    /// `d_logp [batch]`, `d_values [batch]`. The entropy enters the loss; its gradient is −ent_coef/batch for every sample.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a coefficient that is not finite or out of range; a buffer too small.
    fn surrogate(
        &mut self,
        op: &Surrogate,
        logp: &Self::Floats,
        entropy: &Self::Floats,
        values: &Self::Floats,
        samples: &Self::Floats,
        terms: &mut Self::Floats,
        d_logp: &mut Self::Floats,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()>;

    /// The same through a categorical head: `d_logits [batch, actions]` and `d_values [batch]`: the composition of evaluate,
    /// [`surrogate`](Self::surrogate) and backward, which a backend may fuse.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate); `op.batch` and `policy.batch` have to be equal.
    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        values: &Self::Floats,
        samples: &Self::Floats,
        d_logits: &mut Self::Floats,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()>;

    /// The same through a Gaussian head: `d_mean [batch, dim]`, `d_log_std` from `d_log_std_offset` on, `d_values [batch]`.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate); `op.batch` and `policy.batch` have to be equal.
    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        values: &Self::Floats,
        samples: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
        d_log_std_offset: usize,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()>;

    /// Sets `control[STOP]` to [`TARGET_KL`](crate::layout::stop::TARGET_KL) if it is 0 and approx_kl (k3) of row `stats_row` is greater
    /// than `threshold`: every optimiser step recorded after it becomes a no-op.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate).
    fn stop_on_kl(&mut self, threshold: f64, stats_row: usize, stats: &Self::Floats, control: &mut Self::Words) -> Result<()>;
}

/// What the plain composition hands from one operation to the next.
#[cfg(feature = "gpu")]
struct Between {
    logp: Buffer<f32>,
    entropy: Buffer<f32>,
    terms: Buffer<f32>,
    d_logp: Buffer<f32>,
    d_entropy: Buffer<f32>,
}

#[cfg(feature = "gpu")]
impl Between {
    fn new(gpu: &mut Gpu, op: &Surrogate) -> Result<Self> {
        let between = Self {
            logp: gpu.context.scratch("surrogate.logp", op.batch)?,
            entropy: gpu.context.scratch("surrogate.entropy", op.batch)?,
            terms: gpu.context.scratch("surrogate.terms", op.batch * term::COLUMNS)?,
            d_logp: gpu.context.scratch("surrogate.d_logp", op.batch)?,
            d_entropy: gpu.context.scratch("surrogate.d_entropy", op.batch)?,
        };
        kernels::record_entropy_gradient(&mut gpu.context, op, &between.d_entropy)?;
        Ok(between)
    }

    fn surrogate(
        &mut self,
        gpu: &mut Gpu,
        op: &Surrogate,
        values: &Buffer<f32>,
        samples: &Buffer<f32>,
        d_values: &mut Buffer<f32>,
        stats: &mut Buffer<f32>,
    ) -> Result<()> {
        let Self { logp, entropy, terms, d_logp, .. } = self;
        gpu.surrogate(op, logp, entropy, values, samples, terms, d_logp, d_values, stats)
    }
}

#[cfg(feature = "gpu")]
impl SurrogateOps for Gpu {
    fn surrogate(
        &mut self,
        op: &Surrogate,
        logp: &Buffer<f32>,
        entropy: &Buffer<f32>,
        values: &Buffer<f32>,
        samples: &Buffer<f32>,
        terms: &mut Buffer<f32>,
        d_logp: &mut Buffer<f32>,
        d_values: &mut Buffer<f32>,
        stats: &mut Buffer<f32>,
    ) -> Result<()> {
        let context = &mut self.context;
        kernels::record_elementwise(context, op, logp, entropy, values, samples, terms, d_logp, d_values, stats)
    }

    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        logits: &Buffer<f32>,
        mask: Option<&Buffer<u32>>,
        actions: &Buffer<u32>,
        values: &Buffer<f32>,
        samples: &Buffer<f32>,
        d_logits: &mut Buffer<f32>,
        d_values: &mut Buffer<f32>,
        stats: &mut Buffer<f32>,
    ) -> Result<()> {
        let mut matrices = vec![("logits", logits.len()), ("d_logits", d_logits.len())];
        matrices.extend(mask.map(|mask| ("mask", mask.len())));
        op.check_categorical(policy, &matrices, actions.len(), values.len(), samples.len(), d_values.len(), stats.len())?;
        if self.variant == Variant::Plain {
            let mut between = Between::new(self, op)?;
            self.categorical_evaluate(policy, logits, mask, actions, &mut between.logp, &mut between.entropy)?;
            between.surrogate(self, op, values, samples, d_values, stats)?;
            return self.categorical_backward(policy, logits, mask, actions, &between.d_logp, &between.d_entropy, d_logits);
        }
        let (context, variant) = (&mut self.context, self.variant);
        kernels::record_categorical(
            context, variant, op, policy, logits, mask, actions, values, samples, d_logits, d_values, stats,
        )
    }

    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        mean: &Buffer<f32>,
        log_std: &Buffer<f32>,
        actions: &Buffer<f32>,
        values: &Buffer<f32>,
        samples: &Buffer<f32>,
        d_mean: &mut Buffer<f32>,
        d_log_std: &mut Buffer<f32>,
        d_log_std_offset: usize,
        d_values: &mut Buffer<f32>,
        stats: &mut Buffer<f32>,
    ) -> Result<()> {
        let matrices = [("mean", mean.len()), ("actions", actions.len()), ("d_mean", d_mean.len())];
        let log_stds = [("log_std", log_std.len(), policy.log_std_offset), ("d_log_std", d_log_std.len(), d_log_std_offset)];
        op.check_gaussian(policy, matrices, log_stds, values.len(), samples.len(), d_values.len(), stats.len())?;
        // With a log-std that depends on the state, the fused kernel would need a ninth storage buffer, one more than WebGPU promises.
        if self.variant == Variant::Plain || policy.state_dependent_std {
            let mut between = Between::new(self, op)?;
            self.gaussian_evaluate(policy, mean, log_std, actions, &mut between.logp, &mut between.entropy)?;
            between.surrogate(self, op, values, samples, d_values, stats)?;
            let Between { d_logp, d_entropy, .. } = &between;
            return self.gaussian_backward(
                policy,
                mean,
                log_std,
                actions,
                d_logp,
                d_entropy,
                d_mean,
                d_log_std,
                d_log_std_offset,
            );
        }
        let (context, variant) = (&mut self.context, self.variant);
        kernels::record_gaussian(
            context,
            variant,
            op,
            policy,
            mean,
            log_std,
            actions,
            values,
            samples,
            d_mean,
            d_log_std,
            d_log_std_offset,
            d_values,
            stats,
        )
    }

    fn stop_on_kl(&mut self, threshold: f64, stats_row: usize, stats: &Buffer<f32>, control: &mut Buffer<u32>) -> Result<()> {
        kernels::record_stop_on_kl(&mut self.context, threshold, stats_row, stats, control)
    }
}

impl<T: Real> SurrogateOps for Cpu<T> {
    fn surrogate(
        &mut self,
        op: &Surrogate,
        logp: &Vec<T>,
        entropy: &Vec<T>,
        values: &Vec<T>,
        samples: &Vec<T>,
        terms: &mut Vec<T>,
        d_logp: &mut Vec<T>,
        d_values: &mut Vec<T>,
        stats: &mut Vec<T>,
    ) -> Result<()> {
        let vectors = [("logp", logp.len()), ("entropy", entropy.len()), ("d_logp", d_logp.len())];
        op.check_elementwise(vectors, values.len(), samples.len(), terms.len(), d_values.len(), stats.len())?;
        reference::surrogate(op, logp, entropy, values, samples, terms, d_logp, d_values, stats);
        Ok(())
    }

    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        actions: &Vec<u32>,
        values: &Vec<T>,
        samples: &Vec<T>,
        d_logits: &mut Vec<T>,
        d_values: &mut Vec<T>,
        stats: &mut Vec<T>,
    ) -> Result<()> {
        let mut matrices = vec![("logits", logits.len()), ("d_logits", d_logits.len())];
        matrices.extend(mask.map(|mask| ("mask", mask.len())));
        op.check_categorical(policy, &matrices, actions.len(), values.len(), samples.len(), d_values.len(), stats.len())?;
        let mask = mask.map(Vec::as_slice);
        reference::surrogate_categorical(op, policy, logits, mask, actions, values, samples, d_logits, d_values, stats);
        Ok(())
    }

    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        actions: &Vec<T>,
        values: &Vec<T>,
        samples: &Vec<T>,
        d_mean: &mut Vec<T>,
        d_log_std: &mut Vec<T>,
        d_log_std_offset: usize,
        d_values: &mut Vec<T>,
        stats: &mut Vec<T>,
    ) -> Result<()> {
        let matrices = [("mean", mean.len()), ("actions", actions.len()), ("d_mean", d_mean.len())];
        let log_stds = [("log_std", log_std.len(), policy.log_std_offset), ("d_log_std", d_log_std.len(), d_log_std_offset)];
        op.check_gaussian(policy, matrices, log_stds, values.len(), samples.len(), d_values.len(), stats.len())?;
        let d_log_std = &mut d_log_std[d_log_std_offset..];
        reference::surrogate_gaussian(op, policy, mean, log_std, actions, values, samples, d_mean, d_log_std, d_values, stats);
        Ok(())
    }

    fn stop_on_kl(&mut self, threshold: f64, stats_row: usize, stats: &Vec<T>, control: &mut Vec<u32>) -> Result<()> {
        kernels::check_stop_on_kl(threshold, stats_row, stats.len(), control.len())?;
        reference::stop_on_kl(threshold, stats_row, stats, control);
        Ok(())
    }
}

impl<A: SurrogateOps, B: SurrogateOps> CrossCheck<A, B> {
    /// The columns of the row of statistics that the losses write.
    fn compare_stats(
        &mut self,
        operation: &'static str,
        op: &Surrogate,
        stats: &mut <Self as Memory>::Floats,
        bounds: [f64; stat::COLUMNS],
    ) -> Result<()> {
        let row = op.stats_row * stat::COLUMNS;
        for columns in [stat::LOSS..stat::CLIPFRAC + 1, stat::KL_PENALTY..stat::KL_PENALTY + 1] {
            let tolerance = Tolerance::PerElement(bounds[columns.clone()].to_vec());
            self.compare(operation, "stats", stats, row + columns.start..row + columns.end, &tolerance)?;
        }
        Ok(())
    }
}

impl<A: SurrogateOps, B: SurrogateOps> SurrogateOps for CrossCheck<A, B> {
    fn surrogate(
        &mut self,
        op: &Surrogate,
        logp: &Self::Floats,
        entropy: &Self::Floats,
        values: &Self::Floats,
        samples: &Self::Floats,
        terms: &mut Self::Floats,
        d_logp: &mut Self::Floats,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()> {
        self.a.surrogate(
            op,
            &logp.a,
            &entropy.a,
            &values.a,
            &samples.a,
            &mut terms.a,
            &mut d_logp.a,
            &mut d_values.a,
            &mut stats.a,
        )?;
        self.b.surrogate(
            op,
            &logp.b,
            &entropy.b,
            &values.b,
            &samples.b,
            &mut terms.b,
            &mut d_logp.b,
            &mut d_values.b,
            &mut stats.b,
        )?;
        let batch = op.batch;
        let [logp, entropy, values] = [logp, entropy, values].map(|buffer| self.b.read_f64(&buffer.b, 0, batch));
        let samples = self.b.read_f64(&samples.b, 0, batch * sample::COLUMNS)?;
        let bounds = op.bounds(&logp?, &entropy?, &values?, &samples);
        self.compare("surrogate", "terms", terms, 0..batch * term::COLUMNS, &Tolerance::PerElement(bounds.terms))?;
        self.compare("surrogate", "d_logp", d_logp, 0..batch, &Tolerance::PerElement(bounds.d_logp))?;
        self.compare("surrogate", "d_values", d_values, 0..batch, &Tolerance::PerElement(bounds.d_values))?;
        self.compare_stats("surrogate", op, stats, bounds.stats)
    }

    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        values: &Self::Floats,
        samples: &Self::Floats,
        d_logits: &mut Self::Floats,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()> {
        const OPERATION: &str = "surrogate_categorical";
        let (mask_a, mask_b) = (mask.map(|mask| &mask.a), mask.map(|mask| &mask.b));
        self.a.surrogate_categorical(
            op,
            policy,
            &logits.a,
            mask_a,
            &actions.a,
            &values.a,
            &samples.a,
            &mut d_logits.a,
            &mut d_values.a,
            &mut stats.a,
        )?;
        self.b.surrogate_categorical(
            op,
            policy,
            &logits.b,
            mask_b,
            &actions.b,
            &values.b,
            &samples.b,
            &mut d_logits.b,
            &mut d_values.b,
            &mut stats.b,
        )?;
        let (batch, elements) = (op.batch, op.batch * policy.actions);
        let logits = self.b.read_f64(&logits.b, 0, elements)?;
        let mask = mask_b.map(|mask| self.b.read_words(mask, 0, elements)).transpose()?;
        let actions = self.b.read_words(&actions.b, 0, batch)?;
        let values = self.b.read_f64(&values.b, 0, batch)?;
        let samples = self.b.read_f64(&samples.b, 0, batch * sample::COLUMNS)?;
        let bounds = op.categorical_bounds(policy, &logits, mask.as_deref(), &actions, &values, &samples);
        self.compare(OPERATION, "d_logits", d_logits, 0..elements, &Tolerance::PerElement(bounds.d_logits))?;
        self.compare(OPERATION, "d_values", d_values, 0..batch, &Tolerance::PerElement(bounds.d_values))?;
        self.compare_stats(OPERATION, op, stats, bounds.stats)
    }

    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        values: &Self::Floats,
        samples: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
        d_log_std_offset: usize,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()> {
        const OPERATION: &str = "surrogate_gaussian";
        self.a.surrogate_gaussian(
            op,
            policy,
            &mean.a,
            &log_std.a,
            &actions.a,
            &values.a,
            &samples.a,
            &mut d_mean.a,
            &mut d_log_std.a,
            d_log_std_offset,
            &mut d_values.a,
            &mut stats.a,
        )?;
        self.b.surrogate_gaussian(
            op,
            policy,
            &mean.b,
            &log_std.b,
            &actions.b,
            &values.b,
            &samples.b,
            &mut d_mean.b,
            &mut d_log_std.b,
            d_log_std_offset,
            &mut d_values.b,
            &mut stats.b,
        )?;
        let (batch, elements) = (op.batch, op.batch * policy.dim);
        let log_stds = if policy.state_dependent_std { elements } else { policy.dim };
        let [mean, actions] = [mean, actions].map(|buffer| self.b.read_f64(&buffer.b, 0, elements));
        let log_std = self.b.read_f64(&log_std.b, policy.log_std_offset, log_stds)?;
        let values = self.b.read_f64(&values.b, 0, batch)?;
        let samples = self.b.read_f64(&samples.b, 0, batch * sample::COLUMNS)?;
        let bounds = op.gaussian_bounds(policy, &mean?, &log_std, &actions?, &values, &samples);
        self.compare(OPERATION, "d_mean", d_mean, 0..elements, &Tolerance::PerElement(bounds.d_mean))?;
        let range = d_log_std_offset..d_log_std_offset + log_stds;
        self.compare(OPERATION, "d_log_std", d_log_std, range, &Tolerance::PerElement(bounds.d_log_std))?;
        self.compare(OPERATION, "d_values", d_values, 0..batch, &Tolerance::PerElement(bounds.d_values))?;
        self.compare_stats(OPERATION, op, stats, bounds.stats)
    }

    fn stop_on_kl(&mut self, threshold: f64, stats_row: usize, stats: &Self::Floats, control: &mut Self::Words) -> Result<()> {
        self.a.stop_on_kl(threshold, stats_row, &stats.a, &mut control.a)?;
        self.b.stop_on_kl(threshold, stats_row, &stats.b, &mut control.b)?;
        self.compare_words("stop_on_kl", "control", control, 0..control::WORDS)
    }
}
