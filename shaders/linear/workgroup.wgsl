// The three products of linear.wgsl, shared by the invocations of a workgroup: for real GPUs and large layers. Stands behind linear.wgsl and computes
// the same bits: each output is summed over its depth in the same order, by the same multiply-adds.
//
// Shapes        as in linear.wgsl. A tile is SIDE×SIDE outputs, a stage of it STAGE = 1024 / SIDE steps of depth: 64×64 by 16, 128×128 by 8
// Grid          one workgroup a tile and stretch, columns first; linear, folded past 65 535 workgroups. The column of ones needs no tile: the workgroups of
//               the first column of tiles sum the rows of a as they pass
// Workgroup     256 invocations of (SIDE / 16)² outputs each, 16 KiB of workgroup memory: two stages of a and two of b
// Loads         an invocation fetches a vec4 of a and one of b a stage, into registers while the stage before is multiplied, then into the stage that
//               nobody reads: one barrier a stage. Whole stages are multiplied without a branch, because compilers move loads down into the
//               block that needs them (RADV did), and then nothing hides their latency. The vec4's components lie a quarter of a tile apart, so that neighbouring invocations read
//               neighbouring addresses whatever the strides, at any offset, and write whole vec4s. Their places are swapped by the step of depth, so that
//               neither these writes nor the reads of 8 neighbouring invocations meet in a bank
// Bindings      as in linear.wgsl
// Indices       rows, columns and depth past the end are clamped before they are read and compared before they are written or multiplied. A place is
//               below QUARTER, a multiple of 16, and stays so when its last three bits are swapped: a slot is below STAGE * QUARTER = 256, and every slot
//               of a stage is written before the stage is read. Output (i, j) of an invocation is below (8, 8)
// Barriers      bounds of the loop over stages come from uniforms and the workgroup's number alone

// Rows and columns of a tile, 64 or 128.
override SIDE: u32 = 64u;
// How far apart the components of a vec4 lie.
override QUARTER: u32 = SIDE / 4u;
override STAGE: u32 = TEAM / QUARTER;
// Invocations of a workgroup, vec4s of a stage.
const TEAM: u32 = 256u;

var<workgroup> a_stages: array<vec4<f32>, 512>;
var<workgroup> b_stages: array<vec4<f32>, 512>;

// The sum of row `local` of a, where the last column of b is all ones.
var<private> row_sum: f32;

// First row and first column.
struct Tile {
    row: u32,
    column: u32,
    split: u32,
}

fn workgroup_tile(workgroup: vec3<u32>, groups: vec3<u32>) -> Tile {
    let across = (stored_columns() + SIDE - 1u) / SIDE;
    let tiles = (params.rows + SIDE - 1u) / SIDE * across;
    let index = workgroup.y * groups.x + workgroup.x;
    let split = index / tiles;
    let tile = index - split * tiles;
    return Tile(tile / across * SIDE, tile % across * SIDE, split);
}

// Which vec4 of a stage an invocation fetches.
struct Share {
    place: u32,
    step: u32,
}

// Neighbours follow what is contiguous in memory.
fn share(local: u32, along_depth: bool) -> Share {
    if along_depth {
        return Share(local / STAGE, local % STAGE);
    }
    return Share(local % QUARTER, local / QUARTER);
}

fn slot(step: u32, place: u32) -> u32 {
    return step * QUARTER + (place ^ (step & 7u));
}

fn fetch_a(rows: vec4<u32>, k: u32) -> vec4<f32> {
    let i = rows + min(k, params.depth - 1u) * params.a_depth_stride;
    return vec4<f32>(a[i.x], a[i.y], a[i.z], a[i.w]);
}

fn fetch_b(columns: vec4<u32>, k: u32) -> vec4<f32> {
    let j = columns + min(k, params.depth - 1u) * params.b_depth_stride;
    return vec4<f32>(b[j.x], b[j.y], b[j.z], b[j.w]);
}

// As `low` and `high` of linear.wgsl, by name, so that no driver takes them for memory.
struct Sums {
    l0: vec4<f32>, l1: vec4<f32>, l2: vec4<f32>, l3: vec4<f32>, l4: vec4<f32>, l5: vec4<f32>, l6: vec4<f32>, l7: vec4<f32>,
    h0: vec4<f32>, h1: vec4<f32>, h2: vec4<f32>, h3: vec4<f32>, h4: vec4<f32>, h5: vec4<f32>, h6: vec4<f32>, h7: vec4<f32>,
}

fn multiply_step(sums: ptr<function, Sums>, stage: u32, step: u32, at: vec2<u32>) {
    let i = stage + slot(step, at.x);
    let j = stage + slot(step, at.y);
    let a_low = a_stages[i];
    let b_low = b_stages[j];
    (*sums).l0 = fma(vec4<f32>(a_low.x), b_low, (*sums).l0);
    (*sums).l1 = fma(vec4<f32>(a_low.y), b_low, (*sums).l1);
    (*sums).l2 = fma(vec4<f32>(a_low.z), b_low, (*sums).l2);
    (*sums).l3 = fma(vec4<f32>(a_low.w), b_low, (*sums).l3);
    if SIDE > 64u {
        let a_high = a_stages[i + 16u];
        let b_high = b_stages[j + 16u];
        (*sums).l4 = fma(vec4<f32>(a_high.x), b_low, (*sums).l4);
        (*sums).l5 = fma(vec4<f32>(a_high.y), b_low, (*sums).l5);
        (*sums).l6 = fma(vec4<f32>(a_high.z), b_low, (*sums).l6);
        (*sums).l7 = fma(vec4<f32>(a_high.w), b_low, (*sums).l7);
        (*sums).h0 = fma(vec4<f32>(a_low.x), b_high, (*sums).h0);
        (*sums).h1 = fma(vec4<f32>(a_low.y), b_high, (*sums).h1);
        (*sums).h2 = fma(vec4<f32>(a_low.z), b_high, (*sums).h2);
        (*sums).h3 = fma(vec4<f32>(a_low.w), b_high, (*sums).h3);
        (*sums).h4 = fma(vec4<f32>(a_high.x), b_high, (*sums).h4);
        (*sums).h5 = fma(vec4<f32>(a_high.y), b_high, (*sums).h5);
        (*sums).h6 = fma(vec4<f32>(a_high.z), b_high, (*sums).h6);
        (*sums).h7 = fma(vec4<f32>(a_high.w), b_high, (*sums).h7);
    }
}

fn multiply_eight_steps(sums: ptr<function, Sums>, stage: u32, first: u32, at: vec2<u32>) {
    multiply_step(sums, stage, first, at);
    multiply_step(sums, stage, first + 1u, at);
    multiply_step(sums, stage, first + 2u, at);
    multiply_step(sums, stage, first + 3u, at);
    multiply_step(sums, stage, first + 4u, at);
    multiply_step(sums, stage, first + 5u, at);
    multiply_step(sums, stage, first + 6u, at);
    multiply_step(sums, stage, first + 7u, at);
}

fn add_to_row_sum(stage: u32, steps: u32, local: u32) {
    for (var step = 0u; step < steps; step += 1u) {
        row_sum += a_stages[stage + slot(step, local % QUARTER)][local / QUARTER];
    }
}

// Row and column of an invocation's first output in its tile. 32 neighbours read 4 vec4s of a and 8 of b.
fn place_in_tile(local: u32) -> vec2<u32> {
    let block = local / 32u;
    let lane = local % 32u;
    return vec2<u32>(block / 2u * 4u + lane / 8u, block % 2u * 8u + lane % 8u);
}

// How far an invocation's output `i` lies from its first, in either direction.
fn spread(i: u32) -> u32 {
    return (i & 3u) * QUARTER + i / 4u * 16u;
}

fn multiply_workgroup_tile(tile: Tile, local: u32) {
    let apart = vec4<u32>(0u, 1u, 2u, 3u) * QUARTER;
    let of_a = share(local, params.a_depth_stride == 1u);
    let of_b = share(local, params.b_depth_stride == 1u);
    let row = tile.row + of_a.place + apart;
    let column = tile.column + of_b.place + apart;
    let rows = vec4<u32>(a_row(row.x), a_row(row.y), a_row(row.z), a_row(row.w));
    let columns = vec4<u32>(b_column(column.x), b_column(column.y), b_column(column.z), b_column(column.w));
    let a_slot = slot(of_a.step, of_a.place);
    let b_slot = slot(of_b.step, of_b.place);
    let sums_rows = ONES_COLUMN && tile.column == 0u && local < SIDE;

    let range = stretch(tile.split);
    let at = place_in_tile(local);
    var sums = Sums();
    var stage = 0u;
    a_stages[a_slot] = fetch_a(rows, range.begin + of_a.step);
    b_stages[b_slot] = fetch_b(columns, range.begin + of_b.step);
    var k = range.begin;
    for (; range.end - k >= STAGE; k += STAGE) {
        workgroupBarrier();
        if sums_rows {
            add_to_row_sum(stage, STAGE, local);
        }
        let next_a = fetch_a(rows, k + STAGE + of_a.step);
        let next_b = fetch_b(columns, k + STAGE + of_b.step);
        multiply_eight_steps(&sums, stage, 0u, at);
        if STAGE > 8u {
            multiply_eight_steps(&sums, stage, 8u, at);
        }
        stage ^= TEAM;
        a_stages[stage + a_slot] = next_a;
        b_stages[stage + b_slot] = next_b;
    }
    workgroupBarrier();
    for (var step = 0u; step < range.end - k; step += 1u) {
        multiply_step(&sums, stage, step, at);
    }
    if sums_rows {
        add_to_row_sum(stage, range.end - k, local);
    }
    low = array(sums.l0, sums.l1, sums.l2, sums.l3, sums.l4, sums.l5, sums.l6, sums.l7);
    high = array(sums.h0, sums.h1, sums.h2, sums.h3, sums.h4, sums.h5, sums.h6, sums.h7);
}

@compute @workgroup_size(TEAM)
fn forward_workgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = workgroup_tile(workgroup, groups);
    if tile.split >= params.splits {
        return;
    }
    multiply_workgroup_tile(tile, local);
    let first = vec2<u32>(tile.row, tile.column) + place_in_tile(local);
    var biases: array<f32, 8>;
    for (var j = 0u; j < SIDE / 16u; j += 1u) {
        biases[j] = bias_of(first.y + spread(j));
    }
    for (var i = 0u; i < SIDE / 16u; i += 1u) {
        for (var j = 0u; j < SIDE / 16u; j += 1u) {
            let at = first + vec2<u32>(spread(i), spread(j));
            if all(at < vec2<u32>(params.rows, params.columns)) {
                store_forward(at.x, at.y, product_at(i, j), biases[j]);
            }
        }
    }
}

@compute @workgroup_size(TEAM)
fn backward_input_workgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = workgroup_tile(workgroup, groups);
    if tile.split >= params.splits {
        return;
    }
    multiply_workgroup_tile(tile, local);
    let first = vec2<u32>(tile.row, tile.column) + place_in_tile(local);
    for (var i = 0u; i < SIDE / 16u; i += 1u) {
        var kept: array<f32, 8>;
        for (var j = 0u; j < SIDE / 16u; j += 1u) {
            kept[j] = saved_at(first.x + spread(i), first.y + spread(j));
        }
        for (var j = 0u; j < SIDE / 16u; j += 1u) {
            let at = first + vec2<u32>(spread(i), spread(j));
            if all(at < vec2<u32>(params.rows, params.columns)) {
                store_backward_input(at.x, at.y, product_at(i, j), kept[j]);
            }
        }
    }
}

@compute @workgroup_size(TEAM)
fn backward_params_workgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = workgroup_tile(workgroup, groups);
    if tile.split >= params.splits {
        return;
    }
    multiply_workgroup_tile(tile, local);
    let first = vec2<u32>(tile.row, tile.column) + place_in_tile(local);
    for (var i = 0u; i < SIDE / 16u; i += 1u) {
        for (var j = 0u; j < SIDE / 16u; j += 1u) {
            let at = first + vec2<u32>(spread(i), spread(j));
            if all(at < vec2<u32>(params.rows, stored_columns())) {
                store_backward_params(tile.split, at.x, at.y, product_at(i, j));
            }
        }
    }
    let row = tile.row + local;
    if tile.column == 0u && local < SIDE && row < params.rows {
        store_backward_params(tile.split, row, params.columns - 1u, row_sum);
    }
}
