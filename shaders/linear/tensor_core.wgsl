// The three products of linear.wgsl on tensor cores: operands rounded to f16 on their way into workgroup memory, sums in f32.
//
//   forward           y     = act(x·Wᵀ + b)                 rows = batch, columns = out, depth = in
//   backward_input    d_x   = (d_pre·W) ⊙ act′(saved)       rows = batch, columns = in,  depth = out
//   backward_params   dW|db = d_preᵀ·(x|1)                  rows = out,   columns = in + 1, depth = batch; db is summed in f32, from d_pre as stored
//
// d_pre is of the order of 1/batch, where f16 has few bits left or none: it is multiplied by the smallest power of two that is not below the batch, and
// the product divided by that again, both exact.
//
// Shapes        as in linear.wgsl
// Grid          one workgroup 64×64 outputs and a stretch of `depth_per_split`; linear, folded past 65 535 workgroups
// Workgroup     WORKGROUP_SIZE invocations, a multiple of 64, which are SUBGROUPS subgroups of the adapter's size; 14 KiB of workgroup memory. A subgroup
//               has 2×2 matrices of sums. Barriers, loads and stores of matrices stand in control flow that is uniform within a workgroup
// Bindings      those of edges.wgsl
// Preconditions sizes >= 1, batch <= 2^31, rows * columns * splits < 2^32
//               Indices proven: rows, columns and depth past the end are clamped before they are read, where zeros take their place, and compared before
//               outputs are written; a place in workgroup memory is a remainder by the size of what it lies in, or the first element of a matrix: row
//               <= 64 - SIZE and depth <= 32 - SIZE of a tile, whose SIZE rows and SIZE elements each end within it, the subgroup's number being clamped
// Determinism   fixed order: over depth within a stretch as the adapter's matrices sum, then over stretches
// Range         |x|, |W| and |d_pre|·2^⌈log2 batch⌉ below 65 520, the end of f16: beyond, an operand is infinite and its outputs are not finite. In a
//               gradient the learner finds that before a step is taken, and reports it with nothing lost
// Tolerance     with operands |a|(1 + 2⁻¹¹) + 2⁻²⁵ (2⁻²⁵ over the scale for d_pre) in place of |a|: what that adds to Σ|a||b|, and (depth + 2)·2⁻²³ of it
//               for the sums, whose roundings adapters may truncate; edges as in linear.wgsl; derived in src/kernels/linear/tensor_core.rs

override WORKGROUP_SIZE: u32 = 128u;

// Outputs of a workgroup in each direction, and how much of the depth is in workgroup memory at once.
const TILE: u32 = 64u;
const DEPTH: u32 = 32u;
// Elements from one row of a tile to the next: 80 bytes, so that eight rows of a matrix lie in different banks, and each is aligned to 16 bytes.
const STRIDE: u32 = 40u;
// Matrices of sums along an edge of a subgroup's part, subgroups along an edge of the workgroup's tile, and in all.
const PART: u32 = 2u * SIZE;
const EDGE: u32 = TILE / PART;
const SUBGROUPS: u32 = EDGE * EDGE;
const ELEMENTS: u32 = SIZE * SIZE;

// [row or column of the tile][depth]
var<workgroup> a_tile: array<f16, TILE * STRIDE>;
var<workgroup> b_tile: array<f16, TILE * STRIDE>;
// A matrix of sums for each subgroup; at the end of backward_params also the parts of db.
var<workgroup> staging: array<f32, SUBGROUPS * ELEMENTS>;

// The tile of a workgroup.
struct Place {
    row: u32,
    column: u32,
    split: u32,
    outside: bool,
}

fn place(workgroup: vec3<u32>, groups: vec3<u32>, columns: u32) -> Place {
    let index = workgroup.y * groups.x + workgroup.x;
    let tile_columns = (columns + TILE - 1u) / TILE;
    let tiles = (params.rows + TILE - 1u) / TILE * tile_columns;
    let split = index / tiles;
    let tile = index % tiles;
    return Place(tile / tile_columns * TILE, tile % tile_columns * TILE, split, split >= params.splits);
}

// 2^exponent for |exponent| < 127, exactly, which a quotient is not.
fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(127 + exponent) << 23u);
}

// The exponent of the smallest power of two that is not below n.
fn exponent_not_below(n: u32) -> i32 {
    return i32(32u - countLeadingZeros(n - 1u));
}

// Neighbouring invocations read neighbouring elements: along rows or columns where those are contiguous, else along the depth. In the former case,
// that of backward_params, an invocation reads only one row of a; the sum of what it reads is its part of that row's db.
fn load_a(first: u32, begin: u32, end: u32, scale: f32, local: u32) -> f32 {
    let along_depth = params.a_row_stride > 1u;
    var sum = 0.0;
    for (var i = 0u; i < TILE * DEPTH / WORKGROUP_SIZE; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let row = select(element % TILE, element / DEPTH, along_depth);
        let k = select(element / TILE, element % DEPTH, along_depth);
        let at = params.a_offset + min(first + row, params.rows - 1u) * params.a_row_stride + min(begin + k, end - 1u) * params.a_depth_stride;
        let value = select(0.0, a[at], first + row < params.rows && begin + k < end);
        sum += value;
        a_tile[row * STRIDE + k] = f16(value * scale);
    }
    return sum;
}

fn load_b(first: u32, columns: u32, begin: u32, end: u32, local: u32) {
    let along_depth = params.b_column_stride > 1u;
    for (var i = 0u; i < TILE * DEPTH / WORKGROUP_SIZE; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let column = select(element % TILE, element / DEPTH, along_depth);
        let k = select(element / TILE, element % DEPTH, along_depth);
        let at = params.b_offset + min(first + column, columns - 1u) * params.b_column_stride + min(begin + k, end - 1u) * params.b_depth_stride;
        b_tile[column * STRIDE + k] = f16(select(0.0, b[at], first + column < columns && begin + k < end));
    }
}

// Adds to a subgroup's sums, 2×2 matrices; returns the invocation's part of db.
fn multiply_tile(
    tile: Place,
    columns: u32,
    scale: f32,
    subgroup: u32,
    local: u32,
    upper_left: ptr<function, MatrixC>,
    upper_right: ptr<function, MatrixC>,
    lower_left: ptr<function, MatrixC>,
    lower_right: ptr<function, MatrixC>,
) -> f32 {
    let slot = min(subgroup, SUBGROUPS - 1u);
    let a_base = slot / EDGE * PART * STRIDE;
    let b_base = slot % EDGE * PART * STRIDE;
    let range = stretch(tile.split);
    var bias = 0.0;
    for (var begin = range.begin; begin < range.end; begin += DEPTH) {
        workgroupBarrier();
        bias += load_a(tile.row, begin, range.end, scale, local);
        load_b(tile.column, columns, begin, range.end, local);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let a_upper = coopLoadT<MatrixA>(&a_tile[a_base + k], STRIDE);
            let a_lower = coopLoadT<MatrixA>(&a_tile[a_base + SIZE * STRIDE + k], STRIDE);
            let b_left = coopLoad<MatrixB>(&b_tile[b_base + k], STRIDE);
            let b_right = coopLoad<MatrixB>(&b_tile[b_base + SIZE * STRIDE + k], STRIDE);
            *upper_left = coopMultiplyAdd(a_upper, b_left, *upper_left);
            *upper_right = coopMultiplyAdd(a_upper, b_right, *upper_right);
            *lower_left = coopMultiplyAdd(a_lower, b_left, *lower_left);
            *lower_right = coopMultiplyAdd(a_lower, b_right, *lower_right);
        }
    }
    return bias;
}

// Puts a matrix of every subgroup where all invocations can read it.
fn stage(sums: MatrixC, subgroup: u32) {
    workgroupBarrier();
    coopStoreT(sums, &staging[min(subgroup, SUBGROUPS - 1u) * ELEMENTS], SIZE);
    workgroupBarrier();
}

// Row and column of a staged element of the matrices at (row, column), 0 or 1 each, of the subgroups' parts.
fn staged_place(tile: Place, element: u32, row: u32, column: u32) -> vec2<u32> {
    let slot = element / ELEMENTS;
    let within = element % ELEMENTS;
    let part = vec2<u32>(slot / EDGE, slot % EDGE) * PART;
    return vec2<u32>(tile.row, tile.column) + part + vec2<u32>(row, column) * SIZE + vec2<u32>(within / SIZE, within % SIZE);
}

fn forward_matrices(sums: MatrixC, tile: Place, row: u32, column: u32, subgroup: u32, local: u32) {
    stage(sums, subgroup);
    for (var i = 0u; i < SUBGROUPS * ELEMENTS / WORKGROUP_SIZE; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let at = staged_place(tile, element, row, column);
        if at.x < params.rows && at.y < params.columns {
            store_forward(at.x, at.y, staging[element]);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let tile = place(workgroup, groups, params.columns);
    if tile.outside {
        return;
    }
    var upper_left: MatrixC;
    var upper_right: MatrixC;
    var lower_left: MatrixC;
    var lower_right: MatrixC;
    _ = multiply_tile(tile, params.columns, 1.0, subgroup, local, &upper_left, &upper_right, &lower_left, &lower_right);
    forward_matrices(upper_left, tile, 0u, 0u, subgroup, local);
    forward_matrices(upper_right, tile, 0u, 1u, subgroup, local);
    forward_matrices(lower_left, tile, 1u, 0u, subgroup, local);
    forward_matrices(lower_right, tile, 1u, 1u, subgroup, local);
}

fn backward_input_matrices(sums: MatrixC, tile: Place, row: u32, column: u32, subgroup: u32, local: u32) {
    stage(sums, subgroup);
    let undo = power_of_two(-exponent_not_below(params.rows));
    for (var i = 0u; i < SUBGROUPS * ELEMENTS / WORKGROUP_SIZE; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let at = staged_place(tile, element, row, column);
        if at.x < params.rows && at.y < params.columns {
            store_backward_input(at.x, at.y, staging[element] * undo);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward_input(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let tile = place(workgroup, groups, params.columns);
    if tile.outside {
        return;
    }
    var upper_left: MatrixC;
    var upper_right: MatrixC;
    var lower_left: MatrixC;
    var lower_right: MatrixC;
    _ = multiply_tile(tile, params.columns, power_of_two(exponent_not_below(params.rows)), subgroup, local, &upper_left, &upper_right, &lower_left, &lower_right);
    backward_input_matrices(upper_left, tile, 0u, 0u, subgroup, local);
    backward_input_matrices(upper_right, tile, 0u, 1u, subgroup, local);
    backward_input_matrices(lower_left, tile, 1u, 0u, subgroup, local);
    backward_input_matrices(lower_right, tile, 1u, 1u, subgroup, local);
}

// db, the last column, is no part of the product.
fn backward_params_matrices(sums: MatrixC, tile: Place, row: u32, column: u32, subgroup: u32, local: u32) {
    stage(sums, subgroup);
    let undo = power_of_two(-exponent_not_below(params.depth));
    for (var i = 0u; i < SUBGROUPS * ELEMENTS / WORKGROUP_SIZE; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let at = staged_place(tile, element, row, column);
        if at.x < params.rows && at.y < params.columns - 1u {
            store_backward_params(tile.split, at.x, at.y, staging[element] * undo);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward_params(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let tile = place(workgroup, groups, params.columns - 1u);
    if tile.outside {
        return;
    }
    var upper_left: MatrixC;
    var upper_right: MatrixC;
    var lower_left: MatrixC;
    var lower_right: MatrixC;
    let bias = multiply_tile(tile, params.columns - 1u, power_of_two(exponent_not_below(params.depth)), subgroup, local, &upper_left, &upper_right, &lower_left, &lower_right);
    backward_params_matrices(upper_left, tile, 0u, 0u, subgroup, local);
    backward_params_matrices(upper_right, tile, 0u, 1u, subgroup, local);
    backward_params_matrices(lower_left, tile, 1u, 0u, subgroup, local);
    backward_params_matrices(lower_right, tile, 1u, 1u, subgroup, local);
    // Every tile of a row has read all of its d_pre; the first one stores the sum.
    if tile.column > 0u {
        return;
    }
    workgroupBarrier();
    staging[local % (SUBGROUPS * ELEMENTS)] = bias;
    workgroupBarrier();
    if local < TILE && tile.row + local < params.rows {
        var sum = 0.0;
        for (var other = local; other < WORKGROUP_SIZE; other += TILE) {
            sum += staging[other % (SUBGROUPS * ELEMENTS)];
        }
        store_backward_params(tile.split, tile.row + local, params.columns - 1u, sum);
    }
}
