//! The operations of [`kernels::surrogate`](crate::kernels::surrogate) on every backend.

use super::{Cpu, CrossCheck, Memory, PolicyOps};
#[cfg(feature = "gpu")]
use super::{Gpu, Variant};
use crate::cpu::surrogate as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
use crate::kernels::policy::{Categorical, Gaussian};
#[cfg(feature = "gpu")]
use crate::kernels::policy::{
    CategoricalBackwardOperands, CategoricalEvaluateOperands, GaussianBackwardOperands, GaussianEvaluateOperands,
};
use crate::kernels::surrogate::{self as kernels, CategoricalOperands, GaussianOperands, Surrogate, SurrogateOperands};
use crate::layout::{control, sample, stat, term};
use crate::reference::surrogate as reference;
use crate::tolerance::Tolerance;

/// PPO's objective and its gradient.
///
/// `samples [batch, 4]` are packed minibatch rows ([`sample`](crate::layout::sample)); `stats [rows, 16]`
/// ([`stat`](crate::layout::stat)) takes losses, KL estimates and clip fraction in row `op.stats_row`. Gradients are of the
/// mean loss. Where maxima and clamps have a choice they are torch's: a ratio or value exactly on the edge of its clip counts as inside, and
/// two equal squares of a clipped value share the gradient, as do two equal sides of the dual clip.
pub trait SurrogateOps: PolicyOps {
    /// From log-probabilities, for any distribution. The entropy enters the loss; its gradient is −ent_coef/batch for every sample.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a coefficient that is not finite or out of range; a buffer too small.
    fn surrogate(&mut self, op: &Surrogate, operands: SurrogateOperands<'_, Self::Floats>) -> Result<()>;

    /// The same through a categorical head: the composition of evaluate, [`surrogate`](Self::surrogate) and backward, which a backend may
    /// fuse.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate); `op.batch` and `policy.batch` have to be equal.
    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        operands: CategoricalOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()>;

    /// The same through a Gaussian head.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate); `op.batch` and `policy.batch` have to be equal.
    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        operands: GaussianOperands<'_, Self::Floats>,
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
        [values, samples]: [&Buffer<f32>; 2],
        [d_values, stats]: [&mut Buffer<f32>; 2],
    ) -> Result<()> {
        let Self { logp, entropy, terms, d_logp, .. } = self;
        gpu.surrogate(op, SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats })
    }
}

#[cfg(feature = "gpu")]
impl SurrogateOps for Gpu {
    fn surrogate(&mut self, op: &Surrogate, operands: SurrogateOperands<'_, Buffer<f32>>) -> Result<()> {
        kernels::record_elementwise(&mut self.context, op, &operands)
    }

    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        operands: CategoricalOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        op.check_categorical(policy, &operands)?;
        if self.variant != Variant::Plain {
            return kernels::record_categorical(&mut self.context, self.variant, op, policy, &operands);
        }
        let CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats } = operands;
        let mut between = Between::new(self, op)?;
        let (logp, entropy) = (&mut between.logp, &mut between.entropy);
        self.categorical_evaluate(policy, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy })?;
        between.surrogate(self, op, [values, samples], [d_values, stats])?;
        let (d_logp, d_entropy) = (&between.d_logp, &between.d_entropy);
        self.categorical_backward(policy, CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits })
    }

    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        operands: GaussianOperands<'_, Buffer<f32>>,
    ) -> Result<()> {
        op.check_gaussian(policy, &operands)?;
        // With a log-std that depends on the state, the fused kernel would need a ninth storage buffer, one more than WebGPU promises.
        if self.variant != Variant::Plain && !policy.state_dependent_std {
            return kernels::record_gaussian(&mut self.context, self.variant, op, policy, &operands);
        }
        let GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats } =
            operands;
        let mut between = Between::new(self, op)?;
        let (logp, entropy) = (&mut between.logp, &mut between.entropy);
        self.gaussian_evaluate(policy, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })?;
        between.surrogate(self, op, [values, samples], [d_values, stats])?;
        let Between { d_logp, d_entropy, .. } = &between;
        let backward =
            GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
        self.gaussian_backward(policy, backward)
    }

    fn stop_on_kl(&mut self, threshold: f64, stats_row: usize, stats: &Buffer<f32>, control: &mut Buffer<u32>) -> Result<()> {
        kernels::record_stop_on_kl(&mut self.context, threshold, stats_row, stats, control)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl SurrogateOps for Cpu<$real> {
            fn surrogate(&mut self, op: &Surrogate, operands: SurrogateOperands<'_, Vec<$real>>) -> Result<()> {
                op.check_elementwise(&operands)?;
                $arithmetic::surrogate(op, operands);
                Ok(())
            }

            fn surrogate_categorical(
                &mut self,
                op: &Surrogate,
                policy: &Categorical,
                operands: CategoricalOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_categorical(policy, &operands)?;
                $arithmetic::surrogate_categorical(op, policy, operands);
                Ok(())
            }

            fn surrogate_gaussian(
                &mut self,
                op: &Surrogate,
                policy: &Gaussian,
                operands: GaussianOperands<'_, Vec<$real>>,
            ) -> Result<()> {
                op.check_gaussian(policy, &operands)?;
                $arithmetic::surrogate_gaussian(op, policy, operands);
                Ok(())
            }

            fn stop_on_kl(&mut self, threshold: f64, stats_row: usize, stats: &Vec<$real>, control: &mut Vec<u32>) -> Result<()> {
                kernels::check_stop_on_kl(threshold, stats_row, stats.len(), control.len())?;
                $arithmetic::stop_on_kl(threshold, stats_row, stats, control);
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);

/// What the bounds take from the twin.
const EXACT: kernels::Exact = kernels::Exact { policy: reference::policy_loss, critic: reference::critic_loss };

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
    fn surrogate(&mut self, op: &Surrogate, mut operands: SurrogateOperands<'_, Self::Floats>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.surrogate(op, a)?;
        self.b.surrogate(op, b)?;
        let SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats } = operands;
        let batch = op.batch;
        let [logp, entropy, values] = [logp, entropy, values].map(|buffer| self.b.read_f64(&buffer.b, 0, batch));
        let samples = self.b.read_f64(&samples.b, 0, batch * sample::COLUMNS)?;
        let bounds = op.bounds(EXACT, &logp?, &entropy?, &values?, &samples);
        self.compare("surrogate", "terms", terms, 0..batch * term::COLUMNS, &Tolerance::PerElement(bounds.terms))?;
        self.compare("surrogate", "d_logp", d_logp, 0..batch, &Tolerance::PerElement(bounds.d_logp))?;
        self.compare("surrogate", "d_values", d_values, 0..batch, &Tolerance::PerElement(bounds.d_values))?;
        self.compare_stats("surrogate", op, stats, bounds.stats)
    }

    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        mut operands: CategoricalOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        const OPERATION: &str = "surrogate_categorical";
        let (a, b) = operands.sides();
        self.a.surrogate_categorical(op, policy, a)?;
        self.b.surrogate_categorical(op, policy, b)?;
        let CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats } = operands;
        let (batch, elements) = (op.batch, op.batch * policy.actions);
        let logits = self.b.read_f64(&logits.b, 0, elements)?;
        let mask = mask.map(|mask| self.b.read_words(&mask.b, 0, elements)).transpose()?;
        let actions = self.b.read_words(&actions.b, 0, batch)?;
        let values = self.b.read_f64(&values.b, 0, batch)?;
        let samples = self.b.read_f64(&samples.b, 0, batch * sample::COLUMNS)?;
        let bounds = op.categorical_bounds(EXACT, policy, &logits, mask.as_deref(), &actions, &values, &samples);
        self.compare(OPERATION, "d_logits", d_logits, 0..elements, &Tolerance::PerElement(bounds.d_logits))?;
        self.compare(OPERATION, "d_values", d_values, 0..batch, &Tolerance::PerElement(bounds.d_values))?;
        self.compare_stats(OPERATION, op, stats, bounds.stats)
    }

    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        mut operands: GaussianOperands<'_, Self::Floats>,
    ) -> Result<()> {
        const OPERATION: &str = "surrogate_gaussian";
        let (a, b) = operands.sides();
        self.a.surrogate_gaussian(op, policy, a)?;
        self.b.surrogate_gaussian(op, policy, b)?;
        let GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats } =
            operands;
        let (batch, elements, log_stds) = (op.batch, op.batch * policy.dim, policy.log_std_len());
        let [mean, actions] = [mean, actions].map(|buffer| self.b.read_f64(&buffer.b, 0, elements));
        let log_std = self.b.read_f64(&log_std.b, policy.log_std_offset, log_stds)?;
        let values = self.b.read_f64(&values.b, 0, batch)?;
        let samples = self.b.read_f64(&samples.b, 0, batch * sample::COLUMNS)?;
        let bounds = op.gaussian_bounds(EXACT, policy, &mean?, &log_std, &actions?, &values, &samples);
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
