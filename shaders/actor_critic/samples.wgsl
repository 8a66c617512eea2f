// Samples, one an invocation, behind shared.wgsl. Header: shared.wgsl.

// Vectors of four in a uniform buffer of 64 KiB, WebGPU's default limit.
const WINDOW = 4096u;

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

// Observation, hidden activations and output, and the gradients of the latter two, at the same places.
var<private> kept: array<vec4<f32>, KEPT>;
var<private> d_kept: array<vec4<f32>, KEPT>;
// Where the output starts.
var<private> output_at: u32;

fn forward(first_layer: u32, layers: u32) {
    var input_at = 0u;
    output_at = params.observation_vectors;
    for (var l = 0u; l < layers; l++) {
        let at = params.packed_layers[first_layer + l];
        // Eight outputs at a time.
        for (var o = 0u; o < at.y; o += 2u) {
            var low = weights.vectors[at.w + o];
            var high = weights.vectors[at.w + o + 1u];
            let row = at.z + 4u * o * at.x;
            for (var k = 0u; k < at.x; k++) {
                let h = kept[input_at + k];
                let w = eight_weights(row + k, at.x, 4u * at.x);
                low += vec4<f32>(dot(w.a, h), dot(w.b, h), dot(w.c, h), dot(w.d, h));
                high += vec4<f32>(dot(w.e, h), dot(w.f, h), dot(w.g, h), dot(w.h, h));
            }
            if l + 1u < layers {
                low = activate_all(low);
                high = activate_all(high);
            }
            kept[output_at + o] = low;
            kept[output_at + o + 1u] = high;
        }
        if l + 1u < layers {
            input_at = output_at;
            output_at += at.y;
        }
    }
}

// From the output's gradient in d_kept down to that of the first hidden layer.
fn backward(first_layer: u32, layers: u32) {
    var above = output_at;
    for (var l = layers - 1u; l > 0u; l--) {
        let at = params.packed_layers[first_layer + l];
        let below = above - at.x;
        for (var k = 0u; k < at.x; k += 2u) {
            var low = vec4<f32>();
            var high = vec4<f32>();
            for (var o = 0u; o < at.y; o++) {
                let d = d_kept[above + o];
                let w = eight_weights(at.z + 4u * o * at.x + k, at.x, 1u);
                low += d.x * w.a + d.y * w.b + d.z * w.c + d.w * w.d;
                high += d.x * w.e + d.y * w.f + d.z * w.g + d.w * w.h;
            }
            d_kept[below + k] = low * derivatives(kept[below + k]);
            d_kept[below + k + 1u] = high * derivatives(kept[below + k + 1u]);
        }
        above = below;
    }
}

// ------------------------------------------------------------------------------------------------ what the loss asks for

var<private> sample_index: u32;
// Where that sample is in the rollout.
var<private> source_row: u32;

fn store_partial(index: u32, sum: f32) {
    trace[7u * WINDOW + index / 4u][index % 4u] = sum;
}

fn logit(action: u32) -> f32 {
    return kept[output_at + action / 4u][action % 4u];
}

fn store_d_logit(action: u32, gradient: f32) {
    d_kept[output_at + action / 4u][action % 4u] = gradient;
}

fn action_of(dimension: u32) -> f32 {
    return bitcast<f32>(actions[source_row * params.width + dimension]);
}

fn log_std_of(dimension: u32) -> f32 {
    return weights.vectors[params.packed_log_std + dimension / 4u][dimension % 4u];
}

fn store_d_mean(dimension: u32, gradient: f32) {
    store_d_logit(dimension, gradient);
}

// Dimensions of log_std that are summed between two barriers.
const LOG_STD_BLOCK = 8u;

var<workgroup> sh_log_std: array<f32, LOG_STD_BLOCK * WORKGROUP_SIZE>;

// Sums d_logp * (z^2 - 1), the slope of the log-probabilities in log_std, over the workgroup's samples into its row of partials.
fn write_log_std_sums(group: u32, local: u32, dimensions: u32, d_logp: f32) {
    for (var first = 0u; first < dimensions; first += LOG_STD_BLOCK) {
        let end = min(first + LOG_STD_BLOCK, dimensions);
        for (var d = first; d < end; d++) {
            let z = (action_of(d) - mean_of_action(d)) * exp_of(-log_std_of(d));
            // A sample past the end adds nothing.
            sh_log_std[(d - first) * WORKGROUP_SIZE + local] = select(d_logp * (z * z - 1.0), 0.0, d_logp == 0.0);
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
        kept[k / 4u][k % 4u] = observations[first + k];
    }
}

// Everything that parameters_gradient needs of this sample, from window `first` on.
fn store_trace(first: u32, output_vectors: u32) {
    let hidden = output_at - params.observation_vectors;
    for (var k = 0u; k < hidden; k++) {
        trace[first * WINDOW + sample_index * hidden + k] = kept[params.observation_vectors + k];
        trace[(first + 1u) * WINDOW + sample_index * hidden + k] = d_kept[params.observation_vectors + k];
    }
    for (var k = 0u; k < output_vectors; k++) {
        trace[(first + 2u) * WINDOW + sample_index * output_vectors + k] = d_kept[output_at + k];
    }
}

@compute @workgroup_size(ACT_LANES)
fn samples_act(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    join_subgroup();
    let is_critic = workgroup.y == 1u;
    let i = workgroup.x * ACT_LANES + local;
    sample_index = min(i, params.batch - 1u);
    load_observation(sample_index);
    forward(select(0u, MOST_LAYERS, is_critic), select(params.actor_layers, params.critic_layers, is_critic));
    if i >= params.batch {
        return;
    }
    let row = params.first_row + i;
    if is_critic {
        values[row] = kept[output_at].x;
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
    let i = workgroup.x * WORKGROUP_SIZE + local;
    let in_batch = i < params.batch;
    // Invocations past the end go through the last sample, because all have to meet at the barriers, and leave nothing behind.
    sample_index = min(i, params.batch - 1u);
    source_row = min(indices[params.first_index + sample_index], params.rows - 1u);
    let sample = samples[params.first_sample + sample_index];
    let first_layer = select(0u, MOST_LAYERS, is_critic);
    let layers = select(params.actor_layers, params.critic_layers, is_critic);
    load_observation(source_row);
    forward(first_layer, layers);

    stage_nothing(local);
    var d_logp = 0.0;
    if is_critic {
        if in_batch {
            var loss: SampleLoss;
            value_terms(kept[output_at].x, sample, &loss);
            stage_value_sum(local, loss);
            d_kept[output_at].x = loss.d_value;
        }
    } else if GAUSSIAN {
        if in_batch {
            d_logp = gaussian_loss(local, 0u, sample);
        }
    } else {
        categorical_loss(local, 0u, 0u, select(0u, params.width, in_batch), in_batch, actions[source_row], sample);
    }
    write_partial_sums(group, local);
    if GAUSSIAN {
        write_log_std_sums(group, local, select(params.width, 0u, is_critic), d_logp);
    }

    backward(first_layer, layers);
    if in_batch {
        let output_vectors = params.packed_layers[first_layer + layers - 1u].y;
        if is_critic {
            values[i] = kept[output_at].x;
            store_trace(4u, output_vectors);
        } else {
            for (var a = 0u; a < params.width; a++) {
                output[i * params.width + a] = logit(a);
            }
            for (var k = 0u; k < params.observation_vectors; k++) {
                trace[i * params.observation_vectors + k] = kept[k];
            }
            store_trace(1u, output_vectors);
        }
    }
}
