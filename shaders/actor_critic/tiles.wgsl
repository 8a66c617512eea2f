// Samples, a tile a workgroup, behind shared.wgsl: the form for hardware. A layer's weights are read once for all samples of a tile, whose
// activations stay in workgroup memory; gradients of parameters are summed over the tiles of a workgroup, then over workgroups.
// Header: shared.wgsl.
//
// In `packed` a layer's weights are [vectors of inputs, outputs]: consecutive invocations make consecutive outputs of one pair of samples, and
// read consecutive vectors. On the way back each reads consecutive vectors itself, near its own inputs: the cache has them from the way there.
// Invocations are shared out by constants: a division by a parameter is some twenty instructions, each waiting for the one before.

// What an invocation of update_parameters takes: one vector, of which it reads squares by itself.
const VECTORS_EACH = 1u;
const BLOCK = 1u;
const own_of_block = 0u;

fn join_subgroup() {}

fn word_of_block(own: u32, i: u32) -> u32 {
    return own;
}

// Vectors of four that are kept of a sample: observation, hidden activations and output.
override KEPT: u32 = 40u;
// Those of the outputs of the widest layer.
override WIDEST: u32 = 16u;
// Samples of a tile.
const TILE = 8u;
const TILE_LANES = 256u;
const SUM_LANES = 128u;
// Vectors between samples in workgroup memory: not a multiple of 8, so that the same vector of eight samples lies in different banks.
override STRIDE: u32 = KEPT + 1u;
override OUTPUTS: u32 = 4u * WIDEST;
// Invocations for each sample, each pair of samples, and each vector of outputs whose weights' gradients they make.
const SAMPLE_LANES = TILE_LANES / TILE;
const PAIR_LANES = 2u * SAMPLE_LANES;
const ROW_LANES = 16u;

@group(0) @binding(30) var<storage, read> packed_weights: array<vec4<f32>>;
// Of each workgroup in x the gradients, as in `packed` but with weights [outputs, vectors of inputs]; then partials [partial_rows, partial_width], a vector each: several
// invocations must not write elements of one vector, which Metal reads and writes as a whole.
@group(0) @binding(31) var<storage, read_write> tile_gradients: array<vec4<f32>>;

// Sizes that have no name naga 30 does not get over.
override KEPT_OF_TILE: u32 = TILE * STRIDE;
override OUTPUTS_OF_TILE: u32 = TILE * OUTPUTS;

// Observations, activations and output, of which all above the layer in hand have become gradients on the way back.
var<workgroup> sh_kept: array<vec4<f32>, KEPT_OF_TILE>;
// Before activation [TILE, OUTPUTS], one by one, for the same reason.
var<workgroup> sh_outputs: array<f32, OUTPUTS_OF_TILE>;
var<workgroup> sh_rows: array<u32, TILE>;
// Actions of a Gaussian, in rows of OUTPUTS, and of each of its dimensions 1 / std in two parts, and log_std: read by all invocations together,
// before the few that make losses of them would wait for one after the other.
var<workgroup> sh_actions: array<u32, OUTPUTS_OF_TILE>;
var<workgroup> sh_std: array<vec4<f32>, OUTPUTS>;

var<private> output_at: u32;
// The sample of a tile whose loss is this invocation's.
var<private> own_sample: u32;
var<private> source_row: u32;
// The sum of a column of partials over tiles.
var<private> own_partial: f32;

fn packed_place(i: u32, row: u32, column_vector: u32, at: vec4<u32>) -> u32 {
    return at.z + column_vector * 4u * at.y + row;
}

// ------------------------------------------------------------------------------------------------ a tile through a network

fn eight_in_turn(first: u32, stride: u32) -> Eight {
    return Eight(
        packed_weights[first],
        packed_weights[first + stride],
        packed_weights[first + 2u * stride],
        packed_weights[first + 3u * stride],
        packed_weights[first + 4u * stride],
        packed_weights[first + 5u * stride],
        packed_weights[first + 6u * stride],
        packed_weights[first + 7u * stride],
    );
}

fn along_eight(w: Eight, h: u32) -> vec4<f32> {
    return w.a * sh_kept[h] + w.b * sh_kept[h + 1u] + w.c * sh_kept[h + 2u] + w.d * sh_kept[h + 3u]
        + w.e * sh_kept[h + 4u] + w.f * sh_kept[h + 5u] + w.g * sh_kept[h + 6u] + w.h * sh_kept[h + 7u];
}

// Observations of the tile's samples, in rows `sh_rows`.
fn load_observations(local: u32) {
    let s = local / SAMPLE_LANES;
    for (var k = local % SAMPLE_LANES; k < params.observation_vectors; k += SAMPLE_LANES) {
        let first = params.observations_offset + sh_rows[s] * params.observation_size;
        // All four are read, whether or not they are there, so that none waits for another.
        let at = 4u * k + vec4<u32>(0u, 1u, 2u, 3u);
        let i4 = first + min(at, vec4<u32>(params.observation_size - 1u));
        let read = vec4<f32>(observations[i4.x], observations[i4.y], observations[i4.z], observations[i4.w]);
        sh_kept[s * STRIDE + k] = select(vec4<f32>(), read, at < vec4<u32>(params.observation_size));
    }
    workgroupBarrier();
}

// Of the same samples, to be read after the next barrier.
fn load_actions(local: u32) {
    let s = local / SAMPLE_LANES;
    for (var d = local % SAMPLE_LANES; d < params.width; d += SAMPLE_LANES) {
        sh_actions[s * OUTPUTS + d] = actions[sh_rows[s] * params.width + d];
    }
}

fn load_stds(local: u32) {
    for (var d = local; d < params.width; d += TILE_LANES) {
        let own_log_std = packed_weights[params.packed_log_std + d / 4u][d % 4u];
        sh_std[d] = vec4<f32>(exp_parts(-own_log_std), own_log_std, 0.0);
    }
}

fn forward(local: u32, first_layer: u32, layers: u32) {
    var input_at = 0u;
    output_at = params.observation_vectors;
    for (var l = 0u; l < layers; l++) {
        let at = params.packed_layers[first_layer + l];
        let outputs = 4u * at.y;
        let pair = local / PAIR_LANES;
        for (var o = local % PAIR_LANES; o < outputs; o += PAIR_LANES) {
            let one = 2u * pair * STRIDE + input_at;
            let other = one + STRIDE;
            let w = at.z + o;
            var sum = vec4<f32>();
            var other_sum = vec4<f32>();
            var k = 0u;
            // Eight at a time, so that their loads are on their way together; sizes are multiples of two vectors.
            for (; k + 8u <= at.x; k += 8u) {
                let eight = eight_in_turn(w + k * outputs, outputs);
                sum += along_eight(eight, one + k);
                other_sum += along_eight(eight, other + k);
            }
            for (; k < at.x; k += 2u) {
                let even = packed_weights[w + k * outputs];
                let odd = packed_weights[w + (k + 1u) * outputs];
                sum += even * sh_kept[one + k] + odd * sh_kept[one + k + 1u];
                other_sum += even * sh_kept[other + k] + odd * sh_kept[other + k + 1u];
            }
            let bias = packed_weights[at.w + o / 4u][o % 4u];
            sh_outputs[2u * pair * OUTPUTS + o] = ((sum.x + sum.y) + (sum.z + sum.w)) + bias;
            sh_outputs[(2u * pair + 1u) * OUTPUTS + o] = ((other_sum.x + other_sum.y) + (other_sum.z + other_sum.w)) + bias;
        }
        workgroupBarrier();
        let s = local / SAMPLE_LANES;
        for (var o = local % SAMPLE_LANES; o < at.y; o += SAMPLE_LANES) {
            let first = s * OUTPUTS + 4u * o;
            let y = vec4<f32>(sh_outputs[first], sh_outputs[first + 1u], sh_outputs[first + 2u], sh_outputs[first + 3u]);
            if l + 1u < layers {
                sh_kept[s * STRIDE + output_at + o] = activate_all(y);
            } else {
                sh_kept[s * STRIDE + output_at + o] = y;
            }
        }
        workgroupBarrier();
        if l + 1u < layers {
            input_at = output_at;
            output_at += at.y;
        }
    }
}

// The tile's share of a layer's gradient, added to that of the workgroup's tiles before.
fn add_gradient(local: u32, at: vec4<u32>, above: u32, first: u32, is_first: bool) {
    for (var o = local / ROW_LANES; o < at.y; o += TILE_LANES / ROW_LANES) {
        for (var k = local % ROW_LANES; k < at.x; k += ROW_LANES) {
            var a = vec4<f32>();
            var b = vec4<f32>();
            var c = vec4<f32>();
            var d = vec4<f32>();
            var bias = vec4<f32>();
            for (var s = 0u; s < TILE; s++) {
                let gradient = sh_kept[s * STRIDE + above + o];
                let h = sh_kept[s * STRIDE + above - at.x + k];
                a += gradient.x * h;
                b += gradient.y * h;
                c += gradient.z * h;
                d += gradient.w * h;
                bias += gradient;
            }
            let row = first + at.z + 4u * o * at.x + k;
            add_tile_gradient(row, a, is_first);
            add_tile_gradient(row + at.x, b, is_first);
            add_tile_gradient(row + 2u * at.x, c, is_first);
            add_tile_gradient(row + 3u * at.x, d, is_first);
            if k == 0u {
                add_tile_gradient(first + at.w + o, bias, is_first);
            }
        }
    }
}

fn add_tile_gradient(i: u32, gradient: vec4<f32>, is_first: bool) {
    if is_first {
        tile_gradients[i] = gradient;
    } else {
        tile_gradients[i] += gradient;
    }
}

// d = (Wᵀ d) ⊙ act′(h), in the place of h, which nobody else needs any more.
fn pass_down(local: u32, at: vec4<u32>, above: u32) {
    for (var i = local; i < TILE * at.x; i += TILE_LANES) {
        let s = i % TILE;
        let k = i / TILE;
        let first = at.z + k * 4u * at.y;
        let gradients = s * STRIDE + above;
        var sum = vec4<f32>();
        for (var o = 0u; o < at.y; o += 2u) {
            let w = eight_in_turn(first + 4u * o, 1u);
            let low = sh_kept[gradients + o];
            let high = sh_kept[gradients + o + 1u];
            sum += low.x * w.a + low.y * w.b + low.z * w.c + low.w * w.d;
            sum += high.x * w.e + high.y * w.f + high.z * w.g + high.w * w.h;
        }
        let own = gradients - at.x + k;
        sh_kept[own] = sum * derivatives(sh_kept[own]);
    }
}

fn backward(local: u32, first_layer: u32, layers: u32, first: u32, is_first: bool) {
    var above = output_at;
    for (var l = layers; l > 0u; l--) {
        let at = params.packed_layers[first_layer + l - 1u];
        add_gradient(local, at, above, first, is_first);
        workgroupBarrier();
        if l > 1u {
            pass_down(local, at, above);
        }
        workgroupBarrier();
        above -= at.x;
    }
}

// ------------------------------------------------------------------------------------------------ what the loss asks for

fn place_of_output(o: u32) -> u32 {
    return own_sample * STRIDE + output_at + o / 4u;
}

fn logit(action: u32) -> f32 {
    return sh_kept[place_of_output(action)][action % 4u];
}

fn store_d_logit(action: u32, gradient: f32) {
    sh_kept[place_of_output(action)][action % 4u] = gradient;
}

fn action_of(dimension: u32) -> f32 {
    return bitcast<f32>(sh_actions[own_sample * OUTPUTS + dimension]);
}

fn log_std_of(dimension: u32) -> f32 {
    return sh_std[dimension].z;
}

fn inverse_std_parts(dimension: u32) -> vec2<f32> {
    return sh_std[dimension].xy;
}

// Keeps z² - 1, the slope of logp in log_std, before the mean is gone.
fn store_d_mean(dimension: u32, gradient: f32) {
    let parts = inverse_std_parts(dimension);
    let z = (action_of(dimension) - mean_of_action(dimension)) * (parts.x + parts.y);
    sh_outputs[own_sample * OUTPUTS + dimension] = z * z - 1.0;
    store_d_logit(dimension, gradient);
}

fn store_partial(index: u32, sum: f32) {
    let first = params.partial_rows / 2u * params.packed_vectors;
    tile_gradients[first + index] = vec4<f32>(sum, 0.0, 0.0, 0.0);
}

// An invocation a column of partials: what the tile's samples have staged, and d_logp (z² - 1) of each dimension.
fn add_partials(local: u32, is_gaussian: bool) {
    for (var s = 0u; s < TILE; s++) {
        if local < SUMS {
            own_partial += sh_sums[s * SUMS + local];
        } else if is_gaussian && local < SUMS + params.width {
            let d_logp = sh_lanes[s];
            // A sample past the end adds nothing.
            own_partial += select(d_logp * sh_outputs[s * OUTPUTS + local - SUMS], 0.0, d_logp == 0.0);
        }
    }
}

// ------------------------------------------------------------------------------------------------ samples

@compute @workgroup_size(TILE_LANES)
fn tiles_act(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let is_critic = workgroup.y == 1u;
    let i = workgroup.x * TILE + local;
    if local < TILE {
        sh_rows[local] = min(i, params.batch - 1u);
    }
    if GAUSSIAN {
        load_stds(local);
    }
    workgroupBarrier();
    load_observations(local);
    forward(local, select(0u, MOST_LAYERS, is_critic), select(params.actor_layers, params.critic_layers, is_critic));
    own_sample = local;
    if local >= TILE || i >= params.batch {
        return;
    }
    let row = params.first_row + i;
    if is_critic {
        values[row] = logit(0u);
        return;
    }
    for (var a = 0u; a < params.width; a++) {
        output[i * params.width + a] = logit(a);
    }
    if GAUSSIAN {
        draw_gaussian(row);
    } else {
        draw_categorical(row);
    }
}

@compute @workgroup_size(TILE_LANES)
fn tiles_gradient(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let is_critic = workgroup.y == 1u;
    let first_layer = select(0u, MOST_LAYERS, is_critic);
    let layers = select(params.actor_layers, params.critic_layers, is_critic);
    let output_vectors = params.packed_layers[first_layer + layers - 1u].y;
    let group = workgroup.y * groups.x + workgroup.x;
    own_sample = min(local, TILE - 1u);
    own_partial = 0.0;
    let is_gaussian = GAUSSIAN && !is_critic;
    if is_gaussian {
        load_stds(local);
    }
    for (var first = workgroup.x * TILE; first < params.batch; first += groups.x * TILE) {
        let i = first + local;
        let in_batch = local < TILE && i < params.batch;
        // Samples past the end are the last one's, whose gradient is not counted.
        let index = min(first + own_sample, params.batch - 1u);
        source_row = min(indices[params.first_index + index], params.rows - 1u);
        if local < TILE {
            sh_rows[local] = source_row;
            sh_lanes[local] = 0.0;
            stage_nothing(local);
        }
        let sample = samples[params.first_sample + index];
        var action = 0u;
        if !GAUSSIAN {
            action = actions[source_row];
        }
        workgroupBarrier();
        if is_gaussian {
            load_actions(local);
        }
        load_observations(local);
        forward(local, first_layer, layers);

        if in_batch {
            if is_critic {
                values[i] = logit(0u);
            } else {
                for (var a = 0u; a < params.width; a++) {
                    output[i * params.width + a] = logit(a);
                }
            }
        }
        if is_critic {
            if in_batch {
                var loss: SampleLoss;
                value_terms(logit(0u), sample, &loss);
                stage_value_sum(local, loss);
                store_d_logit(0u, loss.d_value);
            }
        } else if GAUSSIAN {
            if in_batch {
                sh_lanes[local] = gaussian_loss(local, 0u, sample);
            }
        } else {
            categorical_loss(local, 0u, 0u, select(0u, params.width, in_batch), in_batch, action, sample);
        }
        if local < TILE && !in_batch {
            for (var o = 0u; o < 4u * output_vectors; o++) {
                store_d_logit(o, 0.0);
            }
        }
        workgroupBarrier();
        add_partials(local, is_gaussian);
        backward(local, first_layer, layers, workgroup.x * params.packed_vectors, first == workgroup.x * TILE);
    }
    if local < params.partial_width {
        store_partial(group * params.partial_width + local, own_partial);
    }
}

// ------------------------------------------------------------------------------------------------ sums over workgroups

@group(0) @binding(16) var<storage, read_write> grads: array<f32>;

fn store_gradient(index: u32, gradient: f32) {
    grads[index] = gradient;
    note(index, gradient);
}

// Sums of partials over their rows, a column by 16 invocations and then one: the row of statistics, and the gradient of log_std.
fn sum_partials(local: u32) {
    let partials = params.partial_rows / 2u * params.packed_vectors;
    for (var first = 0u; first < params.partial_width; first += SUMS) {
        let column = first + local % SUMS;
        var sum = 0.0;
        if column < params.partial_width {
            for (var row = local / SUMS; row < params.partial_rows; row += SEGMENTS) {
                sum += tile_gradients[partials + row * params.partial_width + column].x;
            }
        }
        sh_segments[local] = sum;
        workgroupBarrier();
        sum = 0.0;
        if local < SUMS {
            for (var segment = 0u; segment < SEGMENTS; segment++) {
                sum += sh_segments[segment * SUMS + local];
            }
        }
        workgroupBarrier();
        if first == 0u && local < SUMS {
            sh_segments[local] = sum;
        }
        workgroupBarrier();
        if first == 0u && local == 0u {
            write_stats();
        }
        if first > 0u && local < SUMS && column < SUMS + params.width {
            // The entropy of each sample has slope 1 in each log_std.
            store_gradient(params.log_std_offset + column - SUMS, sum - params.ent_coef);
        }
        workgroupBarrier();
    }
}

var<workgroup> sh_written: array<Written, SUM_LANES>;

// A packed vector an invocation; the last workgroup has the partials.
@compute @workgroup_size(SUM_LANES)
fn sum_tiles(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    written = Written(0.0, NOWHERE);
    let i = workgroup.x * SUM_LANES + local;
    if workgroup.x + 1u == groups.x {
        sum_partials(local);
    } else if i < params.packed_log_std {
        let tiles = params.partial_rows / 2u;
        var sum = vec4<f32>();
        var t = 0u;
        for (; t + 4u <= tiles; t += 4u) {
            let first = t * params.packed_vectors + i;
            let a = tile_gradients[first];
            let b = tile_gradients[first + params.packed_vectors];
            let c = tile_gradients[first + 2u * params.packed_vectors];
            let d = tile_gradients[first + 3u * params.packed_vectors];
            sum += (a + b) + (c + d);
        }
        for (; t < tiles; t++) {
            sum += tile_gradients[t * params.packed_vectors + i];
        }
        let at = packed_at(i);
        for (var c = 0u; c < 4u; c++) {
            if c < at.count {
                store_gradient(at.first + c, sum[c]);
            }
        }
    }
    sh_written[local] = written;
    workgroupBarrier();
    for (var half = SUM_LANES / 2u; half > 0u; half /= 2u) {
        if local < half {
            sh_written[local].squares += sh_written[local + half].squares;
            sh_written[local].first_bad = min(sh_written[local].first_bad, sh_written[local + half].first_bad);
        }
        workgroupBarrier();
    }
    if local == 0u {
        squares[workgroup.x] = vec4<u32>(bitcast<u32>(sh_written[0].squares), sh_written[0].first_bad, 0u, 0u);
    }
}
