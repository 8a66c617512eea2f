// Losses from rows as they lie in memory, an invocation or several a row, and what follows them, behind shared.wgsl. Header: shared.wgsl.

struct StopParams {
    stats_row: u32,
    threshold: f32,
}

const WORKGROUP_SIZE = 256u;
const FINISH_SEGMENTS = 32u;

const STOP = 0u;
const TARGET_KL = 1u;

@group(0) @binding(0) var<uniform> stop_params: StopParams;
@group(0) @binding(6) var<storage, read> logp: array<f32>;
@group(0) @binding(7) var<storage, read> entropy: array<f32>;
@group(0) @binding(8) var<storage, read_write> terms: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> d_logp: array<f32>;
@group(0) @binding(18) var<storage, read_write> d_log_std: array<f32>;
@group(0) @binding(19) var<storage, read_write> d_entropy: array<f32>;
@group(0) @binding(20) var<storage, read_write> control: array<u32>;

// ------------------------------------------------------------------------------------------------ sums

// Past the last row 0. Read in any case, so that no load waits for another.
fn partial_of(row: u32, column: u32) -> f32 {
    let read = partials[min(row, params.partial_rows - 1u) * params.partial_width + column];
    return select(0.0, read, row < params.partial_rows);
}

// Sums 8 neighbouring columns of partials over all its rows into sh_segments[0..8], eight rows at a time.
fn sum_columns(first_column: u32, local: u32) {
    let column = first_column + local % SUMS;
    var sum = 0.0;
    for (var row = local / SUMS; row < params.partial_rows; row += 8u * FINISH_SEGMENTS) {
        let first = (partial_of(row, column) + partial_of(row + FINISH_SEGMENTS, column))
            + (partial_of(row + 2u * FINISH_SEGMENTS, column) + partial_of(row + 3u * FINISH_SEGMENTS, column));
        let second = (partial_of(row + 4u * FINISH_SEGMENTS, column) + partial_of(row + 5u * FINISH_SEGMENTS, column))
            + (partial_of(row + 6u * FINISH_SEGMENTS, column) + partial_of(row + 7u * FINISH_SEGMENTS, column));
        sum += first + second;
    }
    sh_sums[local] = sum;
    workgroupBarrier();
    if local < SUMS {
        var total = 0.0;
        for (var segment = 0u; segment < FINISH_SEGMENTS; segment++) {
            total += sh_sums[segment * SUMS + local];
        }
        sh_segments[local] = total;
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn finish(@builtin(local_invocation_index) local: u32) {
    sum_columns(0u, local);
    if local == 0u {
        write_stats();
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn finish_gaussian(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, groups);
    sum_columns(min(group * SUMS, params.partial_width - SUMS), local);
    if group == 0u {
        if local == 0u {
            write_stats();
        }
        return;
    }
    let dimension = (group - 1u) * SUMS + local;
    if local < SUMS && dimension < params.width {
        // The entropy of each sample has slope 1 in each log_std.
        d_log_std[params.d_log_std_offset + dimension] = sh_segments[local] - params.ent_coef;
    }
}

// ------------------------------------------------------------------------------------------------ from log-probabilities

@compute @workgroup_size(WORKGROUP_SIZE)
fn elementwise(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, groups);
    let i = group * WORKGROUP_SIZE + local;
    stage_nothing(local);
    if i < params.batch {
        var loss = policy_terms(logp[i] - samples[i][OLD_LOGP], samples[i]);
        value_terms(values[i], samples[i], &loss);
        terms[2u * i] = vec4<f32>(loss.log_ratio, loss.ratio, loss.clipped_ratio, loss.pg_loss);
        terms[2u * i + 1u] = vec4<f32>(loss.clipped_value, loss.v_loss, 0.0, 0.0);
        d_logp[i] = loss.d_logp;
        d_values[i] = loss.d_value;
        stage_policy_sums(local, loss, entropy[i]);
        stage_value_sum(local, loss);
    }
    write_partial_sums(group, local);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn entropy_gradient(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = workgroup_index(workgroup, groups) * WORKGROUP_SIZE + local;
    if i < params.batch {
        d_entropy[i] = -params.ent_coef * params.one_over_batch;
    }
}

// ------------------------------------------------------------------------------------------------ categorical

fn is_valid(element: u32) -> bool {
    return MASKED == 0u || mask[element] != 0u;
}

fn logit(element: u32) -> f32 {
    return logits[element];
}

fn store_d_logit(element: u32, gradient: f32) {
    d_logits[element] = gradient;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn categorical(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, groups);
    let row = group * (WORKGROUP_SIZE / LANES) + local / LANES;
    let lane = local % LANES;
    let in_batch = row < params.batch;
    // Invocations past the end work through an empty row, because all have to meet at the barriers.
    let first = select(0u, row * params.width, in_batch);
    let width = select(0u, params.width, in_batch);
    let sample = samples[select(0u, row, in_batch)];
    stage_nothing(local);
    categorical_loss(local, lane, first, width, in_batch, actions[select(0u, row, in_batch)], sample);
    if in_batch && lane == 0u {
        var loss: SampleLoss;
        value_terms(values[row], sample, &loss);
        d_values[row] = loss.d_value;
        stage_value_sum(local, loss);
    }
    write_partial_sums(group, local);
}

// ------------------------------------------------------------------------------------------------ Gaussian

fn mean_of_action(element: u32) -> f32 {
    return mean[element];
}

fn action_of(element: u32) -> f32 {
    return gaussian_actions[element];
}

fn log_std_of(dimension: u32) -> f32 {
    return log_std[params.log_std_offset + dimension];
}

fn inverse_std_parts(dimension: u32) -> vec2<f32> {
    return exp_parts(-log_std_of(dimension));
}

fn store_d_mean(element: u32, gradient: f32) {
    d_mean[element] = gradient;
}

// Sums d_logp * (z^2 - 1), the slope of the log-probabilities in log_std, over the workgroup's samples into its row of partials. Up to
// 256 dimensions at a time; where there are fewer, several invocations share a dimension.
fn write_log_std_sums(group: u32, local: u32) {
    let first_row = group * WORKGROUP_SIZE;
    let rows = min(WORKGROUP_SIZE, max(params.batch, first_row) - first_row);
    for (var base = 0u; base < params.width; base += WORKGROUP_SIZE) {
        let columns = min(params.width - base, WORKGROUP_SIZE);
        let sharers = WORKGROUP_SIZE / columns;
        workgroupBarrier();
        if local < columns * sharers {
            let dimension = base + local % columns;
            let inverse_std = exp_of(-log_std_of(dimension));
            var sum = 0.0;
            for (var k = local / columns; k < rows; k += sharers) {
                let element = (first_row + k) * params.width + dimension;
                let z = (action_of(element) - mean_of_action(element)) * inverse_std;
                sum += times(sh_lanes[k], z * z - 1.0);
            }
            sh_sums[local] = sum;
        }
        workgroupBarrier();
        if local < columns && group < params.partial_rows {
            var sum = 0.0;
            for (var sharer = 0u; sharer < sharers; sharer++) {
                sum += sh_sums[sharer * columns + local];
            }
            partials[group * params.partial_width + SUMS + base + local] = sum;
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn gaussian(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, groups);
    let row = group * WORKGROUP_SIZE + local;
    stage_nothing(local);
    sh_lanes[local] = 0.0;
    if row < params.batch {
        let sample = samples[row];
        sh_lanes[local] = gaussian_loss(local, row * params.width, sample);
        var loss: SampleLoss;
        value_terms(values[row], sample, &loss);
        d_values[row] = loss.d_value;
        stage_value_sum(local, loss);
    }
    write_partial_sums(group, local);
    write_log_std_sums(group, local);
}

// ------------------------------------------------------------------------------------------------ early stop

@compute @workgroup_size(1)
fn stop_on_kl() {
    if control[STOP] == 0u && stats[stop_params.stats_row * STATS_COLUMNS + STAT_APPROX_KL] > stop_params.threshold {
        control[STOP] = TARGET_KL;
    }
}
