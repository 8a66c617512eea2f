//! Global-norm clipping, Adam and AdamW over one flat parameter buffer.

/// Words of the control buffer that lets recorded steps depend on what happened on the device.
pub mod control {
    /// Words in all.
    pub const WORDS: usize = 4;
    /// Why steps are no-ops from now on ([`stop`](super::stop)); 0 while they are not.
    pub const STOP: usize = 0;
    /// Optimiser steps applied so far.
    pub const STEPS_DONE: usize = 1;
    /// Code of the tensor in which a value that is not finite was found.
    pub const BAD_TENSOR: usize = 2;
    /// Flat index of the first such element. Starts at `u32::MAX`.
    pub const BAD_ELEMENT: usize = 3;
    /// What the buffer holds at the start of an update.
    pub const INITIAL: [u32; WORDS] = [0, 0, 0, u32::MAX];
}

/// Values of `control[STOP]`.
pub mod stop {
    /// Keep going.
    pub const NONE: u32 = 0;
    /// approx_kl passed `target_kl`.
    pub const TARGET_KL: u32 = 1;
    /// A value is not finite.
    pub const NON_FINITE: u32 = 2;
}

/// Columns of a row of the optimiser's schedule, one row a step: what depends on the step count alone and is best computed in double
/// precision on the host.
pub mod schedule {
    /// Columns in all.
    pub const COLUMNS: usize = 4;
    /// Learning rate.
    pub const LEARNING_RATE: usize = 0;
    /// learning rate / (1 − β₁ᵗ).
    pub const STEP_SIZE: usize = 1;
    /// 1 / √(1 − β₂ᵗ).
    pub const INV_SQRT_BIAS_CORRECTION2: usize = 2;

    /// The row of step `t` (counting from 1).
    pub fn row(learning_rate: f64, beta1: f64, beta2: f64, t: u64) -> [f32; COLUMNS] {
        let t = t as f64;
        let step_size = learning_rate / (1.0 - beta1.powf(t));
        [learning_rate as f32, step_size as f32, (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32, 0.0]
    }
}

/// The norm of all gradients together, and the factor that clips it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientNorm {
    /// Elements of the flat gradient.
    pub len: usize,
    /// Largest norm allowed, > 0; `f64::INFINITY` for no clipping.
    pub max_grad_norm: f64,
    /// Added to the norm in the divisor: torch has 1e-6, optax 0.
    pub epsilon: f64,
    /// Row of the statistics buffer that takes norm and factor.
    pub stats_row: usize,
}

/// One step of Adam (Kingma & Ba 2015, arXiv:1412.6980) in torch's form: ε is added after the bias correction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Elements of the flat parameter buffer.
    pub len: usize,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// ε ≥ 0.
    pub epsilon: f64,
    /// Weight decay ≥ 0.
    pub weight_decay: f64,
    /// Whether the decay is decoupled from the gradient (AdamW, Loshchilov & Hutter 2019) or added to it (L2).
    pub decoupled: bool,
    /// Row of the schedule buffer that holds this step's learning rate and bias corrections.
    pub schedule_row: usize,
    /// Row of the statistics buffer that holds this step's clip factor.
    pub stats_row: usize,
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
