// Fully connected layers and their gradients: three matrix products and what belongs at their edges.
//
//   forward           y     = act(x·Wᵀ + b)                 rows = batch, columns = out, depth = in
//   backward_input    d_x   = (d_pre·W) ⊙ act′(saved)       rows = batch, columns = in,  depth = out
//   backward_params   dW|db = d_preᵀ·(x|1)                  rows = out,   columns = in + 1, depth = batch
//   sum_splits        adds up the parts of dW|db that backward_params made of stretches of the batch
//   activation_forward, activation_backward                 y = act(pre), d_pre = d_y ⊙ act′(saved), elementwise
//
// Shapes        a [rows, depth] and b [depth, columns] by strides; W [out, in]; bias [out]; output [rows, columns]; parts [splits, rows, columns]
// Grid          *_plain: one invocation an output; *_tiled: one invocation 8×8 outputs, without barriers; linear, folded past 65 535
//               workgroups (*_workgroup: see workgroup.wgsl). backward_params: all of that once a stretch of `depth_per_split` samples
// Workgroup     WORKGROUP_SIZE invocations
// Bindings      0 params, 1 a, 2 b (bias behind W in the same buffer), 3 output, 4 saved (pre-activation or output of the layer below)
// Preconditions sizes >= 1, rows * columns * splits < 2^32; depth a stretch < 65 536, where llvmpipe ends a loop by itself
//               Indices proven: rows and columns past the end are clamped before they are read and compared before they are written, depth ends
//               with its stretch; `saved` has rows * columns elements even where the derivative makes nothing of them
// Determinism   fixed order: over depth within a stretch, one fma after the other, then over stretches. So all ways of sharing a product, those of
//               workgroup.wgsl included, make the same bits
// Range         finite inputs; activations are right for all finite x (tanh and exp are kept from overflowing)
// Tolerance     (depth + 2)·2⁻²⁴·Σ|a||b| for the product, 16·2⁻²⁴·(1 + |y|) for an activation, 64·2⁻²⁴ for a derivative; derived in src/kernels/linear.rs

override WORKGROUP_SIZE: u32 = 64u;
// Whether the last column of b is all ones: the product's last column is then the bias gradient.
override ONES_COLUMN: bool = false;

// Outputs a tiled invocation computes in each direction.
const TILE: u32 = 8u;

fn linear_index(workgroup: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (workgroup.y * groups.x + workgroup.x) * WORKGROUP_SIZE + local;
}

// ---------------------------------------------------------------------------------------------------------------- products

// The last column of b when that is all ones has no place in the buffer: its neighbour is read instead and not used.
fn stored_columns() -> u32 {
    return select(params.columns, max(params.columns, 2u) - 1u, ONES_COLUMN);
}

fn is_ones(column: u32) -> bool {
    return ONES_COLUMN && column + 1u >= params.columns;
}

fn b_column(column: u32) -> u32 {
    return params.b_offset + min(column, stored_columns() - 1u) * params.b_column_stride;
}

fn a_row(row: u32) -> u32 {
    return params.a_offset + min(row, params.rows - 1u) * params.a_row_stride;
}

fn dot_product(row: u32, column: u32, split: u32) -> f32 {
    let a_base = a_row(row);
    let b_base = b_column(column);
    let ones = is_ones(column);
    let range = stretch(split);
    var sum = 0.0;
    for (var k = range.begin; k < range.end; k += 1u) {
        let b_value = select(b[b_base + k * params.b_depth_stride], 1.0, ones);
        sum = fma(a[a_base + k * params.a_depth_stride], b_value, sum);
    }
    return sum;
}

// Eight rows of eight outputs, each row as two halves.
var<private> low: array<vec4<f32>, 8>;
var<private> high: array<vec4<f32>, 8>;

fn multiply_tile(row: u32, column: u32, split: u32) {
    let r0 = a_row(row);
    let r1 = a_row(row + 1u);
    let r2 = a_row(row + 2u);
    let r3 = a_row(row + 3u);
    let r4 = a_row(row + 4u);
    let r5 = a_row(row + 5u);
    let r6 = a_row(row + 6u);
    let r7 = a_row(row + 7u);
    let c0 = b_column(column);
    let c1 = b_column(column + 1u);
    let c2 = b_column(column + 2u);
    let c3 = b_column(column + 3u);
    let c4 = b_column(column + 4u);
    let c5 = b_column(column + 5u);
    let c6 = b_column(column + 6u);
    let c7 = b_column(column + 7u);
    let ones_low = vec4<bool>(is_ones(column), is_ones(column + 1u), is_ones(column + 2u), is_ones(column + 3u));
    let ones_high = vec4<bool>(is_ones(column + 4u), is_ones(column + 5u), is_ones(column + 6u), is_ones(column + 7u));
    var l0 = vec4<f32>(); var l1 = vec4<f32>(); var l2 = vec4<f32>(); var l3 = vec4<f32>();
    var l4 = vec4<f32>(); var l5 = vec4<f32>(); var l6 = vec4<f32>(); var l7 = vec4<f32>();
    var h0 = vec4<f32>(); var h1 = vec4<f32>(); var h2 = vec4<f32>(); var h3 = vec4<f32>();
    var h4 = vec4<f32>(); var h5 = vec4<f32>(); var h6 = vec4<f32>(); var h7 = vec4<f32>();
    let range = stretch(split);
    for (var k = range.begin; k < range.end; k += 1u) {
        let i = k * params.a_depth_stride;
        let j = k * params.b_depth_stride;
        let b_low = select(vec4<f32>(b[c0 + j], b[c1 + j], b[c2 + j], b[c3 + j]), vec4<f32>(1.0), ones_low);
        let b_high = select(vec4<f32>(b[c4 + j], b[c5 + j], b[c6 + j], b[c7 + j]), vec4<f32>(1.0), ones_high);
        let a0 = a[r0 + i];
        let a1 = a[r1 + i];
        let a2 = a[r2 + i];
        let a3 = a[r3 + i];
        let a4 = a[r4 + i];
        let a5 = a[r5 + i];
        let a6 = a[r6 + i];
        let a7 = a[r7 + i];
        l0 = fma(vec4<f32>(a0), b_low, l0); h0 = fma(vec4<f32>(a0), b_high, h0);
        l1 = fma(vec4<f32>(a1), b_low, l1); h1 = fma(vec4<f32>(a1), b_high, h1);
        l2 = fma(vec4<f32>(a2), b_low, l2); h2 = fma(vec4<f32>(a2), b_high, h2);
        l3 = fma(vec4<f32>(a3), b_low, l3); h3 = fma(vec4<f32>(a3), b_high, h3);
        l4 = fma(vec4<f32>(a4), b_low, l4); h4 = fma(vec4<f32>(a4), b_high, h4);
        l5 = fma(vec4<f32>(a5), b_low, l5); h5 = fma(vec4<f32>(a5), b_high, h5);
        l6 = fma(vec4<f32>(a6), b_low, l6); h6 = fma(vec4<f32>(a6), b_high, h6);
        l7 = fma(vec4<f32>(a7), b_low, l7); h7 = fma(vec4<f32>(a7), b_high, h7);
    }
    low = array(l0, l1, l2, l3, l4, l5, l6, l7);
    high = array(h0, h1, h2, h3, h4, h5, h6, h7);
}

fn product_at(i: u32, j: u32) -> f32 {
    return select(high[i][j & 3u], low[i][j & 3u], j < 4u);
}

fn tile_columns() -> u32 {
    return (params.columns + TILE - 1u) / TILE;
}

fn tiles() -> u32 {
    return (params.rows + TILE - 1u) / TILE * tile_columns();
}

// ---------------------------------------------------------------------------------------------------------------- forward

@compute @workgroup_size(WORKGROUP_SIZE)
fn forward_plain(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = linear_index(workgroup, groups, local);
    if element >= params.rows * params.columns {
        return;
    }
    let row = element / params.columns;
    let column = element - row * params.columns;
    store_forward(row, column, dot_product(row, column, 0u), bias_of(column));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn forward_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = linear_index(workgroup, groups, local);
    if tile >= tiles() {
        return;
    }
    let first_row = tile / tile_columns() * TILE;
    let first_column = tile % tile_columns() * TILE;
    multiply_tile(first_row, first_column, 0u);
    for (var i = 0u; i < min(TILE, params.rows - first_row); i += 1u) {
        for (var j = 0u; j < min(TILE, params.columns - first_column); j += 1u) {
            store_forward(first_row + i, first_column + j, product_at(i, j), bias_of(first_column + j));
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- backward

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward_input_plain(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = linear_index(workgroup, groups, local);
    if element >= params.rows * params.columns {
        return;
    }
    let row = element / params.columns;
    let column = element - row * params.columns;
    store_backward_input(row, column, dot_product(row, column, 0u), saved_at(row, column));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward_input_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = linear_index(workgroup, groups, local);
    if tile >= tiles() {
        return;
    }
    let first_row = tile / tile_columns() * TILE;
    let first_column = tile % tile_columns() * TILE;
    multiply_tile(first_row, first_column, 0u);
    for (var i = 0u; i < min(TILE, params.rows - first_row); i += 1u) {
        for (var j = 0u; j < min(TILE, params.columns - first_column); j += 1u) {
            let at = vec2<u32>(first_row + i, first_column + j);
            store_backward_input(at.x, at.y, product_at(i, j), saved_at(at.x, at.y));
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward_params_plain(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_index(workgroup, groups, local);
    let elements = params.rows * params.columns;
    if index >= elements * params.splits {
        return;
    }
    let split = index / elements;
    let row = (index - split * elements) / params.columns;
    let column = index % params.columns;
    store_backward_params(split, row, column, dot_product(row, column, split));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward_params_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_index(workgroup, groups, local);
    if index >= tiles() * params.splits {
        return;
    }
    let split = index / tiles();
    let tile = index % tiles();
    let first_row = tile / tile_columns() * TILE;
    let first_column = tile % tile_columns() * TILE;
    multiply_tile(first_row, first_column, split);
    for (var i = 0u; i < min(TILE, params.rows - first_row); i += 1u) {
        for (var j = 0u; j < min(TILE, params.columns - first_column); j += 1u) {
            store_backward_params(split, first_row + i, first_column + j, product_at(i, j));
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sum_splits(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = linear_index(workgroup, groups, local);
    let elements = params.rows * params.columns;
    if element >= elements {
        return;
    }
    var sum = 0.0;
    var split = 0u;
    // Four loads under way at a time; the sum keeps its order.
    for (; split + 4u <= params.splits; split += 4u) {
        let i = split * elements + element;
        sum = (((sum + a[i]) + a[i + elements]) + a[i + 2u * elements]) + a[i + 3u * elements];
    }
    for (; split < params.splits; split += 1u) {
        sum += a[split * elements + element];
    }
    let row = element / params.columns;
    output[parameter_index(row, element - row * params.columns)] = sum;
}

// ---------------------------------------------------------------------------------------------------------------- elementwise

@compute @workgroup_size(WORKGROUP_SIZE)
fn activation_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = linear_index(workgroup, groups, local);
    if element >= params.rows * params.columns {
        return;
    }
    output[params.output_offset + element] = activate(a[element]);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn activation_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = linear_index(workgroup, groups, local);
    if element >= params.rows * params.columns {
        return;
    }
    output[element] = a[element] * derivative(saved[element]);
}
