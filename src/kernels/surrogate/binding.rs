//! Recording `shaders/surrogate/`.

use super::{
    CategoricalOperands, GaussianOperands, SUMS, Surrogate, SurrogateOperands, ValueLoss, WORKGROUP_SIZE, check_stop_on_kl, lanes,
};
use crate::error::Result;
use crate::gpu::{Buffer, Context, Field, Grid, Indices, Shader, ShaderParams, bind, shader_params};
use crate::kernels::ShaderInfo;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::layout::Variant;
use crate::shape::{elements, require_size};

/// The loss of a sample, and what both forms share.
macro_rules! shader {
    ($name:literal, $form:literal) => {
        Shader {
            name: $name,
            source: concat!(
                include_str!("../../../shaders/elementary.wgsl"),
                include_str!("../../../shaders/surrogate/loss.wgsl"),
                include_str!("../../../shaders/surrogate/shared.wgsl"),
                include_str!(concat!("../../../shaders/surrogate/", $form, ".wgsl"))
            ),
            indices: Indices::Proven,
        }
    };
}

pub(crate) const SHADER: Shader = shader!("surrogate", "surrogate");
const BY_TILE: Shader = shader!("surrogate/by_tile", "tiles");
/// Samples of a tile.
const TILE: usize = 64;
/// Rows of partials by tile: enough workgroups for the largest GPUs, and few enough for one to add them up.
const MOST_TILES: usize = 2048;
/// Elements of a row by tile: what WebGPU promises of workgroup memory holds a tile of these.
const MOST_IN_ROW: usize = 49;

const PARAMS: (&str, usize, &[Field]) = (SurrogateParams::NAME, size_of::<SurrogateParams>(), SurrogateParams::FIELDS);

pub(crate) const SHADERS: &[ShaderInfo] = &[
    ShaderInfo {
        shader: SHADER,
        params: &[PARAMS, (StopParams::NAME, size_of::<StopParams>(), StopParams::FIELDS)],
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
    },
    ShaderInfo {
        shader: BY_TILE,
        params: &[PARAMS],
        // The narrowest and the widest rows.
        entries: &[
            (
                "categorical_tiles",
                &[
                    &[("MASKED", 0.0), ("WIDTH", 1.0)],
                    &[("MASKED", 1.0), ("WIDTH", 1.0)],
                    &[("MASKED", 0.0), ("WIDTH", MOST_IN_ROW as f64)],
                    &[("MASKED", 1.0), ("WIDTH", MOST_IN_ROW as f64)],
                ],
            ),
            ("gaussian_tiles", &[&[("WIDTH", 1.0)], &[("WIDTH", MOST_IN_ROW as f64)]]),
        ],
    },
];

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

    /// The same, from tiles of which a workgroup takes several.
    fn by_tile(self) -> Self {
        let tiles = (self.batch as usize).div_ceil(TILE);
        Self { partial_rows: tiles.min(MOST_TILES) as u32, ..self }
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
            return context.dispatch(
                SHADER,
                "finish",
                &[],
                self,
                &[bind("partials", partials), bind("stats", stats)],
                Grid::Linear(1),
            );
        };
        let buffers = [bind("partials", partials), bind("stats", stats), bind("d_log_std", d_log_std)];
        context.dispatch(SHADER, "finish_gaussian", &[], self, &buffers, Grid::Linear(self.partial_width as usize / SUMS))
    }
}

pub(crate) fn record_elementwise(
    context: &mut Context,
    op: &Surrogate,
    operands: &SurrogateOperands<'_, Buffer<f32>>,
) -> Result<()> {
    op.check_elementwise(operands)?;
    let SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats } = operands;
    let params = SurrogateParams::new(op, 1, WORKGROUP_SIZE);
    let partials = params.partials(context)?;
    let buffers = [
        bind("samples", samples),
        bind("values", values),
        bind("d_values", d_values),
        bind("partials", &partials),
        bind("logp", logp),
        bind("entropy", entropy),
        bind("terms", terms),
        bind("d_logp", d_logp),
    ];
    context.dispatch(SHADER, "elementwise", &[], &params, &buffers, params.grid())?;
    params.finish(context, &partials, stats, None)
}

/// d_entropy[i] = −ent_coef/batch, for the composition of plain operations.
pub(crate) fn record_entropy_gradient(context: &mut Context, op: &Surrogate, d_entropy: &Buffer<f32>) -> Result<()> {
    let params = SurrogateParams::new(op, 1, WORKGROUP_SIZE);
    context.dispatch(SHADER, "entropy_gradient", &[], &params, &[bind("d_entropy", d_entropy)], params.grid())
}

/// Whether a loss of rows of `width` elements goes by tile.
fn goes_by_tile(context: &Context, variant: Variant, width: usize) -> bool {
    // Software adapters coalesce nothing, and pay for each barrier.
    let wanted = variant == Variant::Fast || !context.is_software();
    wanted && width <= MOST_IN_ROW
}

pub(crate) fn record_categorical(
    context: &mut Context,
    variant: Variant,
    op: &Surrogate,
    policy: &Categorical,
    operands: &CategoricalOperands<'_, Buffer<f32>, Buffer<u32>>,
) -> Result<()> {
    let CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats } = operands;
    let lanes = lanes(policy.actions);
    let masked = ("MASKED", f64::from(u8::from(mask.is_some())));
    let by_rows = SurrogateParams::new(op, policy.actions, WORKGROUP_SIZE / lanes);
    let (shader, entry, constants, params) = if goes_by_tile(context, variant, policy.actions) {
        (BY_TILE, "categorical_tiles", [masked, ("WIDTH", policy.actions as f64)], by_rows.by_tile())
    } else {
        (SHADER, "categorical", [masked, ("LANES", lanes as f64)], by_rows)
    };
    let partials = params.partials(context)?;
    let buffers = [
        bind("samples", samples),
        bind("values", values),
        bind("d_values", d_values),
        bind("partials", &partials),
        bind("logits", logits),
        bind("mask", mask.unwrap_or(actions)),
        bind("actions", actions),
        bind("d_logits", d_logits),
    ];
    context.dispatch(shader, entry, &constants, &params, &buffers, params.grid())?;
    params.finish(context, &partials, stats, None)
}

/// For a log-std that the batch shares. One that depends on the state would need a ninth storage buffer, for d_log_std.
pub(crate) fn record_gaussian(
    context: &mut Context,
    variant: Variant,
    op: &Surrogate,
    policy: &Gaussian,
    operands: &GaussianOperands<'_, Buffer<f32>>,
) -> Result<()> {
    let GaussianOperands { mean, log_std, actions, values, samples, d_mean, d_log_std, d_log_std_offset, d_values, stats } =
        operands;
    require_size("columns of partials", SurrogateParams::partial_width(policy.dim, true))?;
    let by_rows = SurrogateParams {
        partial_width: SurrogateParams::partial_width(policy.dim, true) as u32,
        log_std_offset: policy.log_std_offset as u32,
        d_log_std_offset: *d_log_std_offset as u32,
        ..SurrogateParams::new(op, policy.dim, WORKGROUP_SIZE)
    };
    let (shader, entry, constants, params) = if goes_by_tile(context, variant, policy.dim) {
        (BY_TILE, "gaussian_tiles", &[("WIDTH", policy.dim as f64)][..], by_rows.by_tile())
    } else {
        (SHADER, "gaussian", &[][..], by_rows)
    };
    let partials = params.partials(context)?;
    let buffers = [
        bind("samples", samples),
        bind("values", values),
        bind("d_values", d_values),
        bind("partials", &partials),
        bind("mean", mean),
        bind("log_std", log_std),
        bind("gaussian_actions", actions),
        bind("d_mean", d_mean),
    ];
    context.dispatch(shader, entry, constants, &params, &buffers, params.grid())?;
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
    context.dispatch(SHADER, "stop_on_kl", &[], &params, &[bind("stats", stats), bind("control", control)], Grid::Linear(1))
}
