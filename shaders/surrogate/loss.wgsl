// The loss of one sample and the sums over a workgroup, behind elementary.wgsl, for shaders that define
//   params          a uniform with the fields of SurrogateParams
//   WORKGROUP_SIZE  a multiple of SEGMENTS, and at least SUMS
//   store_partial   writes an element of partials [partial_rows, partial_width]
//   stats           an array of f32, rows of 16
//   logit, is_valid, store_d_logit, and mean_of_action, action_of, log_std_of, inverse_std_parts (exp_parts of the negative), store_d_mean: the
//                   policy's output, its actions, its gradient
// Formulas, range and tolerance: shared.wgsl.

override LANES: u32 = 1u;

const SEGMENTS = 16u;
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

// Below every f32 that is not infinite.
const LOWEST = -3.4028234e38;
// log(2 pi) / 2 in two parts: the first has so few bits that its product with any width below 2^16 is exact.
const HALF_LOG_2PI_HIGH = 0.91796875;
const HALF_LOG_2PI_LOW = 0.00096978320467;

var<workgroup> sh_sums: array<f32, SUMS * WORKGROUP_SIZE>;
var<workgroup> sh_segments: array<f32, SUMS * SEGMENTS>;
var<workgroup> sh_lanes: array<f32, WORKGROUP_SIZE>;

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

// factor * x, where a factor of 0 keeps out whatever x is: neither 0 * infinity nor 0 * NaN counts.
fn times(factor: f32, x: f32) -> f32 {
    return select(factor * x, 0.0, factor == 0.0);
}

// e^x - 1 - x and e^-x - 1 + x, whose terms cancel for small x: there by their series, split into even and odd powers. Both are infinite where x is.
fn exp_residuals(x: f32, exp_x: f32, exp_minus_x: f32) -> vec2<f32> {
    if abs(x) >= 1.0 {
        return vec2<f32>((exp_x - 1.0) - min(x, -LOWEST), (exp_minus_x - 1.0) + max(x, LOWEST));
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
        // In this order, so that NaN does not come to sign, which may drop it.
        if abs(error) >= params.value_range {
            slope = sign(error);
            v_loss = abs(error) - 0.5 * params.value_range;
        } else {
            slope = error / params.value_range;
            v_loss = 0.5 * error * slope;
        }
    }
    (*loss).clipped_value = clipped_value;
    (*loss).v_loss = v_loss;
    (*loss).d_value = times(params.vf_coef, slope) * params.one_over_batch;
}

// All but what value_terms adds.
fn policy_terms(log_ratio: f32, sample: vec4<f32>) -> SampleLoss {
    var loss: SampleLoss;
    let advantage = sample[ADVANTAGE];
    let ratio = exp_of(log_ratio);
    let above_low = select(ratio, params.ratio_low, ratio < params.ratio_low);
    let clipped_ratio = select(above_low, params.ratio_high, ratio > params.ratio_high);
    // -A is the slope of the loss in ratio; slope * ratio its derivative with respect to logp.
    let inverse_ratio = exp_of(-log_ratio);
    let residuals = exp_residuals(log_ratio, ratio, inverse_ratio);
    // An advantage of 0 has no loss, however large the ratio; one of no number, NaN, shows all the same.
    var pg_loss = select(-advantage * ratio, 0.0, advantage == 0.0 && !is_nan(log_ratio));
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
    var d_log_ratio = select(slope * ratio, 0.0, slope == 0.0 && !is_nan(log_ratio));
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
    return loss;
}

// ------------------------------------------------------------------------------------------------ sums

fn stage_nothing(local: u32) {
    for (var column = 0u; column < SUMS; column++) {
        sh_sums[local * SUMS + column] = 0.0;
    }
}

// Surrogate losses all but cancel where advantages are normalised: hence the two columns.
fn stage_policy_sums(local: u32, loss: SampleLoss, sample_entropy: f32) {
    let pg_loss = coarse_and_rest(loss.pg_loss_parts.x);
    sh_sums[local * SUMS + SUM_PG_LOSS] += pg_loss.x;
    sh_sums[local * SUMS + SUM_PG_LOSS_REST] += pg_loss.y + loss.pg_loss_parts.y;
    sh_sums[local * SUMS + SUM_ENTROPY] += sample_entropy;
    sh_sums[local * SUMS + SUM_K1] += -loss.log_ratio;
    sh_sums[local * SUMS + SUM_K3] += loss.k3;
    sh_sums[local * SUMS + SUM_OUTSIDE] += loss.outside;
    sh_sums[local * SUMS + SUM_KL_PENALTY] += loss.kl_penalty;
}

fn stage_value_sum(local: u32, loss: SampleLoss) {
    sh_sums[local * SUMS + SUM_V_LOSS] += loss.v_loss;
}

// Adds what the workgroup's invocations have staged, all -> 16 -> 1 in each column, into its row of partials.
fn write_partial_sums(group: u32, local: u32) {
    workgroupBarrier();
    for (var i = local; i < SUMS * SEGMENTS; i += WORKGROUP_SIZE) {
        let rows = WORKGROUP_SIZE / SEGMENTS;
        let first = (i / SUMS) * rows;
        var sum = 0.0;
        for (var k = first; k < first + rows; k++) {
            sum += sh_sums[k * SUMS + i % SUMS];
        }
        sh_segments[i] = sum;
    }
    workgroupBarrier();
    if local < SUMS && group < params.partial_rows {
        var sum = 0.0;
        for (var segment = 0u; segment < SEGMENTS; segment++) {
            sum += sh_segments[segment * SUMS + local];
        }
        store_partial(group * params.partial_width + local, sum);
    }
}

// From here on sh_segments holds the sums of all rows of partials, column by column.

fn mean_of(column: u32) -> f32 {
    return sh_segments[column] * params.one_over_batch;
}

fn write_stats() {
    let pg_loss = (sh_segments[SUM_PG_LOSS] + sh_segments[SUM_PG_LOSS_REST]) * params.one_over_batch;
    let row = params.stats_row * STATS_COLUMNS;
    let kl_penalty = mean_of(SUM_KL_PENALTY);
    let loss = pg_loss - times(params.ent_coef, mean_of(SUM_ENTROPY)) + times(params.vf_coef, mean_of(SUM_V_LOSS)) + times(params.kl_coef, kl_penalty);
    stats[row + STAT_LOSS] = loss;
    stats[row + STAT_PG_LOSS] = pg_loss;
    stats[row + STAT_V_LOSS] = mean_of(SUM_V_LOSS);
    stats[row + STAT_ENTROPY] = mean_of(SUM_ENTROPY);
    stats[row + STAT_OLD_APPROX_KL] = mean_of(SUM_K1);
    stats[row + STAT_APPROX_KL] = mean_of(SUM_K3);
    stats[row + STAT_CLIPFRAC] = mean_of(SUM_OUTSIDE);
    stats[row + STAT_KL_PENALTY] = kl_penalty;
}

// ------------------------------------------------------------------------------------------------ policies

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

// Through log-softmax, with LANES invocations a row that all get here: stages the sums of a sample, stores the gradient of its logits, those
// of the row's elements first .. first + width.
fn categorical_loss(local: u32, lane: u32, first: u32, width: u32, in_batch: bool, action: u32, sample: vec4<f32>) {
    var largest = LOWEST;
    for (var j = lane; j < width; j += LANES) {
        if is_valid(first + j) {
            largest = max(largest, logit(first + j));
        }
    }
    largest = row_max(local, largest);

    // Sum of e^z over z = logit - largest without the largest itself: small, and so precise, where one action is all but certain.
    var ties = 0.0;
    var others = 0.0;
    var weighted = 0.0;
    for (var j = lane; j < width; j += LANES) {
        if is_valid(first + j) {
            let z = logit(first + j) - largest;
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
    if in_batch {
        let old_logp = sample[OLD_LOGP];
        var log_ratio = params.not_a_number;
        var counts = 1.0;
        if action < width {
            // old_logp meets the sum first, which it nearly cancels: rounding logp by itself would cost digits.
            log_ratio = (logit(first + action) - largest) - (old_logp + log_sum);
            if !is_valid(first + action) {
                log_ratio = -old_logp;
                counts = 0.0;
            }
        }
        let loss = policy_terms(log_ratio, sample);
        slope = counts * loss.d_logp;
        if lane == 0u {
            stage_policy_sums(local, loss, row_entropy);
        }
    }

    let entropy_slope = -params.ent_coef * params.one_over_batch;
    for (var j = lane; j < width; j += LANES) {
        var gradient = 0.0;
        if is_valid(first + j) {
            let z = logit(first + j) - largest;
            let p = exp_of(z) / (1.0 + without_largest);
            gradient = slope * (select(0.0, 1.0, j == action) - p);
            if p > 0.0 {
                // The slope last: times p it may be too small for devices without subnormal numbers, although all three factors are not.
                gradient -= p * ((z - log_sum) + row_entropy) * entropy_slope;
            }
        }
        store_d_logit(first + j, gradient);
    }
}

// Through a diagonal Gaussian: stages the sums of a sample, stores the gradient of its mean, and returns that of its logp.
fn gaussian_loss(local: u32, first: u32, sample: vec4<f32>) -> f32 {
    // Nothing is rounded for all samples alike, which would move all ratios. The constant meets old_logp first, which it nearly cancels.
    var minus_logp = vec2<f32>();
    var log_stds = 0.0;
    for (var d = 0u; d < params.width; d++) {
        let own_log_std = log_std_of(d);
        let inverse_std = inverse_std_parts(d);
        let distance = action_of(first + d) - mean_of_action(first + d);
        // The last bit is cleared so that compilers do not take `distance` out of the sum.
        let rest = bitcast<f32>(bitcast<u32>(distance * inverse_std.y) & 0xfffffffeu);
        let z = distance * inverse_std.x + rest;
        minus_logp += coarse_and_rest(0.5 * z * z + own_log_std);
        log_stds += own_log_std;
    }
    let width = f32(params.width);
    let log_ratio = ((-sample[OLD_LOGP] - width * HALF_LOG_2PI_HIGH) - minus_logp.x) - (minus_logp.y + width * HALF_LOG_2PI_LOW);
    let row_entropy = log_stds + width * (0.5 + HALF_LOG_2PI_HIGH + HALF_LOG_2PI_LOW);
    let loss = policy_terms(log_ratio, sample);
    for (var d = 0u; d < params.width; d++) {
        let parts = inverse_std_parts(d);
        let inverse_std = parts.x + parts.y;
        let z = (action_of(first + d) - mean_of_action(first + d)) * inverse_std;
        store_d_mean(first + d, select(loss.d_logp * z * inverse_std, 0.0, loss.d_logp == 0.0));
    }
    stage_policy_sums(local, loss, row_entropy);
    return loss.d_logp;
}
