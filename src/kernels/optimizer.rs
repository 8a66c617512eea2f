//! Global-norm clipping, Adam and AdamW over one flat parameter buffer.

use crate::error::{Error, Result};
use crate::layout::{control, require_stats_row, schedule};
use crate::operands::{Length, operands};
use crate::shape::{elements, require_len, require_range, require_size};
use crate::tolerance::{F32_ROUNDOFF, Tolerance};

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

operands! {
    /// Operands of [`adam_step`](crate::backend::OptimizerOps::adam_step).
    pub struct AdamOperands<F, W> {
        /// `[len]`: parameters, which the step changes.
        params: FloatsMut,
        /// `[len]`: their gradient, before clipping.
        grads: Floats,
        /// `[len]`: first moments.
        m: FloatsMut,
        /// `[len]`: second moments.
        v: FloatsMut,
        /// `[rows, 4]`, see [`schedule`].
        schedule: Floats,
        /// `[rows, 16]`, see [`stat`](crate::layout::stat): the clip factor is read.
        stats: Floats,
        /// See [`control`].
        control: WordsMut,
    }
}

/// The smallest normal `f32`. What is smaller may be flushed to zero.
const SMALLEST_NORMAL: f64 = f32::MIN_POSITIVE as f64;
/// Relative error of WGSL's `sqrt`, given as 1/inverseSqrt: 2 + 2.5 ULP of at most 2 unit roundoffs.
const SQRT_ERROR: f64 = 9.0 * F32_ROUNDOFF;
/// Relative error of WGSL's division: 2.5 ULP.
const DIVISION_ERROR: f64 = 5.0 * F32_ROUNDOFF;

impl GradientNorm {
    pub(crate) fn check(&self, grads: usize, stats: usize) -> Result<()> {
        require_size("len", self.len)?;
        if self.max_grad_norm.is_nan() || self.max_grad_norm <= 0.0 {
            return Err(Error::value("max_grad_norm", "a number > 0, or infinity", self.max_grad_norm));
        }
        require_range("epsilon", self.epsilon, 0.0, f64::from(f32::MAX))?;
        require_len("grads", grads, self.len)?;
        require_stats_row(stats, self.stats_row)
    }

    /// Most workgroups, and so partial sums, of a norm: four for each invocation of the workgroup that adds them up.
    const MOST_PARTIALS: usize = 1024;
    const WORKGROUP_SIZE: usize = 256;
    /// Up to here one workgroup alone is faster than two dispatches.
    const SMALL: usize = 128 * Self::WORKGROUP_SIZE;

    /// Partial sums that the GPU makes: 1 where one workgroup does it all.
    pub(crate) fn partials(&self) -> usize {
        if self.len <= Self::SMALL { 1 } else { self.len.div_ceil(16 * Self::WORKGROUP_SIZE).min(Self::MOST_PARTIALS) }
    }

    /// Roundings between one gradient and the sum of squares: its square, its block of 32, the blocks of its invocation, twice 16 in the
    /// workgroup, and the same for the partials (at most four an invocation).
    fn roundings(&self) -> f64 {
        let an_invocation = self.len.div_ceil(self.partials() * Self::WORKGROUP_SIZE);
        (1 + 32 + an_invocation.div_ceil(32) + 32 + 4 + 32) as f64
    }

    /// Norm as computed against the exact one. All addends are positive, so the sum has a relative error of one unit roundoff a rounding;
    /// the root halves it. Squares and partial sums that are flushed to zero are the absolute part.
    pub fn norm_tolerance(&self) -> Tolerance {
        Tolerance::Uniform { abs: self.flushed_norm(), rel: self.norm_error() }
    }

    fn norm_error(&self) -> f64 {
        self.roundings() / 2.0 * F32_ROUNDOFF + SQRT_ERROR
    }

    fn flushed_norm(&self) -> f64 {
        (2.0 * self.len as f64 * SMALLEST_NORMAL).sqrt()
    }

    /// The factor: the norm's error, the roundings of limit, ε and their sum, and a division. Where the factor is below 1 the norm is above
    /// the limit, so the norm's absolute part counts relative to the limit.
    pub fn clip_coef_tolerance(&self) -> Tolerance {
        Tolerance::Uniform {
            abs: self.flushed_norm() / self.max_grad_norm,
            rel: self.norm_error() + 3.0 * F32_ROUNDOFF + DIVISION_ERROR,
        }
    }
}

/// What may lie between two backends after one step of [`Adam`], for each element.
#[derive(Debug, Clone, Default)]
pub struct AdamBounds {
    /// Bounds of the parameters.
    pub params: Vec<f64>,
    /// Bounds of the first moments.
    pub m: Vec<f64>,
    /// Bounds of the second moments.
    pub v: Vec<f64>,
}

/// One element before a step of [`Adam`].
#[derive(Debug, Clone, Copy)]
struct AdamElement {
    param: f64,
    grad: f64,
    m: f64,
    v: f64,
}

impl Adam {
    pub(crate) fn check<F: Length, W: Length>(&self, operands: &AdamOperands<'_, F, W>) -> Result<()> {
        let AdamOperands { params, grads, m, v, schedule, stats, control } = operands;
        let state = [params.len(), grads.len(), m.len(), v.len()];
        self.check_lens(state, schedule.len(), stats.len(), control.len())
    }

    pub(crate) fn check_lens(&self, state: [usize; 4], schedule_len: usize, stats_len: usize, control_len: usize) -> Result<()> {
        require_size("len", self.len)?;
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::value(name, "a number in [0, 1)", beta));
            }
        }
        require_range("epsilon", self.epsilon, 0.0, f64::from(f32::MAX))?;
        require_range("weight_decay", self.weight_decay, 0.0, f64::from(f32::MAX))?;
        for (name, len) in ["params", "grads", "m", "v"].into_iter().zip(state) {
            require_len(name, len, self.len)?;
        }
        let rows = self.schedule_row.checked_add(1);
        let rows = rows.ok_or_else(|| Error::shape("schedule", "a row that can be counted", self.schedule_row))?;
        require_len("schedule", schedule_len, elements("schedule", rows, schedule::COLUMNS)?)?;
        require_stats_row(stats_len, self.stats_row)?;
        require_len("control", control_len, control::WORDS)
    }

    /// The weight decay that is added to the gradient.
    pub(crate) fn l2(&self) -> f64 {
        if self.decoupled { 0.0 } else { self.weight_decay }
    }

    /// The weight decay that is not.
    pub(crate) fn decay(&self) -> f64 {
        if self.decoupled { self.weight_decay } else { 0.0 }
    }

    /// Bounds for one step from `params`, `grads`, `m`, `v` with this `schedule` row and clip factor.
    pub fn bounds(&self, params: &[f64], grads: &[f64], m: &[f64], v: &[f64], schedule: &[f64], clip_coef: f64) -> AdamBounds {
        let mut bounds = AdamBounds::default();
        for i in 0..self.len {
            let element = AdamElement { param: params[i], grad: grads[i], m: m[i], v: v[i] };
            let [of_param, of_m, of_v] = self.element_bounds(element, schedule, clip_coef);
            bounds.params.push(of_param);
            bounds.m.push(of_m);
            bounds.v.push(of_v);
        }
        bounds
    }

    /// Unit roundoffs counted along the formula, on absolute values, so that a difference that cancels keeps the error of its operands.
    /// A constant that the host rounds counts one, as does each operation.
    fn element_bounds(&self, x: AdamElement, schedule: &[f64], clip_coef: f64) -> [f64; 3] {
        let u = F32_ROUNDOFF;
        let AdamElement { param, grad, m, v } = x;
        // g = coef·grad + l2·param: a constant, a product, a sum.
        let (g, g_abs) = (clip_coef * grad + self.l2() * param, clip_coef * grad.abs() + self.l2() * param.abs());
        let g_error = 3.0 * u * g_abs;
        // m' = beta1·m + (1 - beta1)·g: a constant, a product, a sum, on top of g's own error.
        let new_m = self.beta1 * m + (1.0 - self.beta1) * g;
        let m_abs = self.beta1 * m.abs() + (1.0 - self.beta1) * g_abs;
        let m_error = 3.0 * u * m_abs + (1.0 - self.beta1) * g_error + 4.0 * SMALLEST_NORMAL;
        // v' = beta2·v + (1 - beta2)·g²: the same, and the square.
        let new_v = self.beta2 * v + (1.0 - self.beta2) * g * g;
        let v_abs = self.beta2 * v.abs() + (1.0 - self.beta2) * g_abs * g_abs;
        let v_error = 4.0 * u * v_abs + (1.0 - self.beta2) * g_error * (2.0 * g_abs + g_error) + 4.0 * SMALLEST_NORMAL;
        // denominator = √v'·c + ε: the root of an uncertain number, a product, a constant, a sum.
        let correction = schedule[schedule::INV_SQRT_BIAS_CORRECTION2];
        let root = new_v.sqrt();
        let root_error = root - (new_v - v_error).max(0.0).sqrt() + SQRT_ERROR * root;
        let root_error = root_error.max((new_v + v_error).sqrt() - root + SQRT_ERROR * root);
        let denominator = root * correction + self.epsilon;
        let denominator_error = root_error * correction + 3.0 * u * denominator;
        let smallest_denominator = (denominator - denominator_error).max(self.epsilon * (1.0 - 3.0 * u));
        // params' = param·(1 - lr·decay) - step·(m'/denominator): a division, a product, the decay's four roundings, a difference.
        let step = schedule[schedule::STEP_SIZE];
        let quotient_error = (m_error + new_m.abs() * denominator_error / denominator) / smallest_denominator;
        let moved = step * new_m.abs() / denominator;
        let decayed = if self.decay() > 0.0 { 4.0 * u * param.abs() } else { 0.0 };
        let new_param = (param * (1.0 - schedule[schedule::LEARNING_RATE] * self.decay())).abs() + moved;
        let param_error = step * quotient_error + moved * (DIVISION_ERROR + u) + decayed + u * new_param + 2.0 * SMALLEST_NORMAL;
        // Without ε, a second moment that is zero within its error bounds nothing.
        [if smallest_denominator > 0.0 { param_error } else { f64::INFINITY }, m_error, v_error]
    }
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use super::{Adam, AdamOperands, GradientNorm};
    use crate::error::Result;
    use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADER: Shader = Shader {
        name: "optimizer",
        source: concat!(
            include_str!("../../shaders/elementary.wgsl"),
            include_str!("../../shaders/optimizer/formulas.wgsl"),
            include_str!("../../shaders/optimizer/optimizer.wgsl")
        ),
        indices: Indices::Proven,
    };
    pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
        shader: SHADER,
        params: &[
            (NormParams::NAME, size_of::<NormParams>(), NormParams::FIELDS),
            (AdamParams::NAME, size_of::<AdamParams>(), AdamParams::FIELDS),
        ],
        entries: &[("small_norm", &[&[]]), ("partial_squares", &[&[]]), ("finish_norm", &[&[]]), ("adam_step", &[&[]])],
    }];

    shader_params! {
        struct NormParams {
            len: u32,
            partials: u32,
            stats_row: u32,
            limited: u32,
            max_grad_norm: f32,
            epsilon: f32,
        }
    }

    shader_params! {
        struct AdamParams {
            len: u32,
            schedule_row: u32,
            stats_row: u32,
            beta1: f32,
            one_minus_beta1: f32,
            beta2: f32,
            one_minus_beta2: f32,
            epsilon: f32,
            l2: f32,
            decay: f32,
        }
    }

    impl NormParams {
        pub(crate) fn new(op: &GradientNorm) -> Self {
            let limit = op.max_grad_norm as f32;
            Self {
                len: op.len as u32,
                partials: op.partials() as u32,
                stats_row: op.stats_row as u32,
                limited: u32::from(limit.is_finite()),
                max_grad_norm: if limit.is_finite() { limit } else { 0.0 },
                epsilon: op.epsilon as f32,
            }
        }
    }

    impl AdamParams {
        pub(crate) fn new(op: &Adam) -> Self {
            Self {
                len: op.len as u32,
                schedule_row: op.schedule_row as u32,
                stats_row: op.stats_row as u32,
                beta1: op.beta1 as f32,
                // Of the exact 1 - beta: what is left of it after rounding beta has lost half its digits.
                one_minus_beta1: (1.0 - op.beta1) as f32,
                beta2: op.beta2 as f32,
                one_minus_beta2: (1.0 - op.beta2) as f32,
                epsilon: op.epsilon as f32,
                l2: op.l2() as f32,
                decay: op.decay() as f32,
            }
        }
    }

    pub(crate) fn record_gradient_norm(
        context: &mut Context,
        op: &GradientNorm,
        grads: &Buffer<f32>,
        stats: &Buffer<f32>,
    ) -> Result<()> {
        op.check(grads.len(), stats.len())?;
        let params = NormParams::new(op);
        let partials = op.partials();
        if partials == 1 {
            return context.dispatch(
                SHADER,
                "small_norm",
                &[],
                &params,
                &[bind("grads", grads), bind("stats", stats)],
                Grid::Linear(1),
            );
        }
        let sums = context.scratch::<f32>("optimizer.partials", GradientNorm::MOST_PARTIALS)?;
        let buffers = [bind("grads", grads), bind("partials", &sums)];
        context.dispatch(SHADER, "partial_squares", &[], &params, &buffers, Grid::Linear(partials))?;
        context.dispatch(SHADER, "finish_norm", &[], &params, &[bind("partials", &sums), bind("stats", stats)], Grid::Linear(1))
    }

    pub(crate) fn record_adam_step(
        context: &mut Context,
        op: &Adam,
        operands: &AdamOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        op.check(operands)?;
        let params = AdamParams::new(op);
        let AdamOperands { params: params_buffer, grads, m, v, schedule, stats, control } = operands;
        let buffers = [
            bind("grads", grads),
            bind("stats", stats),
            bind("params", params_buffer),
            bind("m", m),
            bind("v", v),
            bind("schedule", schedule),
            bind("control", control),
        ];
        context.dispatch(SHADER, "adam_step", &[], &params, &buffers, Grid::covering(op.len, GradientNorm::WORKGROUP_SIZE))
    }
}
