//! The kernels' binding to wgpu.

use super::{
    ACTIONS_PER_LANE, Categorical, CategoricalBackwardOperands, CategoricalDistributionOperands, CategoricalEvaluateOperands,
    CategoricalKlBackwardOperands, CategoricalKlOperands, CategoricalSampleOperands, Gaussian, GaussianBackwardOperands,
    GaussianEvaluateOperands, GaussianKlBackwardOperands, GaussianKlOperands, GaussianSampleOperands, KlArgument, MOST_ROUNDS,
    SquashedBackwardOperands, SquashedEvaluateOperands, SquashedGaussian,
};
use crate::error::{Error, Result};
use crate::gpu::{Bound, Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
use crate::kernels::ShaderInfo;

type Bindings<'a> = &'a [Bound];
type Constants = [(&'static str, f64); 3];

const CATEGORICAL: Shader = Shader {
    name: "policy/categorical",
    source: concat!(include_str!("../../../shaders/elementary.wgsl"), include_str!("../../../shaders/policy/categorical.wgsl")),
    indices: Indices::Proven,
};
const GAUSSIAN: Shader = Shader {
    name: "policy/gaussian",
    source: concat!(include_str!("../../../shaders/elementary.wgsl"), include_str!("../../../shaders/policy/gaussian.wgsl")),
    indices: Indices::Proven,
};

/// Lanes and masks of the categorical entry points.
const ROWS: &[&[(&str, f64)]] = &[
    &[("LANES", 1.0), ("MASKED", 0.0)],
    &[("LANES", 1.0), ("MASKED", 1.0)],
    &[("LANES", 64.0), ("MASKED", 0.0)],
    &[("LANES", 64.0), ("MASKED", 1.0)],
];
const ROWS_AND_ARGUMENT: &[&[(&str, f64)]] = &[
    &[("LANES", 1.0), ("MASKED", 0.0), ("WITH_RESPECT_TO_Q", 0.0)],
    &[("LANES", 1.0), ("MASKED", 1.0), ("WITH_RESPECT_TO_Q", 0.0)],
    &[("LANES", 64.0), ("MASKED", 0.0), ("WITH_RESPECT_TO_Q", 1.0)],
    &[("LANES", 64.0), ("MASKED", 1.0), ("WITH_RESPECT_TO_Q", 1.0)],
];
const STD: &[&[(&str, f64)]] = &[&[("STATE_DEPENDENT", 0.0)], &[("STATE_DEPENDENT", 1.0)]];
const STD_AND_ARGUMENT: &[&[(&str, f64)]] = &[
    &[("STATE_DEPENDENT", 0.0), ("WITH_RESPECT_TO_Q", 0.0)],
    &[("STATE_DEPENDENT", 0.0), ("WITH_RESPECT_TO_Q", 1.0)],
    &[("STATE_DEPENDENT", 1.0), ("WITH_RESPECT_TO_Q", 0.0)],
    &[("STATE_DEPENDENT", 1.0), ("WITH_RESPECT_TO_Q", 1.0)],
];
const STD_AND_PATH: &[&[(&str, f64)]] = &[
    &[("STATE_DEPENDENT", 0.0), ("REPARAMETERISED", 0.0)],
    &[("STATE_DEPENDENT", 0.0), ("REPARAMETERISED", 1.0)],
    &[("STATE_DEPENDENT", 1.0), ("REPARAMETERISED", 0.0)],
    &[("STATE_DEPENDENT", 1.0), ("REPARAMETERISED", 1.0)],
];

pub(crate) const SHADERS: &[ShaderInfo] = &[
    ShaderInfo {
        shader: CATEGORICAL,
        params: &[(CategoricalParams::NAME, size_of::<CategoricalParams>(), CategoricalParams::FIELDS)],
        entries: &[
            ("distribution", ROWS),
            ("evaluate", ROWS),
            ("sample", ROWS),
            ("backward", ROWS),
            ("kl", ROWS),
            ("kl_backward", ROWS_AND_ARGUMENT),
        ],
    },
    ShaderInfo {
        shader: GAUSSIAN,
        params: &[(GaussianParams::NAME, size_of::<GaussianParams>(), GaussianParams::FIELDS)],
        entries: &[
            ("evaluate", STD),
            ("sample", STD),
            ("backward", STD),
            ("kl", STD),
            ("kl_backward", STD_AND_ARGUMENT),
            ("squashed_evaluate", STD),
            ("squashed_backward", STD_AND_PATH),
            ("sum_parts", STD),
        ],
    },
];

/// The shaders' default.
const WORKGROUP_SIZE: usize = 64;
/// Actions up to which one invocation takes a whole row; beyond, a workgroup shares it.
const ACTIONS_ALONE: usize = 64;

shader_params! {
    struct CategoricalParams {
        batch: u32,
        actions: u32,
        offset: u32,
    }
}

shader_params! {
    struct GaussianParams {
        batch: u32,
        dim: u32,
        offset: u32,
        log_std_offset: u32,
        d_log_std_offset: u32,
        rows_per_part: u32,
        parts: u32,
        low: f32,
        high: f32,
        log_half_width: f32,
    }
}

fn require_at_most(limit: &'static str, needed: usize, available: usize) -> Result<()> {
    if needed <= available {
        return Ok(());
    }
    Err(Error::LimitExceeded { limit, needed: needed as u64, available: available as u64 })
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// Records an operation on rows of logits. Where there is no mask, the logits are bound in its place, and not read as one.
fn record_rows(
    context: &mut Context,
    entry: &'static str,
    op: &Categorical,
    offset: usize,
    argument: Option<KlArgument>,
    logits: &Buffer<f32>,
    mask: Option<&Buffer<u32>>,
    others: Bindings<'_>,
) -> Result<()> {
    let lanes = if op.actions <= ACTIONS_ALONE { 1 } else { WORKGROUP_SIZE };
    require_at_most("actions", op.actions, lanes * ACTIONS_PER_LANE)?;
    let constants: Constants =
        [("LANES", lanes as f64), ("MASKED", flag(mask.is_some())), ("WITH_RESPECT_TO_Q", flag(argument == Some(KlArgument::Q)))];
    let constants = if argument.is_some() { &constants[..] } else { &constants[..2] };
    let params = CategoricalParams { batch: op.batch as u32, actions: op.actions as u32, offset: offset as u32 };
    let mut buffers = vec![bind("logits", logits), mask.map_or_else(|| bind("mask", logits), |mask| bind("mask", mask))];
    buffers.extend_from_slice(others);
    context.dispatch(CATEGORICAL, entry, constants, &params, &buffers, Grid::covering(op.batch * lanes, WORKGROUP_SIZE))
}

pub(crate) fn record_distribution(
    context: &mut Context,
    op: &Categorical,
    operands: &CategoricalDistributionOperands<'_, Buffer<f32>, Buffer<u32>>,
) -> Result<()> {
    op.check_distribution(operands)?;
    let CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode } = operands;
    let others = [bind("log_probs", log_probs), bind("probs", probs), bind("logsumexp", logsumexp), bind("mode", mode)];
    record_rows(context, "distribution", op, 0, None, logits, *mask, &others)
}

pub(crate) fn record_evaluate(
    context: &mut Context,
    op: &Categorical,
    operands: &CategoricalEvaluateOperands<'_, Buffer<f32>, Buffer<u32>>,
) -> Result<()> {
    op.check_evaluate(operands)?;
    let CategoricalEvaluateOperands { logits, mask, actions, logp, entropy } = operands;
    let others = [bind("actions", actions), bind("logp", logp), bind("entropy", entropy)];
    record_rows(context, "evaluate", op, 0, None, logits, *mask, &others)
}

pub(crate) fn record_sample(
    context: &mut Context,
    op: &Categorical,
    operands: &CategoricalSampleOperands<'_, Buffer<f32>, Buffer<u32>>,
) -> Result<()> {
    op.check_sample(operands)?;
    let CategoricalSampleOperands { logits, mask, uniforms, offset, actions, logp } = operands;
    let others = [bind("uniforms", uniforms), bind("logp", logp), bind("drawn", actions)];
    record_rows(context, "sample", op, *offset, None, logits, *mask, &others)
}

pub(crate) fn record_backward(
    context: &mut Context,
    op: &Categorical,
    operands: &CategoricalBackwardOperands<'_, Buffer<f32>, Buffer<u32>>,
) -> Result<()> {
    op.check_backward(operands)?;
    let CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits } = operands;
    let others = [bind("actions", actions), bind("d_logp", d_logp), bind("d_entropy", d_entropy), bind("d_logits", d_logits)];
    record_rows(context, "backward", op, 0, None, logits, *mask, &others)
}

pub(crate) fn record_kl(
    context: &mut Context,
    op: &Categorical,
    operands: &CategoricalKlOperands<'_, Buffer<f32>, Buffer<u32>>,
) -> Result<()> {
    op.check_kl(operands)?;
    let CategoricalKlOperands { p_logits, q_logits, mask, kl } = operands;
    record_rows(context, "kl", op, 0, None, p_logits, *mask, &[bind("q_logits", q_logits), bind("kl_out", kl)])
}

pub(crate) fn record_kl_backward(
    context: &mut Context,
    op: &Categorical,
    argument: KlArgument,
    operands: &CategoricalKlBackwardOperands<'_, Buffer<f32>, Buffer<u32>>,
) -> Result<()> {
    op.check_kl_backward(operands)?;
    let CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits } = operands;
    let others = [bind("q_logits", q_logits), bind("d_kl", d_kl), bind("d_logits", d_logits)];
    record_rows(context, "kl_backward", op, 0, Some(argument), p_logits, *mask, &others)
}

fn gaussian_params(op: &Gaussian, offset: usize, d_log_std_offset: usize) -> GaussianParams {
    let (rows_per_part, parts) = op.rows_per_part();
    GaussianParams {
        batch: op.batch as u32,
        dim: op.dim as u32,
        offset: offset as u32,
        log_std_offset: op.log_std_offset as u32,
        d_log_std_offset: d_log_std_offset as u32,
        rows_per_part: rows_per_part as u32,
        parts: parts as u32,
        low: -1.0,
        high: 1.0,
        log_half_width: 0.0,
    }
}

fn squashed_params(op: &SquashedGaussian) -> GaussianParams {
    GaussianParams {
        low: op.low as f32,
        high: op.high as f32,
        log_half_width: (0.5 * (op.high - op.low)).ln() as f32,
        ..gaussian_params(&op.gaussian, 0, 0)
    }
}

/// Records an operation with one invocation a row.
fn record_forward(
    context: &mut Context,
    entry: &'static str,
    op: &Gaussian,
    params: &GaussianParams,
    buffers: Bindings<'_>,
) -> Result<()> {
    require_at_most("dim", op.dim, MOST_ROUNDS)?;
    let constants = [("STATE_DEPENDENT", flag(op.state_dependent_std))];
    context.dispatch(GAUSSIAN, entry, &constants, params, buffers, Grid::covering(op.batch, WORKGROUP_SIZE))
}

/// Records a gradient; where the log-std is shared by the batch, its parts are summed by a second dispatch.
fn record_gradient(
    context: &mut Context,
    entry: &'static str,
    op: &Gaussian,
    option: (&'static str, bool),
    params: &GaussianParams,
    inputs: Bindings<'_>,
    d_mean: &Buffer<f32>,
    d_log_std: &Buffer<f32>,
) -> Result<()> {
    require_at_most("rows that share a log-std", params.rows_per_part as usize, MOST_ROUNDS)?;
    let constants = [("STATE_DEPENDENT", flag(op.state_dependent_std)), (option.0, flag(option.1))];
    let constants = if option.0.is_empty() { &constants[..1] } else { &constants[..] };
    let grid = Grid::covering(params.parts as usize * op.dim, WORKGROUP_SIZE);
    let mut buffers = inputs.to_vec();
    buffers.push(bind("d_mean", d_mean));
    if op.state_dependent_std {
        buffers.push(bind("d_log_std", d_log_std));
        return context.dispatch(GAUSSIAN, entry, constants, params, &buffers, grid);
    }
    let parts = context.scratch::<f32>("policy parts", params.parts as usize * op.dim)?;
    buffers.push(bind("d_log_std", &parts));
    context.dispatch(GAUSSIAN, entry, constants, params, &buffers, grid)?;
    let sum = [bind("parts", &parts), bind("d_log_std", d_log_std)];
    context.dispatch(GAUSSIAN, "sum_parts", &constants[..1], params, &sum, Grid::covering(op.dim, WORKGROUP_SIZE))
}

pub(crate) fn record_gaussian_evaluate(
    context: &mut Context,
    op: &Gaussian,
    operands: &GaussianEvaluateOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_evaluate(operands)?;
    let GaussianEvaluateOperands { mean, log_std, actions, logp, entropy } = operands;
    let buffers =
        [bind("mean", mean), bind("log_std", log_std), bind("x", actions), bind("logp", logp), bind("entropy", entropy)];
    record_forward(context, "evaluate", op, &gaussian_params(op, 0, 0), &buffers)
}

pub(crate) fn record_gaussian_sample(
    context: &mut Context,
    op: &Gaussian,
    operands: &GaussianSampleOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_sample(operands)?;
    let GaussianSampleOperands { mean, log_std, noise, offset, actions, logp } = operands;
    let buffers = [bind("mean", mean), bind("log_std", log_std), bind("x", noise), bind("logp", logp), bind("actions", actions)];
    record_forward(context, "sample", op, &gaussian_params(op, *offset, 0), &buffers)
}

pub(crate) fn record_gaussian_backward(
    context: &mut Context,
    op: &Gaussian,
    operands: &GaussianBackwardOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_backward(operands)?;
    let GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset } = operands;
    let inputs =
        [bind("mean", mean), bind("log_std", log_std), bind("x", actions), bind("d_logp", d_logp), bind("d_entropy", d_entropy)];
    let params = gaussian_params(op, 0, *d_log_std_offset);
    record_gradient(context, "backward", op, ("", false), &params, &inputs, d_mean, d_log_std)
}

pub(crate) fn record_gaussian_kl(
    context: &mut Context,
    op: &Gaussian,
    operands: &GaussianKlOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_kl(operands)?;
    let GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl } = operands;
    let buffers = [
        bind("mean", p_mean),
        bind("log_std", p_log_std),
        bind("q_mean", q_mean),
        bind("q_log_std", q_log_std),
        bind("kl_out", kl),
    ];
    record_forward(context, "kl", op, &gaussian_params(op, 0, 0), &buffers)
}

pub(crate) fn record_gaussian_kl_backward(
    context: &mut Context,
    op: &Gaussian,
    argument: KlArgument,
    operands: &GaussianKlBackwardOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_kl_backward(operands)?;
    let GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std } = operands;
    let inputs = [
        bind("mean", p_mean),
        bind("log_std", p_log_std),
        bind("q_mean", q_mean),
        bind("q_log_std", q_log_std),
        bind("d_kl", d_kl),
    ];
    let option = ("WITH_RESPECT_TO_Q", argument == KlArgument::Q);
    record_gradient(context, "kl_backward", op, option, &gaussian_params(op, 0, 0), &inputs, d_mean, d_log_std)
}

pub(crate) fn record_squashed_evaluate(
    context: &mut Context,
    op: &SquashedGaussian,
    operands: &SquashedEvaluateOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_evaluate(operands)?;
    let SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp } = operands;
    let buffers = [
        bind("mean", mean),
        bind("log_std", log_std),
        bind("x", u),
        bind("logp", logp),
        bind("actions", actions),
        bind("log_det", log_det),
    ];
    record_forward(context, "squashed_evaluate", &op.gaussian, &squashed_params(op), &buffers)
}

pub(crate) fn record_squashed_backward(
    context: &mut Context,
    op: &SquashedGaussian,
    reparameterised: bool,
    operands: &SquashedBackwardOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_backward(operands)?;
    let SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std } = operands;
    let inputs = [bind("mean", mean), bind("log_std", log_std), bind("x", u), bind("d_logp", d_logp)];
    let option = ("REPARAMETERISED", reparameterised);
    record_gradient(context, "squashed_backward", &op.gaussian, option, &squashed_params(op), &inputs, d_mean, d_log_std)
}
