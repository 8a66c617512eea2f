// Losses through the policy's head by tiles of 64 samples, behind shared.wgsl. In between, each row is an invocation's own. Header: shared.wgsl.

const WORKGROUP_SIZE = 64u;

override WIDTH: u32 = 1u;
// Between rows in workgroup memory: odd, so that the same element of all rows lies in different banks.
override STRIDE: u32 = WIDTH | 1u;
override TILE_SIZE: u32 = WORKGROUP_SIZE * STRIDE;

// Logits, whose gradients take their place; or distances between actions and means.
var<workgroup> sh_tile: array<f32, TILE_SIZE>;
// Of each dimension 1 / std in two parts, and log_std.
var<workgroup> sh_std: array<vec4<f32>, WIDTH>;

// The sample of this invocation, past the end the last one.
var<private> own_row: u32;
var<private> own_first: u32;

fn place_of(element: u32) -> u32 {
    let row = element / WIDTH;
    return row * STRIDE + (element - row * WIDTH);
}

struct Tile {
    first_element: u32,
    rows: u32,
    in_batch: bool,
}

fn take_tile(first_row: u32, local: u32) -> Tile {
    own_row = min(first_row + local, params.batch - 1u);
    own_first = local * STRIDE;
    return Tile(first_row * WIDTH, min(params.batch - first_row, WORKGROUP_SIZE), first_row + local < params.batch);
}

fn value_loss(local: u32, sample: vec4<f32>, value: f32) {
    var loss: SampleLoss;
    value_terms(value, sample, &loss);
    d_values[own_row] = loss.d_value;
    stage_value_sum(local, loss);
}

// ------------------------------------------------------------------------------------------------ categorical

fn is_valid(element: u32) -> bool {
    return MASKED == 0u || mask[own_row * WIDTH + (element - own_first)] != 0u;
}

fn logit(element: u32) -> f32 {
    return sh_tile[element];
}

fn store_d_logit(element: u32, gradient: f32) {
    sh_tile[element] = gradient;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn categorical_tiles(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let group = workgroup.x;
    stage_nothing(local);
    for (var first_row = group * WORKGROUP_SIZE; first_row < params.batch; first_row += params.partial_rows * WORKGROUP_SIZE) {
        let tile = take_tile(first_row, local);
        let sample = samples[own_row];
        let action = actions[own_row];
        let value = values[own_row];
        let last = tile.rows * WIDTH - 1u;
        for (var k = 0u; k < WIDTH; k++) {
            let element = k * WORKGROUP_SIZE + local;
            sh_tile[place_of(element)] = logits[tile.first_element + min(element, last)];
        }
        workgroupBarrier();
        categorical_loss(local, 0u, own_first, select(0u, WIDTH, tile.in_batch), tile.in_batch, action, sample);
        if tile.in_batch {
            value_loss(local, sample, value);
        }
        workgroupBarrier();
        for (var element = local; element <= last; element += WORKGROUP_SIZE) {
            d_logits[tile.first_element + element] = sh_tile[place_of(element)];
        }
        workgroupBarrier();
    }
    write_partial_sums(group, local);
}

// ------------------------------------------------------------------------------------------------ Gaussian

// The distance.
fn action_of(element: u32) -> f32 {
    return sh_tile[element];
}

fn mean_of_action(element: u32) -> f32 {
    return 0.0;
}

fn log_std_of(dimension: u32) -> f32 {
    return sh_std[dimension].z;
}

fn inverse_std_parts(dimension: u32) -> vec2<f32> {
    return sh_std[dimension].xy;
}

// All invocations together do, in the order of memory.
fn store_d_mean(element: u32, gradient: f32) {}

@compute @workgroup_size(WORKGROUP_SIZE)
fn gaussian_tiles(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let group = workgroup.x;
    stage_nothing(local);
    for (var d = local; d < WIDTH; d += WORKGROUP_SIZE) {
        let own_log_std = log_std[params.log_std_offset + d];
        sh_std[d] = vec4<f32>(exp_parts(-own_log_std), own_log_std, 0.0);
    }
    // Of d_logp (z^2 - 1), the slope of the log-probabilities in log_std. Several invocations share a dimension.
    let sharers = WORKGROUP_SIZE / WIDTH;
    var log_std_sum = 0.0;
    for (var first_row = group * WORKGROUP_SIZE; first_row < params.batch; first_row += params.partial_rows * WORKGROUP_SIZE) {
        let tile = take_tile(first_row, local);
        let sample = samples[own_row];
        let value = values[own_row];
        let last = tile.rows * WIDTH - 1u;
        for (var k = 0u; k < WIDTH; k++) {
            let element = k * WORKGROUP_SIZE + local;
            let source = tile.first_element + min(element, last);
            sh_tile[place_of(element)] = gaussian_actions[source] - mean[source];
        }
        workgroupBarrier();
        if tile.in_batch {
            sh_lanes[local] = gaussian_loss(local, own_first, sample);
            value_loss(local, sample, value);
        }
        workgroupBarrier();
        for (var element = local; element <= last; element += WORKGROUP_SIZE) {
            let row = element / WIDTH;
            let parts = inverse_std_parts(element - row * WIDTH);
            let inverse_std = parts.x + parts.y;
            let z = sh_tile[place_of(element)] * inverse_std;
            d_mean[tile.first_element + element] = select(sh_lanes[row] * z * inverse_std, 0.0, sh_lanes[row] == 0.0);
        }
        if local < WIDTH * sharers {
            let parts = inverse_std_parts(local % WIDTH);
            for (var row = local / WIDTH; row < tile.rows; row += sharers) {
                let z = sh_tile[row * STRIDE + local % WIDTH] * (parts.x + parts.y);
                log_std_sum += times(sh_lanes[row], z * z - 1.0);
            }
        }
        workgroupBarrier();
    }
    write_partial_sums(group, local);
    sh_sums[local] = log_std_sum;
    workgroupBarrier();
    if local < WIDTH {
        var sum = 0.0;
        for (var sharer = 0u; sharer < sharers; sharer++) {
            sum += sh_sums[sharer * WIDTH + local];
        }
        store_partial(group * params.partial_width + SUMS + local, sum);
    }
}
