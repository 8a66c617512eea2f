// Samples, two an invocation where they learn and one where they act, behind shared.wgsl. Header: shared.wgsl.

// Vectors of four in a uniform buffer of 64 KiB, WebGPU's default limit.
const WINDOW = 4096u;
// Vectors of four that are kept of a sample: observation, hidden activations and output. Just enough for two hidden layers of 64:
// software adapters take time and compile time in proportion to what is declared.
const KEPT = 40u;

struct Window {
    vectors: array<vec4<f32>, WINDOW>,
}

@group(0) @binding(1) var<uniform> weights: Window;
@group(0) @binding(5) var<storage, read_write> trace: array<vec4<f32>>;

// Weights are [outputs, vectors of inputs], as they are counted.
fn packed_place(i: u32, row: u32, column_vector: u32, at: vec4<u32>) -> u32 {
    return i;
}

// ------------------------------------------------------------------------------------------------ a sample through a network

// Observation, hidden activations and output of a sample. Gradients take the place of what is not read any more: the output's that of the
// observation, those of hidden activations their own.
alias Kept = array<vec4<f32>, KEPT>;

// Of an invocation's two samples. One array of twice the length would take software adapters half as long again to compile.
var<private> first_kept: Kept;
var<private> second_kept: Kept;
// Where the output starts.
var<private> output_at: u32;

// Of eight units.
struct Units {
    low: vec4<f32>,
    high: vec4<f32>,
}

// Four inputs' part in eight outputs.
fn add_products(units: ptr<function, Units>, w: Eight, h: vec4<f32>) {
    (*units).low += vec4<f32>(dot(w.a, h), dot(w.b, h), dot(w.c, h), dot(w.d, h));
    (*units).high += vec4<f32>(dot(w.e, h), dot(w.f, h), dot(w.g, h), dot(w.h, h));
}

fn keep_units(kept: ptr<private, Kept>, first: u32, units: Units, is_hidden: bool) {
    var y = units;
    if is_hidden {
        y = Units(activate_all(units.low), activate_all(units.high));
    }
    (*kept)[first] = y.low;
    (*kept)[first + 1u] = y.high;
}

// `both` is a constant where it is called.
fn forward(first_layer: u32, layers: u32, both: bool) {
    var input_at = 0u;
    output_at = params.first_hidden;
    for (var l = 0u; l < layers; l++) {
        let at = params.packed_layers[first_layer + l];
        let is_hidden = l + 1u < layers;
        // Eight outputs at a time.
        for (var o = 0u; o < at.y; o += 2u) {
            let bias = Units(weights.vectors[at.w + o], weights.vectors[at.w + o + 1u]);
            var units = bias;
            var other = bias;
            let row = at.z + 4u * o * at.x;
            for (var k = 0u; k < at.x; k++) {
                let w = eight_weights(row + k, at.x, 4u * at.x);
                add_products(&units, w, first_kept[input_at + k]);
                if both {
                    add_products(&other, w, second_kept[input_at + k]);
                }
            }
            keep_units(&first_kept, output_at + o, units, is_hidden);
            if both {
                keep_units(&second_kept, output_at + o, other, is_hidden);
            }
        }
        if is_hidden {
            input_at = output_at;
            output_at += at.y;
        }
    }
}

// Four outputs' part in the gradients of eight inputs.
fn add_transposed(units: ptr<function, Units>, w: Eight, d: vec4<f32>) {
    (*units).low += d.x * w.a + d.y * w.b + d.z * w.c + d.w * w.d;
    (*units).high += d.x * w.e + d.y * w.f + d.z * w.g + d.w * w.h;
}

fn derive(kept: ptr<private, Kept>, first: u32, units: Units) {
    (*kept)[first] = units.low * derivatives((*kept)[first]);
    (*kept)[first + 1u] = units.high * derivatives((*kept)[first + 1u]);
}

// From the output's gradient down to that of the first hidden layer.
fn backward(first_layer: u32, layers: u32) {
    var above = 0u;
    var below = output_at;
    for (var l = layers - 1u; l > 0u; l--) {
        let at = params.packed_layers[first_layer + l];
        below -= at.x;
        for (var k = 0u; k < at.x; k += 2u) {
            var units = Units();
            var other = Units();
            for (var o = 0u; o < at.y; o++) {
                let w = eight_weights(at.z + 4u * o * at.x + k, at.x, 1u);
                add_transposed(&units, w, first_kept[above + o]);
                add_transposed(&other, w, second_kept[above + o]);
            }
            derive(&first_kept, below + k, units);
            derive(&second_kept, below + k, other);
        }
        above = below;
    }
}

// ------------------------------------------------------------------------------------------------ what the loss asks for

// Where an invocation's samples are in the rollout.
var<private> source_rows: vec2<u32>;
// The sample in hand: where it is in the minibatch and in the rollout, and which of the two it is.
var<private> sample_index: u32;
var<private> source_row: u32;
var<private> is_second: bool;
var<private> in_batch: bool;

fn sample_of(workgroup: u32, local: u32, s: u32) -> u32 {
    return (2u * workgroup + s) * WORKGROUP_SIZE + local;
}

fn row_of(sample: u32) -> u32 {
    return min(indices[params.first_index + min(sample, params.batch - 1u)], params.rows - 1u);
}

fn take_sample(workgroup: u32, local: u32, s: u32) {
    let i = sample_of(workgroup, local, s);
    in_batch = i < params.batch;
    // Past the end it is the last sample again, because all invocations have to meet at the barriers, and leaves nothing behind.
    sample_index = min(i, params.batch - 1u);
    source_row = select(source_rows.x, source_rows.y, s == 1u);
    is_second = s == 1u;
}

// Both are read: software adapters execute both sides of a branch.
fn own_kept(i: u32) -> vec4<f32> {
    return select(first_kept[i], second_kept[i], is_second);
}

fn keep_element(i: u32, element: u32, x: f32) {
    if is_second {
        second_kept[i][element] = x;
    } else {
        first_kept[i][element] = x;
    }
}

// A vector each: several invocations must not write elements of one vector, see tiles.wgsl.
fn store_partial(index: u32, sum: f32) {
    trace[7u * WINDOW + index] = vec4<f32>(sum, 0.0, 0.0, 0.0);
}

fn logit(action: u32) -> f32 {
    return own_kept(output_at + action / 4u)[action % 4u];
}

fn store_d_logit(action: u32, gradient: f32) {
    keep_element(action / 4u, action % 4u, gradient);
}

fn action_of(dimension: u32) -> f32 {
    return bitcast<f32>(actions[source_row * params.width + dimension]);
}

fn log_std_of(dimension: u32) -> f32 {
    return weights.vectors[params.packed_log_std + dimension / 4u][dimension % 4u];
}

fn inverse_std_parts(dimension: u32) -> vec2<f32> {
    return exp_parts(-log_std_of(dimension));
}

fn store_d_mean(dimension: u32, gradient: f32) {
    store_d_logit(dimension, gradient);
}

// Dimensions of log_std that are summed between two barriers.
const LOG_STD_BLOCK = 8u;

var<workgroup> sh_log_std: array<f32, LOG_STD_BLOCK * WORKGROUP_SIZE>;

// Sums d_logp * (z^2 - 1), the slope of the log-probabilities in log_std, over the workgroup's samples into its row of partials.
fn write_log_std_sums(group: u32, workgroup: u32, local: u32, dimensions: u32, d_logp: vec2<f32>) {
    for (var first = 0u; first < dimensions; first += LOG_STD_BLOCK) {
        let end = min(first + LOG_STD_BLOCK, dimensions);
        for (var d = first; d < end; d++) {
            var sum = 0.0;
            for (var s = 0u; s < 2u; s++) {
                take_sample(workgroup, local, s);
                let z = (action_of(d) - mean_of_action(d)) * exp_of(-log_std_of(d));
                // A sample past the end adds nothing.
                sum += select(d_logp[s] * (z * z - 1.0), 0.0, d_logp[s] == 0.0);
            }
            sh_log_std[(d - first) * WORKGROUP_SIZE + local] = sum;
        }
        workgroupBarrier();
        for (var d = first + local; d < end; d += WORKGROUP_SIZE) {
            var sum = 0.0;
            for (var k = 0u; k < WORKGROUP_SIZE; k++) {
                sum += sh_log_std[(d - first) * WORKGROUP_SIZE + k];
            }
            store_partial(group * params.partial_width + SUMS + d, sum);
        }
        workgroupBarrier();
    }
}

// ------------------------------------------------------------------------------------------------ samples

fn load_observation(row: u32) {
    let first = params.observations_offset + row * params.observation_size;
    for (var k = 0u; k < params.observation_size; k++) {
        keep_element(k / 4u, k % 4u, observations[first + k]);
    }
}

// Of both samples `count` vectors from `first` on, into a window of the trace.
fn store_trace(workgroup: u32, local: u32, window: u32, first: u32, count: u32) {
    let i = sample_of(workgroup, local, 0u);
    let other = sample_of(workgroup, local, 1u);
    if i < params.batch {
        for (var k = 0u; k < count; k++) {
            trace[window * WINDOW + i * count + k] = first_kept[first + k];
        }
    }
    if other < params.batch {
        for (var k = 0u; k < count; k++) {
            trace[window * WINDOW + other * count + k] = second_kept[first + k];
        }
    }
}

@compute @workgroup_size(ACT_LANES)
fn samples_act(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    join_subgroup();
    let is_critic = workgroup.y == 1u;
    let i = workgroup.x * ACT_LANES + local;
    sample_index = min(i, params.batch - 1u);
    load_observation(sample_index);
    forward(select(0u, MOST_LAYERS, is_critic), select(params.actor_layers, params.critic_layers, is_critic), false);
    if i >= params.batch {
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

@compute @workgroup_size(WORKGROUP_SIZE)
fn samples_gradient(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    join_subgroup();
    let is_critic = workgroup.y == 1u;
    let group = workgroup.y * groups.x + workgroup.x;
    let first_layer = select(0u, MOST_LAYERS, is_critic);
    let layers = select(params.actor_layers, params.critic_layers, is_critic);
    source_rows = vec2<u32>(row_of(sample_of(workgroup.x, local, 0u)), row_of(sample_of(workgroup.x, local, 1u)));
    for (var s = 0u; s < 2u; s++) {
        take_sample(workgroup.x, local, s);
        load_observation(source_row);
    }
    forward(first_layer, layers, true);

    let hidden = output_at - params.first_hidden;
    let output_vectors = params.packed_layers[first_layer + layers - 1u].y;
    store_trace(workgroup.x, local, select(1u, 4u, is_critic), params.first_hidden, hidden);
    store_trace(workgroup.x, local, 0u, 0u, select(params.observation_vectors, 0u, is_critic));
    var d_logp = vec2<f32>();
    stage_nothing(local);
    for (var s = 0u; s < 2u; s++) {
        take_sample(workgroup.x, local, s);
        let sample = samples[params.first_sample + sample_index];
        for (var k = 0u; k < 4u * output_vectors; k++) {
            store_d_logit(k, 0.0);
        }
        if is_critic && in_batch {
            values[sample_index] = logit(0u);
            var loss: SampleLoss;
            value_terms(logit(0u), sample, &loss);
            stage_value_sum(local, loss);
            store_d_logit(0u, loss.d_value);
        }
        if !is_critic {
            for (var a = 0u; a < select(0u, params.width, in_batch); a++) {
                output[sample_index * params.width + a] = logit(a);
            }
            if !GAUSSIAN {
                categorical_loss(local, 0u, 0u, select(0u, params.width, in_batch), in_batch, actions[source_row], sample);
            } else if in_batch {
                d_logp[s] = gaussian_loss(local, 0u, sample);
            }
        }
    }
    write_partial_sums(group, local);
    if GAUSSIAN {
        write_log_std_sums(group, workgroup.x, local, select(params.width, 0u, is_critic), d_logp);
    }

    backward(first_layer, layers);
    store_trace(workgroup.x, local, select(2u, 5u, is_critic), params.first_hidden, hidden);
    store_trace(workgroup.x, local, select(3u, 6u, is_critic), 0u, output_vectors);
}
