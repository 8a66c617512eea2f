//! How these products run on wgpu.

use super::tuning::tuned;
use super::{Activation, ForwardOperands, Linear, TensorCores, check_elementwise, tensor_core};
use crate::error::Result;
use crate::gpu::{Bound, Buffer, Context, Grid, Indices, Shader, ShaderParams, bind, shader_params};
use crate::kernels::{Constants, ShaderInfo};
use crate::layout::Variant;

pub(super) const SHADER: Shader = Shader {
    name: "linear",
    source: concat!(
        include_str!("../../../shaders/elementary.wgsl"),
        include_str!("../../../shaders/linear/activation.wgsl"),
        include_str!("../../../shaders/linear/edges.wgsl"),
        include_str!("../../../shaders/linear/linear.wgsl"),
        include_str!("../../../shaders/linear/workgroup.wgsl"),
    ),
    indices: Indices::Proven,
};

/// Every value of the shader's ACTIVATION, with each of the other constants.
macro_rules! activations {
    ($([$($constant:expr),*]),+) => {
        &[$(
            &[("ACTIVATION", 0.0) $(, $constant)*],
            &[("ACTIVATION", 1.0) $(, $constant)*],
            &[("ACTIVATION", 2.0) $(, $constant)*],
            &[("ACTIVATION", 3.0) $(, $constant)*],
            &[("ACTIVATION", 4.0) $(, $constant)*],
            &[("ACTIVATION", 5.0) $(, $constant)*],
            &[("ACTIVATION", 6.0) $(, $constant)*],
        )+]
    };
}

pub(super) use activations;

const SIDE_64: (&str, f64) = ("SIDE", 64.0);
const SIDE_128: (&str, f64) = ("SIDE", 128.0);
const ONES: (&str, f64) = ("ONES_COLUMN", 1.0);
const ACTIVATIONS: &[Constants] = activations!([]);
const ACTIVATIONS_OF_TILES: &[Constants] = activations!([SIDE_64], [SIDE_128]);

const LINEAR: ShaderInfo = ShaderInfo {
    shader: SHADER,
    params: &[(LinearParams::NAME, size_of::<LinearParams>(), LinearParams::FIELDS)],
    entries: &[
        ("forward_plain", ACTIVATIONS),
        ("forward_tiled", ACTIVATIONS),
        ("backward_input_plain", ACTIVATIONS),
        ("backward_input_tiled", ACTIVATIONS),
        ("backward_params_plain", &[&[ONES]]),
        ("backward_params_tiled", &[&[ONES]]),
        ("forward_workgroup", ACTIVATIONS_OF_TILES),
        ("backward_input_workgroup", ACTIVATIONS_OF_TILES),
        ("backward_params_workgroup", &[&[ONES, SIDE_64], &[ONES, SIDE_128]]),
        ("sum_splits", &[&[]]),
        ("activation_forward", ACTIVATIONS),
        ("activation_backward", ACTIVATIONS),
    ],
};

pub(crate) const SHADERS: &[ShaderInfo] = &[LINEAR, tensor_core::SHADERS[0], tensor_core::SHADERS[1]];

/// The shader's default.
const WORKGROUP_SIZE: usize = 64;
/// Outputs of a tiled invocation in each direction.
const TILE: usize = 8;

shader_params! {
    struct LinearParams {
        rows: u32,
        columns: u32,
        depth: u32,
        depth_per_split: u32,
        splits: u32,
        a_offset: u32,
        a_row_stride: u32,
        a_depth_stride: u32,
        b_offset: u32,
        b_column_stride: u32,
        b_depth_stride: u32,
        bias_offset: u32,
        output_offset: u32,
    }
}

impl LinearParams {
    fn elementwise(len: usize, output_offset: usize) -> Self {
        Self { rows: 1, columns: len as u32, output_offset: output_offset as u32, ..bytemuck::Zeroable::zeroed() }
    }
}

fn activation_constant(activation: Activation) -> Constants {
    ACTIVATIONS[activation as usize]
}

/// How a matrix product is shared among invocations. Every way sums each output over its depth in the same order, by the same operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// One output an invocation.
    Plain,
    /// 8×8 outputs an invocation, in registers.
    Registers,
    /// 64×64 outputs a workgroup, through workgroup memory.
    Workgroup64,
    /// 128×128 outputs a workgroup, through workgroup memory.
    Workgroup128,
}

impl Product {
    /// All ways, the one that the others are checked against first.
    pub const ALL: [Product; 4] = [Product::Plain, Product::Registers, Product::Workgroup64, Product::Workgroup128];

    /// The ways that may be the fastest on this adapter for an output `[rows, columns]`.
    pub(super) fn candidates(context: &Context, rows: usize, columns: usize) -> impl Iterator<Item = Self> {
        let limits = context.limits();
        let fits = limits.max_compute_workgroup_storage_size >= 16 << 10 && limits.max_compute_invocations_per_workgroup >= 256;
        // Software adapters run the invocations of a workgroup one after the other, and pay for each barrier.
        let tiles = fits && !context.is_software();
        Self::ALL.into_iter().filter(move |way| match way {
            Product::Plain => true,
            // Registers do not pay where most of a tile would lie outside.
            Product::Registers => rows.min(columns) >= TILE / 2 && rows * columns >= TILE * TILE,
            Product::Workgroup64 => tiles && rows.max(columns) >= 64,
            Product::Workgroup128 => tiles && rows.min(columns) > 64,
        })
    }

    /// The way for an output `[rows, columns]`, made in `splits` parts.
    fn choose(context: &Context, ways: Ways, rows: usize, columns: usize, splits: usize) -> Self {
        match ways {
            Ways { product: Some(forced), .. } => forced,
            Ways { variant: Variant::Plain, .. } => Product::Plain,
            Ways { variant: Variant::Fast, .. } => Product::Registers,
            Ways { variant: Variant::Auto, .. } => {
                let software = context.is_software();
                let pays = |way: &Self| way.pays(software, rows, columns, splits);
                Self::candidates(context, rows, columns).filter(pays).last().unwrap_or(Product::Plain)
            }
        }
    }

    /// Whether a candidate is to be preferred to those before it, as far as that can be said without measuring: on a GPU, where there are tiles
    /// enough for a good part of its multiprocessors.
    fn pays(self, software: bool, rows: usize, columns: usize, splits: usize) -> bool {
        match self {
            Product::Plain => true,
            Product::Registers => software,
            Product::Workgroup64 => tiles(rows, columns, 64) * splits >= 16,
            Product::Workgroup128 => tiles(rows, columns, 128) * splits >= 256,
        }
    }

    /// What it is called where choices are kept.
    pub(super) fn name(self) -> &'static str {
        match self {
            Product::Plain => "plain",
            Product::Registers => "registers",
            Product::Workgroup64 => "workgroup-64",
            Product::Workgroup128 => "workgroup-128",
        }
    }

    fn constants(self) -> Constants {
        match self {
            Product::Plain | Product::Registers => &[],
            Product::Workgroup64 => &[SIDE_64],
            Product::Workgroup128 => &[SIDE_128],
        }
    }

    /// Workgroups for an output `[rows, columns]`, made in `splits` parts. The ways through workgroup memory need no tile for the column of ones.
    fn grid(self, operation: Operation, rows: usize, columns: usize, splits: usize) -> Grid {
        let stored = operation.stored_columns(columns);
        match self {
            Product::Plain => Grid::covering(rows * columns * splits, WORKGROUP_SIZE),
            Product::Registers => Grid::covering(tiles(rows, columns, TILE) * splits, WORKGROUP_SIZE),
            Product::Workgroup64 => Grid::Linear(tiles(rows, stored, 64) * splits),
            Product::Workgroup128 => Grid::Linear(tiles(rows, stored, 128) * splits),
        }
    }
}

fn tiles(rows: usize, columns: usize, side: usize) -> usize {
    rows.div_ceil(side) * columns.div_ceil(side)
}

/// What a caller asks for: a variant of every kernel, one way for all products, tensor cores for those that suit them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ways {
    pub variant: Variant,
    pub product: Option<Product>,
    pub tensor_cores: Option<TensorCores>,
}

/// The three products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Forward,
    BackwardInput,
    BackwardParams,
}

impl Operation {
    /// Columns of the output but the one that a column of ones makes.
    pub(super) fn stored_columns(self, columns: usize) -> usize {
        columns - usize::from(self == Operation::BackwardParams)
    }

    fn entry(self, way: Product) -> &'static str {
        let [plain, registers, workgroup] = match self {
            Operation::Forward => ["forward_plain", "forward_tiled", "forward_workgroup"],
            Operation::BackwardInput => ["backward_input_plain", "backward_input_tiled", "backward_input_workgroup"],
            Operation::BackwardParams => ["backward_params_plain", "backward_params_tiled", "backward_params_workgroup"],
        };
        match way {
            Product::Plain => plain,
            Product::Registers => registers,
            Product::Workgroup64 | Product::Workgroup128 => workgroup,
        }
    }
}

/// Records the product in the way that a caller asks for, or the fastest on this adapter.
fn record(
    context: &mut Context,
    ways: Ways,
    operation: Operation,
    constants: Constants,
    params: &LinearParams,
    buffers: &[Bound],
) -> Result<()> {
    if let Some(cores) = ways.tensor_cores {
        return cores.dispatch(context, operation, constants, params, buffers);
    }
    let [rows, columns, splits] = [params.rows, params.columns, params.splits].map(|size| size as usize);
    let way = match Product::choose(context, ways, rows, columns, splits) {
        usual if ways.product.is_none() && ways.variant == Variant::Auto => tuned(context, operation, constants, params, usual),
        asked_for => asked_for,
    };
    record_product(context, way, operation, constants, params, buffers)
}

pub(super) fn record_product(
    context: &mut Context,
    way: Product,
    operation: Operation,
    constants: Constants,
    params: &LinearParams,
    buffers: &[Bound],
) -> Result<()> {
    let [rows, columns, splits] = [params.rows, params.columns, params.splits].map(|size| size as usize);
    let constants = [constants, way.constants()].concat();
    context.dispatch(SHADER, operation.entry(way), &constants, params, buffers, way.grid(operation, rows, columns, splits))
}

pub(crate) fn record_forward(
    context: &mut Context,
    ways: Ways,
    layer: &Linear,
    activation: Activation,
    operands: &ForwardOperands<'_, Buffer<f32>>,
) -> Result<()> {
    layer.check_forward(operands)?;
    let &ForwardOperands { x, x_offset, params: weights, ref pre, ref y, y_offset } = operands;
    let (pre, y): (Option<&Buffer<f32>>, &Buffer<f32>) = (pre.as_deref(), y);
    // With the pre-activation asked for, the product goes there, and the activation is a pass of its own.
    let (product, product_offset, fused) = match pre {
        Some(pre) => (pre, 0, Activation::Identity),
        None => (y, y_offset, activation),
    };
    let (rows, columns) = (layer.batch, layer.out_features);
    let params = LinearParams {
        rows: rows as u32,
        columns: columns as u32,
        depth: layer.in_features as u32,
        depth_per_split: layer.in_features as u32,
        splits: 1,
        a_offset: x_offset as u32,
        a_row_stride: layer.in_features as u32,
        a_depth_stride: 1,
        b_offset: layer.weight_offset as u32,
        b_column_stride: layer.in_features as u32,
        b_depth_stride: 1,
        bias_offset: layer.bias_offset as u32,
        output_offset: product_offset as u32,
    };
    let buffers = [bind("a", x), bind("b", weights), bind("output", product)];
    record(context, ways, Operation::Forward, activation_constant(fused), &params, &buffers)?;
    let Some(pre) = pre else { return Ok(()) };
    let params = LinearParams::elementwise(rows * columns, y_offset);
    let grid = Grid::covering(rows * columns, WORKGROUP_SIZE);
    context.dispatch(
        SHADER,
        "activation_forward",
        activation_constant(activation),
        &params,
        &[bind("a", pre), bind("output", y)],
        grid,
    )
}

pub(crate) fn record_activation_backward(
    context: &mut Context,
    activation: Activation,
    len: usize,
    saved: &Buffer<f32>,
    d_y: &Buffer<f32>,
    d_pre: &Buffer<f32>,
) -> Result<()> {
    check_elementwise(len, [("saved", saved.len()), ("d_y", d_y.len()), ("d_pre", d_pre.len())])?;
    let buffers = [bind("a", d_y), bind("output", d_pre), bind("saved", saved)];
    let params = LinearParams::elementwise(len, 0);
    let grid = Grid::covering(len, WORKGROUP_SIZE);
    context.dispatch(SHADER, "activation_backward", activation_constant(activation), &params, &buffers, grid)
}

pub(crate) fn record_backward_input(
    context: &mut Context,
    ways: Ways,
    layer: &Linear,
    d_pre: &Buffer<f32>,
    weights: &Buffer<f32>,
    through: Option<(Activation, &Buffer<f32>)>,
    d_x: &Buffer<f32>,
) -> Result<()> {
    layer.check_backward_input(d_pre.len(), weights.len(), through.map(|(_, saved)| saved.len()), d_x.len())?;
    let (rows, columns) = (layer.batch, layer.in_features);
    // The identity's derivative makes nothing of `saved`, but the shader reads it: any numbers will do, as long as there are enough.
    let (activation, saved) = match through {
        Some((activation, saved)) => (activation, saved.clone()),
        None if d_pre.len() >= rows * columns => (Activation::Identity, d_pre.clone()),
        None => (Activation::Identity, context.scratch("linear: nothing saved", rows * columns)?),
    };
    let params = LinearParams {
        rows: rows as u32,
        columns: columns as u32,
        depth: layer.out_features as u32,
        depth_per_split: layer.out_features as u32,
        splits: 1,
        a_offset: 0,
        a_row_stride: layer.out_features as u32,
        a_depth_stride: 1,
        b_offset: layer.weight_offset as u32,
        b_column_stride: 1,
        b_depth_stride: layer.in_features as u32,
        bias_offset: 0,
        output_offset: 0,
    };
    let buffers = [bind("a", d_pre), bind("b", weights), bind("output", d_x), bind("saved", &saved)];
    record(context, ways, Operation::BackwardInput, activation_constant(activation), &params, &buffers)
}

/// Elements of dW|db, once for each stretch of the batch that [`record_parts`] sums by itself; none where there is but one.
pub(crate) fn parts_len(layer: &Linear) -> usize {
    let splits = layer.splits();
    if splits == 1 { 0 } else { (layer.weights() + layer.out_features) * splits }
}

pub(crate) fn record_backward_params(
    context: &mut Context,
    ways: Ways,
    layer: &Linear,
    d_pre: &Buffer<f32>,
    x: &Buffer<f32>,
    grads: &Buffer<f32>,
) -> Result<()> {
    layer.check_backward_params(d_pre.len(), x.len(), grads.len())?;
    let len = parts_len(layer);
    if len == 0 {
        return record_parts(context, ways, layer, d_pre, x, grads).map(drop);
    }
    let parts = context.scratch("linear parts", len)?;
    let params = record_parts(context, ways, layer, d_pre, x, &parts)?;
    let sum_grid = Grid::covering(layer.weights() + layer.out_features, WORKGROUP_SIZE);
    context.dispatch(SHADER, "sum_splits", &[], &params, &[bind("a", &parts), bind("output", grads)], sum_grid)
}

/// Records the parts `[splits, out, in + 1]` of dW|db, or where there is but one stretch, dW and db at their places in `output`.
pub(crate) fn record_parts(
    context: &mut Context,
    ways: Ways,
    layer: &Linear,
    d_pre: &Buffer<f32>,
    x: &Buffer<f32>,
    output: &Buffer<f32>,
) -> Result<LinearParams> {
    let params = LinearParams {
        rows: layer.out_features as u32,
        columns: (layer.in_features + 1) as u32,
        depth: layer.batch as u32,
        depth_per_split: layer.samples_per_split() as u32,
        splits: layer.splits() as u32,
        a_offset: 0,
        a_row_stride: 1,
        a_depth_stride: layer.out_features as u32,
        b_offset: 0,
        b_column_stride: 1,
        b_depth_stride: layer.in_features as u32,
        bias_offset: layer.bias_offset as u32,
        output_offset: layer.weight_offset as u32,
    };
    let buffers = [bind("a", d_pre), bind("b", x), bind("output", output)];
    record(context, ways, Operation::BackwardParams, &[ONES], &params, &buffers)?;
    Ok(params)
}
