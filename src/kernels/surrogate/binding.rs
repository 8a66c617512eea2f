//! Recording `shaders/surrogate.wgsl`.

use super::{SUMS, Surrogate, ValueLoss, WORKGROUP_SIZE, check_stop_on_kl, lanes};
use crate::error::Result;
use crate::gpu::{Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
use crate::kernels::ShaderInfo;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::shape::{elements, require_size};

pub(crate) const SHADER: Shader = Shader {
    name: "surrogate",
    source: concat!(
        include_str!("../../../shaders/elementary.wgsl"),
        include_str!("../../../shaders/surrogate/loss.wgsl"),
        include_str!("../../../shaders/surrogate/surrogate.wgsl")
    ),
    indices: Indices::Proven,
};
pub(crate) const SHADERS: &[ShaderInfo] = &[ShaderInfo {
    shader: SHADER,
    params: &[
        (SurrogateParams::NAME, size_of::<SurrogateParams>(), SurrogateParams::FIELDS),
        (StopParams::NAME, size_of::<StopParams>(), StopParams::FIELDS),
    ],
    entries: &[
        ("elementwise", &[&[]]),
        ("entropy_gradient", &[&[]]),
        (
            "categorical",
            &[
                &[("LANES", 1.0), ("MASKED", 0.0)],
                &[("LANES", 1.0), ("MASKED", 1.0)],
                &[("LANES", 8.0), ("MASKED", 0.0)],
                &[("LANES", 8.0), ("MASKED", 1.0)],
                &[("LANES", 32.0), ("MASKED", 0.0)],
                &[("LANES", 32.0), ("MASKED", 1.0)],
            ],
        ),
        ("gaussian", &[&[]]),
        ("finish", &[&[]]),
        ("finish_gaussian", &[&[]]),
        ("stop_on_kl", &[&[]]),
    ],
}];

shader_params! {
    struct SurrogateParams {
        batch: u32,
        width: u32,
        partial_rows: u32,
        partial_width: u32,
        stats_row: u32,
        value_loss: u32,
        log_std_offset: u32,
        d_log_std_offset: u32,
        ratio_low: f32,
        ratio_high: f32,
        dual_clip: f32,
        value_range: f32,
        vf_coef: f32,
        ent_coef: f32,
        kl_coef: f32,
        one_over_batch: f32,
        not_a_number: f32,
    }
}

shader_params! {
    struct StopParams {
        stats_row: u32,
        threshold: f32,
    }
}

impl SurrogateParams {
    pub(crate) fn new(op: &Surrogate, width: usize, samples_a_workgroup: usize) -> Self {
        let (value_loss, value_range) = match op.value_loss {
            ValueLoss::Mse => (0, 0.0),
            ValueLoss::Clipped { clip } => (1, clip),
            ValueLoss::Huber { delta } => (2, delta),
        };
        Self {
            batch: op.batch as u32,
            width: width as u32,
            partial_rows: op.batch.div_ceil(samples_a_workgroup) as u32,
            partial_width: SUMS as u32,
            stats_row: op.stats_row as u32,
            value_loss,
            log_std_offset: 0,
            d_log_std_offset: 0,
            ratio_low: (1.0 - op.clip_low) as f32,
            ratio_high: (1.0 + op.clip_high) as f32,
            dual_clip: op.dual_clip.map_or(f32::INFINITY, |c| c as f32),
            value_range: value_range as f32,
            vf_coef: op.vf_coef as f32,
            ent_coef: op.ent_coef as f32,
            kl_coef: op.kl_coef as f32,
            one_over_batch: (1.0 / op.batch as f64) as f32,
            not_a_number: f32::NAN,
        }
    }

    fn grid(&self) -> Grid {
        Grid::Linear(self.partial_rows as usize)
    }

    fn partials(&self, context: &mut Context) -> Result<Buffer<f32>> {
        let len = elements("partials", self.partial_rows as usize, self.partial_width as usize)?;
        context.scratch("surrogate.partials", len)
    }

    /// Columns of partials: the sums of the loss, and with `log_std` a column each, in eights.
    pub(crate) fn partial_width(width: usize, log_std: bool) -> usize {
        if log_std { SUMS * (1 + width.div_ceil(SUMS)) } else { SUMS }
    }

    /// Sums partials into a row of statistics, and those of a Gaussian's log-std into the gradient, from an element on.
    fn finish(
        &self,
        context: &mut Context,
        partials: &Buffer<f32>,
        stats: &Buffer<f32>,
        d_log_std: Option<&Buffer<f32>>,
    ) -> Result<()> {
        let Some(d_log_std) = d_log_std else {
            return context.dispatch(SHADER, "finish", &[], self, &[bind(4, partials), bind(5, stats)], Grid::Linear(1));
        };
        let buffers = [bind(4, partials), bind(5, stats), bind(18, d_log_std)];
        context.dispatch(SHADER, "finish_gaussian", &[], self, &buffers, Grid::Linear(self.partial_width as usize / SUMS))
    }
}

pub(crate) fn record_elementwise(
    context: &mut Context,
    op: &Surrogate,
    logp: &Buffer<f32>,
    entropy: &Buffer<f32>,
    values: &Buffer<f32>,
    samples: &Buffer<f32>,
    terms: &Buffer<f32>,
    d_logp: &Buffer<f32>,
    d_values: &Buffer<f32>,
    stats: &Buffer<f32>,
) -> Result<()> {
    let vectors = [("logp", logp.len()), ("entropy", entropy.len()), ("d_logp", d_logp.len())];
    op.check_elementwise(vectors, values.len(), samples.len(), terms.len(), d_values.len(), stats.len())?;
    let params = SurrogateParams::new(op, 1, WORKGROUP_SIZE);
    let partials = params.partials(context)?;
    let buffers = [
        bind(1, samples),
        bind(2, values),
        bind(3, d_values),
        bind(4, &partials),
        bind(6, logp),
        bind(7, entropy),
        bind(8, terms),
        bind(9, d_logp),
    ];
    context.dispatch(SHADER, "elementwise", &[], &params, &buffers, params.grid())?;
    params.finish(context, &partials, stats, None)
}

/// d_entropy[i] = −ent_coef/batch, for the composition of plain operations.
pub(crate) fn record_entropy_gradient(context: &mut Context, op: &Surrogate, d_entropy: &Buffer<f32>) -> Result<()> {
    let params = SurrogateParams::new(op, 1, WORKGROUP_SIZE);
    context.dispatch(SHADER, "entropy_gradient", &[], &params, &[bind(19, d_entropy)], params.grid())
}

pub(crate) fn record_categorical(
    context: &mut Context,
    op: &Surrogate,
    policy: &Categorical,
    logits: &Buffer<f32>,
    mask: Option<&Buffer<u32>>,
    actions: &Buffer<u32>,
    values: &Buffer<f32>,
    samples: &Buffer<f32>,
    d_logits: &Buffer<f32>,
    d_values: &Buffer<f32>,
    stats: &Buffer<f32>,
) -> Result<()> {
    let lanes = lanes(policy.actions);
    let params = SurrogateParams::new(op, policy.actions, WORKGROUP_SIZE / lanes);
    let partials = params.partials(context)?;
    let constants = [("LANES", lanes as f64), ("MASKED", f64::from(u8::from(mask.is_some())))];
    let buffers = [
        bind(1, samples),
        bind(2, values),
        bind(3, d_values),
        bind(4, &partials),
        bind(10, logits),
        bind(11, mask.unwrap_or(actions)),
        bind(12, actions),
        bind(13, d_logits),
    ];
    context.dispatch(SHADER, "categorical", &constants, &params, &buffers, params.grid())?;
    params.finish(context, &partials, stats, None)
}

/// For a log-std that the batch shares. One that depends on the state would need a ninth storage buffer, for d_log_std.
pub(crate) fn record_gaussian(
    context: &mut Context,
    op: &Surrogate,
    policy: &Gaussian,
    mean: &Buffer<f32>,
    log_std: &Buffer<f32>,
    actions: &Buffer<f32>,
    values: &Buffer<f32>,
    samples: &Buffer<f32>,
    d_mean: &Buffer<f32>,
    d_log_std: &Buffer<f32>,
    d_log_std_offset: usize,
    d_values: &Buffer<f32>,
    stats: &Buffer<f32>,
) -> Result<()> {
    require_size("columns of partials", SurrogateParams::partial_width(policy.dim, true))?;
    let params = SurrogateParams {
        partial_width: SurrogateParams::partial_width(policy.dim, true) as u32,
        log_std_offset: policy.log_std_offset as u32,
        d_log_std_offset: d_log_std_offset as u32,
        ..SurrogateParams::new(op, policy.dim, WORKGROUP_SIZE)
    };
    let partials = params.partials(context)?;
    let buffers = [
        bind(1, samples),
        bind(2, values),
        bind(3, d_values),
        bind(4, &partials),
        bind(14, mean),
        bind(15, log_std),
        bind(16, actions),
        bind(17, d_mean),
    ];
    context.dispatch(SHADER, "gaussian", &[], &params, &buffers, params.grid())?;
    params.finish(context, &partials, stats, Some(d_log_std))
}

pub(crate) fn record_stop_on_kl(
    context: &mut Context,
    threshold: f64,
    stats_row: usize,
    stats: &Buffer<f32>,
    control: &Buffer<u32>,
) -> Result<()> {
    check_stop_on_kl(threshold, stats_row, stats.len(), control.len())?;
    let params = StopParams { stats_row: stats_row as u32, threshold: threshold as f32 };
    context.dispatch(SHADER, "stop_on_kl", &[], &params, &[bind(5, stats), bind(20, control)], Grid::Linear(1))
}
