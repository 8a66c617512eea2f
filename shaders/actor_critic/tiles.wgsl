// Samples, a tile a workgroup, behind by_tile.wgsl. A layer's weights are read once for all samples of a tile, whose
// activations stay in workgroup memory; gradients of parameters are summed over the tiles of a workgroup, then over workgroups.
// Header: by_tile.wgsl.
//
// In `packed` a layer's weights are [vectors of inputs, outputs]: consecutive invocations make consecutive outputs of one pair of samples, and
// read consecutive vectors. On the way back each reads consecutive vectors itself, near its own inputs: the cache has them from the way there. Where
// workgroups are few, a multiprocessor has nothing else to do while a load is on its way: then all weights are fetched at once, before anything else is, and
// copied to workgroup memory. For the same reason loads stand together here, clamped rather than behind a branch.
// Invocations are shared out by constants: a division by a parameter is some twenty instructions, each waiting for the one before.

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
// Packed vectors of the larger network, if its weights are copied to workgroup memory, eight by an invocation; otherwise 1.
override COPIED: u32 = 1u;
const COPY_LANES = TILE_LANES;
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
// Of the workgroup's network, as in `packed`.
var<workgroup> sh_weights: array<vec4<f32>, COPIED>;

var<private> output_at: u32;
// The sample of a tile whose loss is this invocation's.
var<private> own_sample: u32;
// The sum of a column of partials over tiles.
var<private> own_partial: f32;
// Where the workgroup's network begins and ends in `packed`.
var<private> network: vec2<u32>;

// ------------------------------------------------------------------------------------------------ a tile through a network

fn take_network(is_critic: bool) {
    let critic = params.packed_layers[MOST_LAYERS].z;
    network = select(vec2<u32>(0u, critic), vec2<u32>(critic, params.packed_log_std), is_critic);
}

// An invocation's vectors of the network, if they are to be copied: all on their way together.
fn fetch_weights(local: u32) -> Eight {
    if COPIED == 1u {
        return Eight();
    }
    let first = network.x + local;
    let last = network.y - 1u;
    return Eight(
        packed_weights[min(first, last)],
        packed_weights[min(first + COPY_LANES, last)],
        packed_weights[min(first + 2u * COPY_LANES, last)],
        packed_weights[min(first + 3u * COPY_LANES, last)],
        packed_weights[min(first + 4u * COPY_LANES, last)],
        packed_weights[min(first + 5u * COPY_LANES, last)],
        packed_weights[min(first + 6u * COPY_LANES, last)],
        packed_weights[min(first + 7u * COPY_LANES, last)],
    );
}

fn copy_weight(i: u32, w: vec4<f32>) {
    if i < network.y - network.x {
        sh_weights[i] = w;
    }
}

fn copy_weights(local: u32, fetched: Eight) {
    if COPIED == 1u {
        return;
    }
    copy_weight(local, fetched.a);
    copy_weight(local + COPY_LANES, fetched.b);
    copy_weight(local + 2u * COPY_LANES, fetched.c);
    copy_weight(local + 3u * COPY_LANES, fetched.d);
    copy_weight(local + 4u * COPY_LANES, fetched.e);
    copy_weight(local + 5u * COPY_LANES, fetched.f);
    copy_weight(local + 6u * COPY_LANES, fetched.g);
    copy_weight(local + 7u * COPY_LANES, fetched.h);
}

fn weight(i: u32) -> vec4<f32> {
    if COPIED == 1u {
        return packed_weights[i];
    }
    return sh_weights[i - network.x];
}

fn eight_in_turn(first: u32, stride: u32) -> Eight {
    return Eight(
        weight(first),
        weight(first + stride),
        weight(first + 2u * stride),
        weight(first + 3u * stride),
        weight(first + 4u * stride),
        weight(first + 5u * stride),
        weight(first + 6u * stride),
        weight(first + 7u * stride),
    );
}

fn along_eight(w: Eight, h: u32) -> vec4<f32> {
    return w.a * sh_kept[h] + w.b * sh_kept[h + 1u] + w.c * sh_kept[h + 2u] + w.d * sh_kept[h + 3u]
        + w.e * sh_kept[h + 4u] + w.f * sh_kept[h + 5u] + w.g * sh_kept[h + 6u] + w.h * sh_kept[h + 7u];
}

// Observations of the tile's samples, in rows `sh_rows`, to be read after the next barrier.
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
}

// Of the same samples.
fn load_actions(local: u32) {
    let s = local / SAMPLE_LANES;
    for (var d = local % SAMPLE_LANES; d < params.width; d += SAMPLE_LANES) {
        sh_actions[s * OUTPUTS + d] = actions[sh_rows[s] * params.width + d];
    }
}

// Of the dimension that is this invocation's, if any.
fn fetch_log_std(local: u32) -> f32 {
    if GAUSSIAN {
        let d = min(local, params.width - 1u);
        return packed_weights[params.packed_log_std + d / 4u][d % 4u];
    }
    return 0.0;
}

fn copy_std(local: u32, own_log_std: f32) {
    if GAUSSIAN && local < params.width {
        sh_std[local] = vec4<f32>(exp_parts(-own_log_std), own_log_std, 0.0);
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
            let bias = weight(at.w + o / 4u)[o % 4u];
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
                let even = weight(w + k * outputs);
                let odd = weight(w + (k + 1u) * outputs);
                sum += even * sh_kept[one + k] + odd * sh_kept[one + k + 1u];
                other_sum += even * sh_kept[other + k] + odd * sh_kept[other + k + 1u];
            }
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
    take_network(is_critic);
    let fetched = fetch_weights(local);
    let own_log_std = fetch_log_std(local);
    let i = workgroup.x * TILE + local;
    if local < TILE {
        sh_rows[local] = min(i, params.batch - 1u);
    }
    workgroupBarrier();
    load_observations(local);
    copy_weights(local, fetched);
    copy_std(local, own_log_std);
    workgroupBarrier();
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
    take_network(is_critic);
    own_sample = min(local, TILE - 1u);
    own_partial = 0.0;
    let is_gaussian = GAUSSIAN && !is_critic;
    for (var first = workgroup.x * TILE; first < params.batch; first += groups.x * TILE) {
        // Where weights are copied, a workgroup has one tile.
        let fetched = fetch_weights(local);
        let own_log_std = fetch_log_std(local);
        let i = first + local;
        let in_batch = local < TILE && i < params.batch;
        // Samples past the end are the last one's, whose gradient is not counted.
        let index = min(first + own_sample, params.batch - 1u);
        let source_row = min(indices[params.first_index + index], params.rows - 1u);
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
        copy_weights(local, fetched);
        copy_std(local, own_log_std);
        workgroupBarrier();
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

// Past the last row 0. Read in any case, as of_tile does.
fn partial_of(row: u32, column: u32) -> f32 {
    let partials = params.partial_rows / 2u * params.packed_vectors;
    let read = tile_gradients[partials + min(row, params.partial_rows - 1u) * params.partial_width + column].x;
    return select(0.0, read, row < params.partial_rows);
}

// Sums of partials over their rows, a column by 16 invocations and then one: the row of statistics, and the gradient of log_std.
fn sum_partials(local: u32) {
    for (var first = 0u; first < params.partial_width; first += SUMS) {
        let column = first + local % SUMS;
        var sum = 0.0;
        if column < params.partial_width {
            for (var row = local / SUMS; row < params.partial_rows; row += 4u * SEGMENTS) {
                sum += (partial_of(row, column) + partial_of(row + SEGMENTS, column))
                    + (partial_of(row + 2u * SEGMENTS, column) + partial_of(row + 3u * SEGMENTS, column));
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

fn together(a: Written, b: Written) -> Written {
    return Written(a.squares + b.squares, min(a.first_bad, b.first_bad));
}

// A vector of a tile's gradient, past the last tile zeros. Read in any case, so that no load waits for another.
fn of_tile(t: u32, tiles: u32, i: u32) -> vec4<f32> {
    let read = tile_gradients[min(t, tiles - 1u) * params.packed_vectors + i];
    return select(vec4<f32>(), read, t < tiles);
}

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
        for (var t = 0u; t < tiles; t += 8u) {
            let a = of_tile(t, tiles, i);
            let b = of_tile(t + 1u, tiles, i);
            let c = of_tile(t + 2u, tiles, i);
            let d = of_tile(t + 3u, tiles, i);
            let e = of_tile(t + 4u, tiles, i);
            let f = of_tile(t + 5u, tiles, i);
            let g = of_tile(t + 6u, tiles, i);
            let h = of_tile(t + 7u, tiles, i);
            sum += ((a + b) + (c + d)) + ((e + f) + (g + h));
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
            sh_written[local] = together(sh_written[local], sh_written[local + half]);
        }
        workgroupBarrier();
    }
    if local == 0u {
        squares[workgroup.x] = vec4<u32>(bitcast<u32>(sh_written[0].squares), sh_written[0].first_bad, 0u, 0u);
    }
}
