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

override LANES: u32 = 1u;
override MASKED: u32 = 0u;

const WORKGROUP_SIZE = 256u;
const SEGMENTS = 16u;
const FINISH_SEGMENTS = 32u;

const OLD_LOGP = 0u;
const ADVANTAGE = 1u;
const RETURN = 2u;
const OLD_VALUE = 3u;

const VALUE_LOSS_CLIPPED = 1u;
const VALUE_LOSS_HUBER = 2u;

// Columns of partials; those of d_log_std follow.
const SUMS = 8u;
const SUM_PG_LOSS = 0u;
const SUM_V_LOSS = 1u;
const SUM_ENTROPY = 2u;
const SUM_K1 = 3u;
const SUM_K3 = 4u;
const SUM_OUTSIDE = 5u;
const SUM_KL_PENALTY = 6u;
const SUM_PG_LOSS_REST = 7u;

const STATS_COLUMNS = 16u;
const STAT_LOSS = 0u;
const STAT_PG_LOSS = 1u;
const STAT_V_LOSS = 2u;
const STAT_ENTROPY = 3u;
const STAT_OLD_APPROX_KL = 4u;
const STAT_APPROX_KL = 5u;
const STAT_CLIPFRAC = 6u;
const STAT_KL_PENALTY = 10u;

const STOP = 0u;
const TARGET_KL = 1u;

// Below every f32 that is not infinite.
const LOWEST = -3.4028234e38;
// log(2 pi) / 2 in two parts: the first has so few bits that its product with any width below 2^16 is exact.
const HALF_LOG_2PI_HIGH = 0.91796875;
const HALF_LOG_2PI_LOW = 0.00096978320467;

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

var<workgroup> sh_sums: array<f32, SUMS * WORKGROUP_SIZE>;
var<workgroup> sh_segments: array<f32, SUMS * SEGMENTS>;
var<workgroup> sh_lanes: array<f32, WORKGROUP_SIZE>;

// ------------------------------------------------------------------------------------------------ the loss of one sample

// e^x to a unit in the last place: e^r by its series, r = x - n ln 2, times 2^n. The builtin of some devices always errs to the same side,
// and then so do means over samples, in which errors should cancel. Beyond the normal range, and for NaN, the builtin.
fn exp_of(x: f32) -> f32 {
    let parts = exp_parts(x);
    return parts.x + parts.y;
}

// The same as a power of two and what that lacks: whoever multiplies by the one and by the other shares no rounding with anybody else.
fn exp_parts(x: f32) -> vec2<f32> {
    if !(abs(x) < 86.0) {
        return vec2<f32>(exp(x), 0.0);
    }
    let n = round(x * 1.4426950409);
    let r = (x - n * 0.693359375) + n * 2.12194440e-4; // ln 2 in two parts, the first, 355/512, times n is exact
    let series = 0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))));
    let power = bitcast<f32>(u32(i32(n) + 127) << 23u);
    return power * vec2<f32>(1.0, r + r * r * series);
}

// The multiple of 2^-12 next to x, as long as x is small enough to have digits after that, and the rest. Multiples add up without rounding.
fn coarse_and_rest(x: f32) -> vec2<f32> {
    let coarse = select(x, round(x * 4096.0) / 4096.0, abs(x) < 2048.0);
    return vec2<f32>(coarse, select(x - coarse, 0.0, x == coarse));
}

struct SampleLoss {
    log_ratio: f32,
    ratio: f32,
    clipped_ratio: f32,
    pg_loss: f32,
    pg_loss_parts: vec2<f32>,
    clipped_value: f32,
    v_loss: f32,
    k3: f32,
    kl_penalty: f32,
    outside: f32,
    d_logp: f32,
    d_value: f32,
}

// e^x - 1 - x and e^-x - 1 + x, whose terms cancel for small x: there by their series, split into even and odd powers.
fn exp_residuals(x: f32, exp_x: f32, exp_minus_x: f32) -> vec2<f32> {
    if abs(x) >= 1.0 {
        return vec2<f32>((exp_x - 1.0) - x, (exp_minus_x - 1.0) + x);
    }
    let x2 = x * x;
    let even = 1.0 / 2.0 + x2 * (1.0 / 24.0 + x2 * (1.0 / 720.0 + x2 * (1.0 / 40320.0 + x2 * (1.0 / 3628800.0 + x2 / 479001600.0))));
    let odd = 1.0 / 6.0 + x2 * (1.0 / 120.0 + x2 * (1.0 / 5040.0 + x2 * (1.0 / 362880.0 + x2 / 39916800.0)));
    return x2 * vec2<f32>(even + x * odd, even - x * odd);
}

fn value_terms(value: f32, sample: vec4<f32>, loss: ptr<function, SampleLoss>) {
    let error = value - sample[RETURN];
    var clipped_value = value;
    var v_loss = 0.5 * error * error;
    var slope = error;
    if params.value_loss == VALUE_LOSS_CLIPPED {
        let moved = value - sample[OLD_VALUE];
        clipped_value = sample[OLD_VALUE] + clamp(moved, -params.value_range, params.value_range);
        let clipped_error = clipped_value - sample[RETURN];
        let clipped_loss = 0.5 * clipped_error * clipped_error;
        if abs(moved) > params.value_range {
            if clipped_loss > v_loss {
                slope = 0.0;
            } else if clipped_loss == v_loss {
                slope = 0.5 * error;
            }
        }
        if clipped_loss > v_loss {
            v_loss = clipped_loss;
        }
    } else if params.value_loss == VALUE_LOSS_HUBER {
        if abs(error) < params.value_range {
            slope = error / params.value_range;
            v_loss = 0.5 * error * slope;
        } else {
            slope = sign(error);
            v_loss = abs(error) - 0.5 * params.value_range;
        }
    }
    (*loss).clipped_value = clipped_value;
    (*loss).v_loss = v_loss;
    (*loss).d_value = params.vf_coef * slope * params.one_over_batch;
}

fn loss_terms(log_ratio: f32, value: f32, sample: vec4<f32>) -> SampleLoss {
    var loss: SampleLoss;
    let advantage = sample[ADVANTAGE];
    let ratio = exp_of(log_ratio);
    let above_low = select(ratio, params.ratio_low, ratio < params.ratio_low);
    let clipped_ratio = select(above_low, params.ratio_high, ratio > params.ratio_high);
    // -A is the slope of the loss in ratio; slope * ratio its derivative with respect to logp.
    let inverse_ratio = exp_of(-log_ratio);
    let residuals = exp_residuals(log_ratio, ratio, inverse_ratio);
    var pg_loss = -advantage * ratio;
    var pg_loss_parts = vec2<f32>(pg_loss, 0.0);
    if abs(log_ratio) < 0.5 {
        pg_loss_parts = -advantage * vec2<f32>(1.0, log_ratio + residuals.x);
    }
    var slope = -advantage;
    if (advantage > 0.0 && ratio > params.ratio_high) || (advantage < 0.0 && ratio < params.ratio_low) {
        pg_loss = -advantage * clipped_ratio;
        pg_loss_parts = vec2<f32>(pg_loss, 0.0);
        slope = 0.0;
    }
    if advantage < 0.0 && ratio >= params.dual_clip {
        pg_loss = -advantage * params.dual_clip;
        pg_loss_parts = vec2<f32>(pg_loss, 0.0);
        slope = select(0.0, -0.5 * advantage, ratio == params.dual_clip);
    }
    var d_log_ratio = select(slope * ratio, 0.0, slope == 0.0);
    let kl_penalty = residuals.y;
    if params.kl_coef != 0.0 {
        // 1 - e^-log_ratio, from the residual where its terms would cancel.
        d_log_ratio += params.kl_coef * select(1.0 - inverse_ratio, log_ratio - kl_penalty, abs(log_ratio) < 1.0);
    }
    loss.log_ratio = log_ratio;
    loss.ratio = ratio;
    loss.clipped_ratio = clipped_ratio;
    loss.pg_loss = pg_loss;
    loss.pg_loss_parts = pg_loss_parts;
    loss.k3 = residuals.x;
    loss.kl_penalty = kl_penalty;
    loss.outside = select(0.0, 1.0, ratio < params.ratio_low || ratio > params.ratio_high);
    loss.d_logp = d_log_ratio * params.one_over_batch;
    value_terms(value, sample, &loss);
    return loss;
}

// ------------------------------------------------------------------------------------------------ sums

fn workgroup_index(workgroup: vec3<u32>, groups: vec3<u32>) -> u32 {
    return workgroup.y * groups.x + workgroup.x;
}

fn stage_nothing(local: u32) {
    for (var column = 0u; column < SUMS; column++) {
        sh_sums[local * SUMS + column] = 0.0;
    }
}

// Surrogate losses all but cancel where advantages are normalised: hence the two columns.
fn stage_sums(local: u32, loss: SampleLoss, sample_entropy: f32) {
    let pg_loss = coarse_and_rest(loss.pg_loss_parts.x);
    sh_sums[local * SUMS + SUM_PG_LOSS] = pg_loss.x;
    sh_sums[local * SUMS + SUM_PG_LOSS_REST] = pg_loss.y + loss.pg_loss_parts.y;
    sh_sums[local * SUMS + SUM_V_LOSS] = loss.v_loss;
    sh_sums[local * SUMS + SUM_ENTROPY] = sample_entropy;
    sh_sums[local * SUMS + SUM_K1] = -loss.log_ratio;
    sh_sums[local * SUMS + SUM_K3] = loss.k3;
    sh_sums[local * SUMS + SUM_OUTSIDE] = loss.outside;
    sh_sums[local * SUMS + SUM_KL_PENALTY] = loss.kl_penalty;
}

// Adds what the workgroup's invocations have staged, 256 -> 16 -> 1 in each column, into its row of partials.
fn write_partial_sums(group: u32, local: u32) {
    workgroupBarrier();
    if local < SUMS * SEGMENTS {
        let rows = WORKGROUP_SIZE / SEGMENTS;
        let first = (local / SUMS) * rows;
        var sum = 0.0;
        for (var k = first; k < first + rows; k++) {
            sum += sh_sums[k * SUMS + local % SUMS];
        }
        sh_segments[local] = sum;
    }
    workgroupBarrier();
    if local < SUMS && group < params.partial_rows {
        var sum = 0.0;
        for (var segment = 0u; segment < SEGMENTS; segment++) {
            sum += sh_segments[segment * SUMS + local];
        }
        partials[group * params.partial_width + local] = sum;
    }
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

fn mean_of(column: u32) -> f32 {
    return sh_segments[column] * params.one_over_batch;
}

fn write_stats() {
    let pg_loss = (sh_segments[SUM_PG_LOSS] + sh_segments[SUM_PG_LOSS_REST]) * params.one_over_batch;
    let row = params.stats_row * STATS_COLUMNS;
    let kl_penalty = mean_of(SUM_KL_PENALTY);
    var loss = pg_loss - params.ent_coef * mean_of(SUM_ENTROPY) + params.vf_coef * mean_of(SUM_V_LOSS);
    if params.kl_coef != 0.0 {
        loss += params.kl_coef * kl_penalty;
    }
    stats[row + STAT_LOSS] = loss;
    stats[row + STAT_PG_LOSS] = pg_loss;
    stats[row + STAT_V_LOSS] = mean_of(SUM_V_LOSS);
    stats[row + STAT_ENTROPY] = mean_of(SUM_ENTROPY);
    stats[row + STAT_OLD_APPROX_KL] = mean_of(SUM_K1);
    stats[row + STAT_APPROX_KL] = mean_of(SUM_K3);
    stats[row + STAT_CLIPFRAC] = mean_of(SUM_OUTSIDE);
    stats[row + STAT_KL_PENALTY] = kl_penalty;
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
        let loss = loss_terms(logp[i] - samples[i][OLD_LOGP], values[i], samples[i]);
        terms[2u * i] = vec4<f32>(loss.log_ratio, loss.ratio, loss.clipped_ratio, loss.pg_loss);
        terms[2u * i + 1u] = vec4<f32>(loss.clipped_value, loss.v_loss, 0.0, 0.0);
        d_logp[i] = loss.d_logp;
        d_values[i] = loss.d_value;
        stage_sums(local, loss, entropy[i]);
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

// log(1 + x), x >= 0, also where 1 + x would round x away: 2 artanh(x / (2 + x)) as a series.
fn log_1_plus(x: f32) -> f32 {
    if x > 1.0 {
        return log(1.0 + x);
    }
    let t = x / (2.0 + x);
    let t2 = t * t;
    return 2.0 * t * (1.0 + t2 * (1.0 / 3.0 + t2 * (0.2 + t2 * (1.0 / 7.0 + t2 * (1.0 / 9.0 + t2 * (1.0 / 11.0 + t2 * (1.0 / 13.0 + t2 / 15.0)))))));
}

// The sum, or the maximum, over the LANES invocations of a row: each reads all of them in the same order.
fn row_sum(local: u32, value: f32) -> f32 {
    if LANES == 1u {
        return value;
    }
    workgroupBarrier();
    sh_lanes[local] = value;
    workgroupBarrier();
    let first = local - local % LANES;
    var sum = 0.0;
    for (var lane = 0u; lane < LANES; lane++) {
        sum += sh_lanes[first + lane];
    }
    return sum;
}

fn row_max(local: u32, value: f32) -> f32 {
    if LANES == 1u {
        return value;
    }
    workgroupBarrier();
    sh_lanes[local] = value;
    workgroupBarrier();
    let first = local - local % LANES;
    var largest = LOWEST;
    for (var lane = 0u; lane < LANES; lane++) {
        largest = max(largest, sh_lanes[first + lane]);
    }
    return largest;
}

fn is_valid(element: u32) -> bool {
    return MASKED == 0u || mask[element] != 0u;
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

    var largest = LOWEST;
    for (var j = lane; j < width; j += LANES) {
        if is_valid(first + j) {
            largest = max(largest, logits[first + j]);
        }
    }
    largest = row_max(local, largest);

    // Sum of e^z over z = logit - largest without the largest itself: small, and so precise, where one action is all but certain.
    var ties = 0.0;
    var others = 0.0;
    var weighted = 0.0;
    for (var j = lane; j < width; j += LANES) {
        if is_valid(first + j) {
            let z = logits[first + j] - largest;
            if z == 0.0 {
                ties += 1.0;
            } else {
                let exp_z = exp_of(z);
                others += exp_z;
                if exp_z > 0.0 {
                    weighted -= z * exp_z;
                }
            }
        }
    }
    ties = row_sum(local, ties);
    others = row_sum(local, others);
    weighted = row_sum(local, weighted);
    // A row without a valid action has logp 0 and entropy 0.
    let without_largest = select(others + (ties - 1.0), 0.0, ties == 0.0 && others == 0.0);
    let log_sum = log_1_plus(without_largest);
    let row_entropy = log_sum + weighted / (1.0 + without_largest);

    var slope = 0.0;
    var action = 0u;
    stage_nothing(local);
    if in_batch {
        action = actions[row];
        let old_logp = samples[row][OLD_LOGP];
        var log_ratio = params.not_a_number;
        var counts = 1.0;
        if action < width {
            // old_logp meets the sum first, which it nearly cancels: rounding logp by itself would cost digits.
            log_ratio = (logits[first + action] - largest) - (old_logp + log_sum);
            if !is_valid(first + action) {
                log_ratio = -old_logp;
                counts = 0.0;
            }
        }
        let loss = loss_terms(log_ratio, values[row], samples[row]);
        slope = counts * loss.d_logp;
        if lane == 0u {
            d_values[row] = loss.d_value;
            stage_sums(local, loss, row_entropy);
        }
    }

    let entropy_slope = -params.ent_coef * params.one_over_batch;
    for (var j = lane; j < width; j += LANES) {
        var gradient = 0.0;
        if is_valid(first + j) {
            let z = logits[first + j] - largest;
            let p = exp_of(z) / (1.0 + without_largest);
            gradient = slope * (select(0.0, 1.0, j == action) - p);
            if p > 0.0 {
                gradient -= entropy_slope * p * ((z - log_sum) + row_entropy);
            }
        }
        d_logits[first + j] = gradient;
    }
    write_partial_sums(group, local);
}

// ------------------------------------------------------------------------------------------------ Gaussian

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
            let inverse_std = exp_of(-log_std[params.log_std_offset + dimension]);
            var sum = 0.0;
            for (var k = local / columns; k < rows; k += sharers) {
                let element = (first_row + k) * params.width + dimension;
                let z = (gaussian_actions[element] - mean[element]) * inverse_std;
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
        let first = row * params.width;
        // Nothing is rounded for all samples alike, which would move all ratios. The constant meets old_logp first, which it nearly cancels.
        var minus_logp = vec2<f32>();
        var log_stds = 0.0;
        for (var d = 0u; d < params.width; d++) {
            let own_log_std = log_std[params.log_std_offset + d];
            let inverse_std = exp_parts(-own_log_std);
            let distance = gaussian_actions[first + d] - mean[first + d];
            // The last bit is cleared so that compilers do not take `distance` out of the sum.
            let rest = bitcast<f32>(bitcast<u32>(distance * inverse_std.y) & 0xfffffffeu);
            let z = distance * inverse_std.x + rest;
            minus_logp += coarse_and_rest(0.5 * z * z + own_log_std);
            log_stds += own_log_std;
        }
        let sample = samples[row];
        let width = f32(params.width);
        let log_ratio = ((-sample[OLD_LOGP] - width * HALF_LOG_2PI_HIGH) - minus_logp.x) - (minus_logp.y + width * HALF_LOG_2PI_LOW);
        let row_entropy = log_stds + width * (0.5 + HALF_LOG_2PI_HIGH + HALF_LOG_2PI_LOW);
        let loss = loss_terms(log_ratio, values[row], sample);
        for (var d = 0u; d < params.width; d++) {
            let inverse_std = exp_of(-log_std[params.log_std_offset + d]);
            let z = (gaussian_actions[first + d] - mean[first + d]) * inverse_std;
            d_mean[first + d] = loss.d_logp * z * inverse_std;
        }
        d_values[row] = loss.d_value;
        stage_sums(local, loss, row_entropy);
        sh_lanes[local] = loss.d_logp;
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
