// PPO's objective, its gradient, and the statistics everybody logs.
//
//   log_ratio  = logp - old_logp,  ratio = exp(log_ratio),  clipped_ratio = clamp(ratio, ratio_low, ratio_high)
//   pg_loss    = max(-A * ratio, -A * clipped_ratio), at most -dual_clip * A where A < 0
//   v_loss     = (v - R)^2 / 2, or the larger of that and (old_v + clamp(v - old_v, +-range) - R)^2 / 2, or Huber's
//   kl_penalty = exp(-log_ratio) - 1 + log_ratio
//   loss       = mean(pg_loss) - ent_coef * mean(entropy) + vf_coef * mean(v_loss) + kl_coef * mean(kl_penalty)
//
// Gradients are of loss. Where max, min and clamp have a choice they are those of torch's autograd: a ratio or value on the edge of its clip
// counts as inside, and two equal squares of a clipped value share the gradient, as do two equal sides of the dual clip.
//
//   elementwise       d loss / d logp and d loss / d value from log-probs, for any distribution
//   categorical       the same through log-softmax: d loss / d logits
//   gaussian          the same through a diagonal Gaussian whose log_std [dim] is shared by the batch: d_mean, and sums for d_log_std
//   finish            partial sums to a row of stats;  finish_gaussian  also to d_log_std
//   entropy_gradient  d_entropy[i] = -ent_coef / batch, for the composition of plain operations
//   stop_on_kl        control[STOP] = TARGET_KL if stats[row, APPROX_KL] > threshold and nothing stopped before
//
// Shapes        samples [batch, 4] = (old_logp, advantage, return, old_value); values, logp, entropy, d_logp, d_values [batch];
//               terms [batch, 8]; logits, mask, d_logits [batch, width]; mean, d_mean, actions of the Gaussian [batch, width];
//               log_std, d_log_std [width] from their offsets on; partials [partial_rows, partial_width]; stats [rows, 16]; control [4]
// Grid          one workgroup a row of partials, linear, folded into two dimensions past 65 535: it takes 256 samples, in `categorical`
//               256 / LANES. finish: one workgroup; finish_gaussian: one for each 8 columns of partials
// Workgroup     256 invocations, one a sample; in `categorical` LANES a sample, side by side in its row
// Bindings      0 params; 1 samples, 2 values, 3 d_values, 4 partials, 5 stats; elementwise: 6 logp, 7 entropy, 8 terms, 9 d_logp;
//               categorical: 10 logits, 11 mask, 12 actions, 13 d_logits (anything may be bound as the mask where MASKED = 0);
//               gaussian: 14 mean, 15 log_std, 16 its actions, 17 d_mean, finish_gaussian: 18 d_log_std; 19 d_entropy, 20 control
// Preconditions batch, width >= 1; batch * width < 2^32. An action that is no index gives NaN. A masked action has logp 0 without gradient
//               Indices proven: row < batch, j < width, group < partial_rows and an action from a buffer < width are compared first; rows of
//               partials hold 8 columns and, rounded up to 8, width more; the mask is read only where MASKED
// Determinism   every sum has one order that depends on the shapes alone
// Range         a log_ratio above 88 makes ratio infinite, and below -88 kl_penalty: nothing is clamped in silence. The latter stays out of
//               loss and gradient where kl_coef = 0
// Tolerance     kernels/surrogate/tolerance.rs

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

struct StopParams {
    stats_row: u32,
    threshold: f32,
}

override MASKED: u32 = 0u;

const WORKGROUP_SIZE = 256u;
const FINISH_SEGMENTS = 32u;

const STOP = 0u;
const TARGET_KL = 1u;

@group(0) @binding(0) var<uniform> params: SurrogateParams;
@group(0) @binding(0) var<uniform> stop_params: StopParams;
@group(0) @binding(1) var<storage, read> samples: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_values: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;
@group(0) @binding(5) var<storage, read_write> stats: array<f32>;
@group(0) @binding(6) var<storage, read> logp: array<f32>;
@group(0) @binding(7) var<storage, read> entropy: array<f32>;
@group(0) @binding(8) var<storage, read_write> terms: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> d_logp: array<f32>;
@group(0) @binding(10) var<storage, read> logits: array<f32>;
@group(0) @binding(11) var<storage, read> mask: array<u32>;
@group(0) @binding(12) var<storage, read> actions: array<u32>;
@group(0) @binding(13) var<storage, read_write> d_logits: array<f32>;
@group(0) @binding(14) var<storage, read> mean: array<f32>;
@group(0) @binding(15) var<storage, read> log_std: array<f32>;
@group(0) @binding(16) var<storage, read> gaussian_actions: array<f32>;
@group(0) @binding(17) var<storage, read_write> d_mean: array<f32>;
@group(0) @binding(18) var<storage, read_write> d_log_std: array<f32>;
@group(0) @binding(19) var<storage, read_write> d_entropy: array<f32>;
@group(0) @binding(20) var<storage, read_write> control: array<u32>;

// ------------------------------------------------------------------------------------------------ sums

fn store_partial(index: u32, sum: f32) {
    partials[index] = sum;
}

fn workgroup_index(workgroup: vec3<u32>, groups: vec3<u32>) -> u32 {
    return workgroup.y * groups.x + workgroup.x;
}

// Sums 8 neighbouring columns of partials over all its rows into sh_segments[0..8].
fn sum_columns(first_column: u32, local: u32) {
    var sum = 0.0;
    for (var row = local / SUMS; row < params.partial_rows; row += FINISH_SEGMENTS) {
        sum += partials[row * params.partial_width + first_column + local % SUMS];
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
                sum += sh_lanes[k] * (z * z - 1.0);
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
