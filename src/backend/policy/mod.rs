//! The operations of [`kernels::policy`](crate::kernels::policy) on every backend.

mod cross_check;

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, Memory};
use crate::cpu::policy as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::policy as kernels;
use crate::kernels::policy::{
    Categorical, CategoricalBackwardOperands, CategoricalDistributionOperands, CategoricalEvaluateOperands,
    CategoricalKlBackwardOperands, CategoricalKlOperands, CategoricalSampleOperands, Gaussian, GaussianBackwardOperands,
    GaussianEvaluateOperands, GaussianKlBackwardOperands, GaussianKlOperands, GaussianSampleOperands, KlArgument,
    SquashedBackwardOperands, SquashedEvaluateOperands, SquashedGaussian,
};
use crate::reference::policy as reference;

/// Log-probabilities, entropies, KL divergences, samples, and the gradients of all of them.
pub trait PolicyOps: Memory {
    /// All there is to know of each row: log-probabilities, probabilities, log-sum-exp and mode.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a buffer too small. On a GPU also more actions or dimensions (524 288, 65 000) than one loop of a
    /// shader may take.
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        operands: CategoricalDistributionOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()>;

    /// `logp` of the given `actions`, and `entropy`. An action outside 0..actions gives NaN.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        operands: CategoricalEvaluateOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()>;

    /// Draws actions by inverting the cumulative distribution: the first valid action whose cumulative probability exceeds
    /// `uniforms[offset + i]`, which is in [0, 1); what other numbers draw differs between backends. Writes `actions` and `logp` at `offset + i`
    /// too, so that whole rollouts share one buffer.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_sample(
        &mut self,
        op: &Categorical,
        operands: CategoricalSampleOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()>;

    /// `d_logits` of Σ d_logp·logp + d_entropy·entropy.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_backward(
        &mut self,
        op: &Categorical,
        operands: CategoricalBackwardOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()>;

    /// KL(p ‖ q) of two batches of logits under one mask.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_kl(&mut self, op: &Categorical, operands: CategoricalKlOperands<'_, Self::Floats, Self::Words>) -> Result<()>;

    /// Gradient of Σ d_kl·KL(p ‖ q) with respect to the logits of `argument`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        operands: CategoricalKlBackwardOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()>;

    /// `logp` of `actions`, and `entropy`, summed over dimensions.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_evaluate(&mut self, op: &Gaussian, operands: GaussianEvaluateOperands<'_, Self::Floats>) -> Result<()>;

    /// actions = mean + e^log_std·noise and their `logp`. `offset` counts rows of `noise`, `actions` and `logp`; `mean` starts at its row 0.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_sample(&mut self, op: &Gaussian, operands: GaussianSampleOperands<'_, Self::Floats>) -> Result<()>;

    /// `d_mean` and `d_log_std` of Σ d_logp·logp + d_entropy·entropy.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_backward(&mut self, op: &Gaussian, operands: GaussianBackwardOperands<'_, Self::Floats>) -> Result<()>;

    /// KL(p ‖ q), summed over dimensions. Both log-stds have the shape that `op` says.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_kl(&mut self, op: &Gaussian, operands: GaussianKlOperands<'_, Self::Floats>) -> Result<()>;

    /// Gradient of Σ d_kl·KL(p ‖ q) with respect to mean and log-std of `argument`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        operands: GaussianKlBackwardOperands<'_, Self::Floats>,
    ) -> Result<()>;

    /// For given u: the scaled actions, `log_det` = log(1 − tanh²u) of the squashing alone, and `logp` of the scaled action:
    /// Σ_d log N(u) − log_det − log((high − low)/2).
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        operands: SquashedEvaluateOperands<'_, Self::Floats>,
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
        operands: SquashedBackwardOperands<'_, Self::Floats>,
    ) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl PolicyOps for Gpu {
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        operands: CategoricalDistributionOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        kernels::record_distribution(&mut self.context, op, &operands)
    }

    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        operands: CategoricalEvaluateOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        kernels::record_evaluate(&mut self.context, op, &operands)
    }

    fn categorical_sample(
        &mut self,
        op: &Categorical,
        operands: CategoricalSampleOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        kernels::record_sample(&mut self.context, op, &operands)
    }

    fn categorical_backward(
        &mut self,
        op: &Categorical,
        operands: CategoricalBackwardOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        kernels::record_backward(&mut self.context, op, &operands)
    }

    fn categorical_kl(&mut self, op: &Categorical, operands: CategoricalKlOperands<'_, Buffer<f32>, Buffer<u32>>) -> Result<()> {
        kernels::record_kl(&mut self.context, op, &operands)
    }

    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        operands: CategoricalKlBackwardOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        kernels::record_kl_backward(&mut self.context, op, argument, &operands)
    }

    fn gaussian_evaluate(&mut self, op: &Gaussian, operands: GaussianEvaluateOperands<'_, Buffer<f32>>) -> Result<()> {
        kernels::record_gaussian_evaluate(&mut self.context, op, &operands)
    }

    fn gaussian_sample(&mut self, op: &Gaussian, operands: GaussianSampleOperands<'_, Buffer<f32>>) -> Result<()> {
        kernels::record_gaussian_sample(&mut self.context, op, &operands)
    }

    fn gaussian_backward(&mut self, op: &Gaussian, operands: GaussianBackwardOperands<'_, Buffer<f32>>) -> Result<()> {
        kernels::record_gaussian_backward(&mut self.context, op, &operands)
    }

    fn gaussian_kl(&mut self, op: &Gaussian, operands: GaussianKlOperands<'_, Buffer<f32>>) -> Result<()> {
        kernels::record_gaussian_kl(&mut self.context, op, &operands)
    }

    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        operands: GaussianKlBackwardOperands<'_, Buffer<f32>>,
    ) -> Result<()> {
        kernels::record_gaussian_kl_backward(&mut self.context, op, argument, &operands)
    }

    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        operands: SquashedEvaluateOperands<'_, Buffer<f32>>,
    ) -> Result<()> {
        kernels::record_squashed_evaluate(&mut self.context, op, &operands)
    }

    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        operands: SquashedBackwardOperands<'_, Buffer<f32>>,
    ) -> Result<()> {
        kernels::record_squashed_backward(&mut self.context, op, reparameterised, &operands)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl PolicyOps for Cpu<$real> {
            fn categorical_distribution(
                &mut self,
                op: &Categorical,
                operands: CategoricalDistributionOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_distribution(&operands)?;
                $arithmetic::categorical::distribution(op, operands);
                Ok(())
            }

            fn categorical_evaluate(
                &mut self,
                op: &Categorical,
                operands: CategoricalEvaluateOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_evaluate(&operands)?;
                $arithmetic::categorical::evaluate(op, operands);
                Ok(())
            }

            fn categorical_sample(
                &mut self,
                op: &Categorical,
                operands: CategoricalSampleOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_sample(&operands)?;
                $arithmetic::categorical::sample(op, operands);
                Ok(())
            }

            fn categorical_backward(
                &mut self,
                op: &Categorical,
                operands: CategoricalBackwardOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_backward(&operands)?;
                $arithmetic::categorical::backward(op, operands);
                Ok(())
            }

            fn categorical_kl(
                &mut self,
                op: &Categorical,
                operands: CategoricalKlOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_kl(&operands)?;
                $arithmetic::categorical::kl(op, operands);
                Ok(())
            }

            fn categorical_kl_backward(
                &mut self,
                op: &Categorical,
                argument: KlArgument,
                operands: CategoricalKlBackwardOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_kl_backward(&operands)?;
                $arithmetic::categorical::kl_backward(op, argument, operands);
                Ok(())
            }

            fn gaussian_evaluate(&mut self, op: &Gaussian, operands: GaussianEvaluateOperands<'_, Vec<$real>>) -> Result<()> {
                op.check_evaluate(&operands)?;
                $arithmetic::gaussian::evaluate(op, operands);
                Ok(())
            }

            fn gaussian_sample(&mut self, op: &Gaussian, operands: GaussianSampleOperands<'_, Vec<$real>>) -> Result<()> {
                op.check_sample(&operands)?;
                $arithmetic::gaussian::sample(op, operands);
                Ok(())
            }

            fn gaussian_backward(&mut self, op: &Gaussian, operands: GaussianBackwardOperands<'_, Vec<$real>>) -> Result<()> {
                op.check_backward(&operands)?;
                $arithmetic::gaussian::backward(op, operands);
                Ok(())
            }

            fn gaussian_kl(&mut self, op: &Gaussian, operands: GaussianKlOperands<'_, Vec<$real>>) -> Result<()> {
                op.check_kl(&operands)?;
                $arithmetic::gaussian::kl(op, operands);
                Ok(())
            }

            fn gaussian_kl_backward(
                &mut self,
                op: &Gaussian,
                argument: KlArgument,
                operands: GaussianKlBackwardOperands<'_, Vec<$real>>,
            ) -> Result<()> {
                op.check_kl_backward(&operands)?;
                $arithmetic::gaussian::kl_backward(op, argument, operands);
                Ok(())
            }

            fn squashed_gaussian_evaluate(
                &mut self,
                op: &SquashedGaussian,
                operands: SquashedEvaluateOperands<'_, Vec<$real>>,
            ) -> Result<()> {
                op.check_evaluate(&operands)?;
                $arithmetic::gaussian::squashed_evaluate(op, operands);
                Ok(())
            }

            fn squashed_gaussian_backward(
                &mut self,
                op: &SquashedGaussian,
                reparameterised: bool,
                operands: SquashedBackwardOperands<'_, Vec<$real>>,
            ) -> Result<()> {
                op.check_backward(&operands)?;
                $arithmetic::gaussian::squashed_backward(op, reparameterised, operands);
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);
