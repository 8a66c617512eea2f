// The three products of linear.wgsl on tensor cores: an operand is one or two halves, numbers of f16, from its way into workgroup memory on; sums in f32.
//
//   forward           y     = act(x·Wᵀ + b)                 rows = batch, columns = out, depth = in
//   backward_input    d_x   = (d_pre·W) ⊙ act′(saved)       rows = batch, columns = in,  depth = out
//   backward_params   dW|db = d_preᵀ·(x|1)                  rows = out,   columns = in + 1, depth = batch; db is summed in f32, from d_pre as stored
//
// d_pre is of the order of 1/batch, where f16 has few bits left or none: it is multiplied by the smallest power of two that is not below the batch, and
// the product divided by that again, both exact.
//
// One half is the operand rounded. Of two, a = high + low / 2048, low is what rounding leaves, where f16 has as many bits for it as for a. a·b is made of
// high·high and, in sums of their own, high·low + low·high; low·low is no more than rounding low takes away. (Ootomo and Yokota, Recovering single precision
// accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance, 2022, but for their sums outside of the tensor cores.)
//
// Shapes        as in linear.wgsl
// Grid          one workgroup TILE×TILE outputs and a stretch of `depth_per_split`; linear, folded past 65 535 workgroups
// Workgroup     WORKGROUP_SIZE invocations, which are SUBGROUPS subgroups of the adapter's size; 14 KiB of workgroup memory, 28 KiB for tiles of 128, of
//               two halves 24 and 48. A subgroup has 2×2 matrices of sums, or 4×2, of two halves twice. Barriers, loads and stores of matrices stand in
//               control flow that is uniform within a workgroup
// Loads         an invocation fetches whole vectors of four elements, into registers while the stage before is multiplied; they follow what is contiguous
//               in memory, and stay so in workgroup memory: matrices are loaded from there by rows or by columns. No branch stands between two
//               loads: the latter would wait for the former
// Bindings      those of edges.wgsl; a and b again as vectors, which are read if VECTORS says so
// Preconditions sizes >= 1, batch <= 2^31, rows * columns * splits < 2^32; WORKGROUP_SIZE a power of two from 64 to TILE * DEPTH / 4. With VECTORS
//               offsets and sizes of layers are multiples of four
//               Indices proven: rows, columns and depth past the end are clamped before they are read, depth replaced by zeros after that, and all compared
//               before outputs are written; a vector of a stage is below TILE * DEPTH / 4, as is its place in workgroup memory for either order; matrices
//               begin at row <= TILE - SIZE and depth <= DEPTH - SIZE, the subgroup's number being clamped, and are SIZE long both ways
// Determinism   fixed order: over depth within a stretch as the adapter's matrices sum, then over stretches. TILE changes no bit of a product
// Range         |x|, |W| and |d_pre|·2^⌈log2 batch⌉ below 65 520, the end of f16: beyond, an operand is infinite and its outputs are not finite. In a
//               gradient the learner finds that before a step is taken, and reports it with nothing lost
// Tolerance     with operands |a|(1 + 2⁻¹¹) + 2⁻²⁵ in place of |a|, of two halves |a|(1 + 2⁻²²) + 2⁻³⁶ (and 2⁻²⁵, 2⁻³⁶ over the scale for d_pre): what that
//               adds to Σ|a||b|, of two halves the products of both |a|·2⁻¹¹ + 2⁻²⁵ too, and (depth + 2)·2⁻²³ of it all for the sums, whose roundings
//               adapters may truncate; edges as in linear.wgsl; derived in src/kernels/linear/tensor_core.rs

override WORKGROUP_SIZE: u32 = 128u;
// Outputs of a workgroup in each direction: 64 or 128.
override TILE: u32 = 64u;
// Of an operand: 1 or 2.
override HALVES: u32 = 1u;
// Whether a and b can be read by vectors.
override VECTORS: bool = false;
// Whether they are contiguous in memory across the depth: a of backward_params, b of both gradients.
override A_ACROSS: bool = false;
override B_ACROSS: bool = false;

// How much of the depth is in workgroup memory at once.
const DEPTH: u32 = 32u;
// Vectors in a row of a tile along the depth, and across it.
const ALONG: u32 = DEPTH / 4u;
override ACROSS: u32 = TILE / 4u;
// Elements from one row to the next, either way: 80, 144 or 272 bytes, so that eight rows of a matrix lie in different banks, each aligned to 16 bytes.
const ALONG_STRIDE: u32 = DEPTH + 8u;
override ACROSS_STRIDE: u32 = TILE + 8u;
// Vectors of a and of b that an invocation fetches a stage, and the most that may be.
override SHARE: u32 = TILE * DEPTH / 4u / WORKGROUP_SIZE;
const MOST: u32 = 8u;
// A subgroup's part of the tile, of 2×2 matrices of sums or, in large tiles, 4×2; subgroups side by side, and in all.
override PART_ROWS: u32 = TILE / 32u * SIZE;
const PART_COLUMNS: u32 = 2u * SIZE;
override SUBGROUP_COLUMNS: u32 = TILE / PART_COLUMNS;
override SUBGROUPS: u32 = TILE / PART_ROWS * SUBGROUP_COLUMNS;
const ELEMENTS: u32 = SIZE * SIZE;
// Elements of a matrix of every subgroup that an invocation stores, and the most that may be.
override STAGED: u32 = SUBGROUPS * ELEMENTS / WORKGROUP_SIZE;
const MOST_STAGED: u32 = 16u;

// What rounding leaves is 2⁻¹¹ of an operand at most.
const LOW_SCALE: f32 = 2048.0;
// Where the halves of a tile's operands begin in workgroup memory.
const HIGH: u32 = 0u;
override LOW: u32 = TILE * ALONG_STRIDE;
override OPERANDS: u32 = HALVES * LOW;

@group(0) @binding(5) var<storage, read> a_vectors: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> b_vectors: array<vec4<f32>>;

// [row or column of the tile][depth], or [depth][row or column] where these are contiguous in memory.
var<workgroup> a_tile: array<f16, OPERANDS>;
var<workgroup> b_tile: array<f16, OPERANDS>;
// A matrix of sums for each subgroup; at the end of backward_params the parts of db.
var<workgroup> staging: array<f32, max(SUBGROUPS * ELEMENTS, 4u * WORKGROUP_SIZE)>;

// A subgroup's matrices; the last four in large tiles only.
struct Sums {
    left0: MatrixC, right0: MatrixC, left1: MatrixC, right1: MatrixC,
    left2: MatrixC, right2: MatrixC, left3: MatrixC, right3: MatrixC,
}

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

fn read_a(at: vec4<u32>) -> vec4<f32> {
    if VECTORS {
        return a_vectors[at.x / 4u];
    }
    return vec4<f32>(a[at.x], a[at.y], a[at.z], a[at.w]);
}

fn read_b(at: vec4<u32>) -> vec4<f32> {
    if VECTORS {
        return b_vectors[at.x / 4u];
    }
    return vec4<f32>(b[at.x], b[at.y], b[at.z], b[at.w]);
}

const FOUR = vec4<u32>(0u, 1u, 2u, 3u);

fn a_rows(rows: vec4<u32>) -> vec4<u32> {
    return params.a_offset + min(rows, vec4<u32>(params.rows - 1u)) * params.a_row_stride;
}

fn b_columns(columns: vec4<u32>, count: u32) -> vec4<u32> {
    return params.b_offset + min(columns, vec4<u32>(count - 1u)) * params.b_column_stride;
}

fn fetch_a(rows: vec4<u32>, k: vec4<u32>, end: u32) -> vec4<f32> {
    let at = rows + min(k, vec4<u32>(end - 1u)) * params.a_depth_stride;
    return select(vec4<f32>(), read_a(at), k < vec4<u32>(end));
}

fn fetch_b(columns: vec4<u32>, k: vec4<u32>, end: u32) -> vec4<f32> {
    let at = columns + min(k, vec4<u32>(end - 1u)) * params.b_depth_stride;
    return select(vec4<f32>(), read_b(at), k < vec4<u32>(end));
}

// Of a vector of a stage: its place in workgroup memory, its rows or columns from the tile's first, and its steps of depth from the stage's.
fn place_of(vector: u32, across: bool) -> u32 {
    return select(vector / ALONG * ALONG_STRIDE + vector % ALONG * 4u, vector / ACROSS * ACROSS_STRIDE + vector % ACROSS * 4u, across);
}

fn lines_of(vector: u32, across: bool) -> vec4<u32> {
    return select(vec4<u32>(vector / ALONG), vector % ACROSS * 4u + FOUR, across);
}

fn depth_of(vector: u32, across: bool) -> vec4<u32> {
    return select(vector % ALONG * 4u + FOUR, vec4<u32>(vector / ACROSS), across);
}

// The nearest number of f16, subnormal ones among them. Not by converting to f16 and back: compilers take that for nothing. Halves are 2⁻¹⁰ of the power of two
// below them apart, and of 2⁻¹⁴ at least, whose exponent in f32 is 113.
fn nearest_half(x: vec4<f32>) -> vec4<f32> {
    let exponent = max(bitcast<vec4<u32>>(x) & vec4<u32>(255u << 23u), vec4<u32>(113u << 23u));
    let distance = bitcast<vec4<f32>>(exponent - vec4<u32>(10u << 23u));
    let one_over_distance = bitcast<vec4<f32>>(vec4<u32>(264u << 23u) - exponent);
    return round(x * one_over_distance) * distance;
}

fn put_a(at: u32, operand: vec4<f32>) {
    if HALVES > 1u {
        let high = nearest_half(operand);
        put_half_of_a(HIGH + at, vec4<f16>(high));
        put_half_of_a(LOW + at, vec4<f16>((operand - high) * LOW_SCALE));
    } else {
        put_half_of_a(HIGH + at, vec4<f16>(operand));
    }
}

fn put_half_of_a(at: u32, half: vec4<f16>) {
    a_tile[at] = half.x;
    a_tile[at + 1u] = half.y;
    a_tile[at + 2u] = half.z;
    a_tile[at + 3u] = half.w;
}

fn put_b(at: u32, operand: vec4<f32>) {
    if HALVES > 1u {
        let high = nearest_half(operand);
        put_half_of_b(HIGH + at, vec4<f16>(high));
        put_half_of_b(LOW + at, vec4<f16>((operand - high) * LOW_SCALE));
    } else {
        put_half_of_b(HIGH + at, vec4<f16>(operand));
    }
}

fn put_half_of_b(at: u32, half: vec4<f16>) {
    b_tile[at] = half.x;
    b_tile[at + 1u] = half.y;
    b_tile[at + 2u] = half.z;
    b_tile[at + 3u] = half.w;
}

fn load_a(half: u32, row: u32, k: u32) -> MatrixA {
    if A_ACROSS {
        return coopLoad<MatrixA>(&a_tile[half + k * ACROSS_STRIDE + row], ACROSS_STRIDE);
    }
    return coopLoadT<MatrixA>(&a_tile[half + row * ALONG_STRIDE + k], ALONG_STRIDE);
}

fn load_b(half: u32, column: u32, k: u32) -> MatrixB {
    if B_ACROSS {
        return coopLoadT<MatrixB>(&b_tile[half + k * ACROSS_STRIDE + column], ACROSS_STRIDE);
    }
    return coopLoad<MatrixB>(&b_tile[half + column * ALONG_STRIDE + k], ALONG_STRIDE);
}

// Where a subgroup's part of the tile begins.
fn part_of(slot: u32) -> vec2<u32> {
    return vec2<u32>(slot / SUBGROUP_COLUMNS * PART_ROWS, slot % SUBGROUP_COLUMNS * PART_COLUMNS);
}

// Adds to a subgroup's sums. Returns the sums over the depth of an invocation's four rows of a, its part of db, if a lies across the depth.
fn multiply_tile(tile: Place, columns: u32, scale: f32, subgroup: u32, local: u32, sums: ptr<function, Sums>, lows: ptr<function, Sums>) -> vec4<f32> {
    let part = part_of(min(subgroup, SUBGROUPS - 1u));
    let range = stretch(tile.split);
    var a_lines: array<vec4<u32>, MOST>;
    var b_lines: array<vec4<u32>, MOST>;
    var next_a: array<vec4<f32>, MOST>;
    var next_b: array<vec4<f32>, MOST>;
    for (var i = 0u; i < SHARE; i += 1u) {
        let vector = i * WORKGROUP_SIZE + local;
        a_lines[i] = a_rows(tile.row + lines_of(vector, A_ACROSS));
        b_lines[i] = b_columns(tile.column + lines_of(vector, B_ACROSS), columns);
        next_a[i] = fetch_a(a_lines[i], range.begin + depth_of(vector, A_ACROSS), range.end);
        next_b[i] = fetch_b(b_lines[i], range.begin + depth_of(vector, B_ACROSS), range.end);
    }
    var bias = vec4<f32>();
    for (var begin = range.begin; begin < range.end; begin += DEPTH) {
        workgroupBarrier();
        for (var i = 0u; i < SHARE; i += 1u) {
            let vector = i * WORKGROUP_SIZE + local;
            bias += next_a[i];
            put_a(place_of(vector, A_ACROSS), next_a[i] * scale);
            put_b(place_of(vector, B_ACROSS), next_b[i]);
        }
        workgroupBarrier();
        for (var i = 0u; i < SHARE; i += 1u) {
            let vector = i * WORKGROUP_SIZE + local;
            next_a[i] = fetch_a(a_lines[i], begin + DEPTH + depth_of(vector, A_ACROSS), range.end);
            next_b[i] = fetch_b(b_lines[i], begin + DEPTH + depth_of(vector, B_ACROSS), range.end);
        }
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let b_left = load_b(HIGH, part.y, k);
            let b_right = load_b(HIGH, part.y + SIZE, k);
            let a0 = load_a(HIGH, part.x, k);
            let a1 = load_a(HIGH, part.x + SIZE, k);
            (*sums).left0 = coopMultiplyAdd(a0, b_left, (*sums).left0);
            (*sums).right0 = coopMultiplyAdd(a0, b_right, (*sums).right0);
            (*sums).left1 = coopMultiplyAdd(a1, b_left, (*sums).left1);
            (*sums).right1 = coopMultiplyAdd(a1, b_right, (*sums).right1);
            if HALVES > 1u {
                let b_left_low = load_b(LOW, part.y, k);
                let b_right_low = load_b(LOW, part.y + SIZE, k);
                let a0_low = load_a(LOW, part.x, k);
                let a1_low = load_a(LOW, part.x + SIZE, k);
                (*lows).left0 = coopMultiplyAdd(a0, b_left_low, coopMultiplyAdd(a0_low, b_left, (*lows).left0));
                (*lows).right0 = coopMultiplyAdd(a0, b_right_low, coopMultiplyAdd(a0_low, b_right, (*lows).right0));
                (*lows).left1 = coopMultiplyAdd(a1, b_left_low, coopMultiplyAdd(a1_low, b_left, (*lows).left1));
                (*lows).right1 = coopMultiplyAdd(a1, b_right_low, coopMultiplyAdd(a1_low, b_right, (*lows).right1));
            }
            if TILE > 64u {
                let a2 = load_a(HIGH, part.x + 2u * SIZE, k);
                let a3 = load_a(HIGH, part.x + 3u * SIZE, k);
                (*sums).left2 = coopMultiplyAdd(a2, b_left, (*sums).left2);
                (*sums).right2 = coopMultiplyAdd(a2, b_right, (*sums).right2);
                (*sums).left3 = coopMultiplyAdd(a3, b_left, (*sums).left3);
                (*sums).right3 = coopMultiplyAdd(a3, b_right, (*sums).right3);
                if HALVES > 1u {
                    let b_left_low = load_b(LOW, part.y, k);
                    let b_right_low = load_b(LOW, part.y + SIZE, k);
                    let a2_low = load_a(LOW, part.x + 2u * SIZE, k);
                    let a3_low = load_a(LOW, part.x + 3u * SIZE, k);
                    (*lows).left2 = coopMultiplyAdd(a2, b_left_low, coopMultiplyAdd(a2_low, b_left, (*lows).left2));
                    (*lows).right2 = coopMultiplyAdd(a2, b_right_low, coopMultiplyAdd(a2_low, b_right, (*lows).right2));
                    (*lows).left3 = coopMultiplyAdd(a3, b_left_low, coopMultiplyAdd(a3_low, b_left, (*lows).left3));
                    (*lows).right3 = coopMultiplyAdd(a3, b_right_low, coopMultiplyAdd(a3_low, b_right, (*lows).right3));
                }
            }
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

// What products with a low half add to the elements of a matrix of sums.
fn staged_lows(lows: MatrixC, subgroup: u32, local: u32) -> array<f32, MOST_STAGED> {
    var added: array<f32, MOST_STAGED>;
    if HALVES > 1u {
        stage(lows, subgroup);
        for (var i = 0u; i < STAGED; i += 1u) {
            added[i] = staging[i * WORKGROUP_SIZE + local] / LOW_SCALE;
        }
    }
    return added;
}

// Row and column of a staged element of the matrices at (row, column) of the subgroups' parts.
fn staged_place(tile: Place, element: u32, row: u32, column: u32) -> vec2<u32> {
    let within = element % ELEMENTS;
    let of_matrix = part_of(element / ELEMENTS) + vec2<u32>(row, column) * SIZE;
    return vec2<u32>(tile.row, tile.column) + of_matrix + vec2<u32>(within / SIZE, within % SIZE);
}

fn forward_matrices(sums: MatrixC, lows: MatrixC, tile: Place, row: u32, column: u32, subgroup: u32, local: u32) {
    var biases: array<f32, MOST_STAGED>;
    for (var i = 0u; i < STAGED; i += 1u) {
        biases[i] = bias_of(staged_place(tile, i * WORKGROUP_SIZE + local, row, column).y);
    }
    let added = staged_lows(lows, subgroup, local);
    stage(sums, subgroup);
    for (var i = 0u; i < STAGED; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let at = staged_place(tile, element, row, column);
        if all(at < vec2<u32>(params.rows, params.columns)) {
            store_forward(at.x, at.y, staging[element] + added[i], biases[i]);
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
    var sums: Sums;
    var lows: Sums;
    _ = multiply_tile(tile, params.columns, 1.0, subgroup, local, &sums, &lows);
    forward_matrices(sums.left0, lows.left0, tile, 0u, 0u, subgroup, local);
    forward_matrices(sums.right0, lows.right0, tile, 0u, 1u, subgroup, local);
    forward_matrices(sums.left1, lows.left1, tile, 1u, 0u, subgroup, local);
    forward_matrices(sums.right1, lows.right1, tile, 1u, 1u, subgroup, local);
    if TILE > 64u {
        forward_matrices(sums.left2, lows.left2, tile, 2u, 0u, subgroup, local);
        forward_matrices(sums.right2, lows.right2, tile, 2u, 1u, subgroup, local);
        forward_matrices(sums.left3, lows.left3, tile, 3u, 0u, subgroup, local);
        forward_matrices(sums.right3, lows.right3, tile, 3u, 1u, subgroup, local);
    }
}

fn backward_input_matrices(sums: MatrixC, lows: MatrixC, tile: Place, row: u32, column: u32, subgroup: u32, local: u32) {
    let undo = power_of_two(-exponent_not_below(params.rows));
    var kept: array<f32, MOST_STAGED>;
    for (var i = 0u; i < STAGED; i += 1u) {
        let at = staged_place(tile, i * WORKGROUP_SIZE + local, row, column);
        kept[i] = saved_at(at.x, at.y);
    }
    let added = staged_lows(lows, subgroup, local);
    stage(sums, subgroup);
    for (var i = 0u; i < STAGED; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let at = staged_place(tile, element, row, column);
        if all(at < vec2<u32>(params.rows, params.columns)) {
            store_backward_input(at.x, at.y, (staging[element] + added[i]) * undo, kept[i]);
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
    let scale = power_of_two(exponent_not_below(params.rows));
    var sums: Sums;
    var lows: Sums;
    _ = multiply_tile(tile, params.columns, scale, subgroup, local, &sums, &lows);
    backward_input_matrices(sums.left0, lows.left0, tile, 0u, 0u, subgroup, local);
    backward_input_matrices(sums.right0, lows.right0, tile, 0u, 1u, subgroup, local);
    backward_input_matrices(sums.left1, lows.left1, tile, 1u, 0u, subgroup, local);
    backward_input_matrices(sums.right1, lows.right1, tile, 1u, 1u, subgroup, local);
    if TILE > 64u {
        backward_input_matrices(sums.left2, lows.left2, tile, 2u, 0u, subgroup, local);
        backward_input_matrices(sums.right2, lows.right2, tile, 2u, 1u, subgroup, local);
        backward_input_matrices(sums.left3, lows.left3, tile, 3u, 0u, subgroup, local);
        backward_input_matrices(sums.right3, lows.right3, tile, 3u, 1u, subgroup, local);
    }
}

// db, the last column, is no part of the product.
fn backward_params_matrices(sums: MatrixC, lows: MatrixC, tile: Place, row: u32, column: u32, subgroup: u32, local: u32) {
    let undo = power_of_two(-exponent_not_below(params.depth));
    let added = staged_lows(lows, subgroup, local);
    stage(sums, subgroup);
    for (var i = 0u; i < STAGED; i += 1u) {
        let element = i * WORKGROUP_SIZE + local;
        let at = staged_place(tile, element, row, column);
        if all(at < vec2<u32>(params.rows, params.columns - 1u)) {
            store_backward_params(tile.split, at.x, at.y, (staging[element] + added[i]) * undo);
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
    let scale = power_of_two(exponent_not_below(params.depth));
    var sums: Sums;
    var lows: Sums;
    let bias = multiply_tile(tile, params.columns - 1u, scale, subgroup, local, &sums, &lows);
    backward_params_matrices(sums.left0, lows.left0, tile, 0u, 0u, subgroup, local);
    backward_params_matrices(sums.right0, lows.right0, tile, 0u, 1u, subgroup, local);
    backward_params_matrices(sums.left1, lows.left1, tile, 1u, 0u, subgroup, local);
    backward_params_matrices(sums.right1, lows.right1, tile, 1u, 1u, subgroup, local);
    if TILE > 64u {
        backward_params_matrices(sums.left2, lows.left2, tile, 2u, 0u, subgroup, local);
        backward_params_matrices(sums.right2, lows.right2, tile, 2u, 1u, subgroup, local);
        backward_params_matrices(sums.left3, lows.left3, tile, 3u, 0u, subgroup, local);
        backward_params_matrices(sums.right3, lows.right3, tile, 3u, 1u, subgroup, local);
    }
    // Every tile of a row has read all of its d_pre; the first one stores the sum.
    if tile.column > 0u {
        return;
    }
    workgroupBarrier();
    for (var c = 0u; c < 4u; c += 1u) {
        staging[4u * local + c] = bias[c];
    }
    workgroupBarrier();
    if local < TILE && tile.row + local < params.rows {
        var sum = 0.0;
        for (var other = local; other < 4u * WORKGROUP_SIZE; other += TILE) {
            sum += staging[other];
        }
        store_backward_params(tile.split, tile.row + local, params.columns - 1u, sum);
    }
}
