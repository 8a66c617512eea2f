// Actor and critic of small networks over a minibatch: forward, loss and backward, an invocation a sample, and then the parameters' gradients.
//
//   pack_weights         parameters as vectors of four along the inputs, sizes padded to multiples of 8 with zeros
//   samples_forward      h = act(W h + b) layer by layer
//   samples_gradient     the same, PPO's loss and its gradient (surrogate.wgsl), d = (Wᵀ d) ⊙ act′(h) back down
//   parameters_gradient  dW[o, k] = Σ_samples d[o] h[k], db[o] = Σ_samples d[o], for all layers of one network
//
// What is read often is read from uniform buffers, windows of 64 KiB: a constant cache on a GPU, and on llvmpipe the only memory whose
// loads are not made lane by lane. Between the entry points everything is in `trace`, windows one after the other: observations; activations
// of hidden layers, their gradients, the output's gradient of the actor; the same three of the critic; partial sums.
//
// Shapes        observations [batch, observation_size], actions [batch] or [batch, width], samples [batch, 4], output and d_output
//               [batch, width], values and d_values [batch]; a window [batch, padded sizes]; layers as `layers` says, 4 a network at most
// Grid          pack_weights: an invocation a vector, layers and at last log_std in y; samples_*: 32 samples a workgroup in x, networks in y;
//               parameters_gradient: 8 outputs a workgroup in x, layers in y
// Workgroup     WORKGROUP_SIZE invocations; parameters_gradient: INPUT_LANES, each with 4 inputs
// Bindings      0 params; 1 weights (window); 2 observations, 3 actions (words: indices, or the Gaussian's floats), 4 samples, 5 trace,
//               6 output, 7 d_output, 8 values, 9 d_values; pack_weights: 10 parameters, 11 packed; parameters_gradient: windows
//               12 observations, 13 activations, 14 their gradients, 15 d_output, and 16 grads
// Preconditions what Plan::new checks: everything fits its window, no more than KEPT vectors a sample; hidden activations among identity,
//               tanh, relu and elu. An action that is no index gives NaN
//               Indices proven: sizes in vectors are even and add up to KEPT at most, samples times them and all packed vectors to WINDOW, by
//               Plan::new; samples past the end are clamped to the last one; an action from a buffer < width is compared first
// Determinism   every sum has one order that depends on the shapes alone
// Range         as surrogate.wgsl
// Tolerance     that of the single operations it stands for, see tests/actor_critic.rs

struct ActorCriticParams {
    batch: u32,
    width: u32,
    partial_rows: u32,
    partial_width: u32,
    value_loss: u32,
    log_std_offset: u32,
    ratio_low: f32,
    ratio_high: f32,
    dual_clip: f32,
    value_range: f32,
    vf_coef: f32,
    ent_coef: f32,
    kl_coef: f32,
    one_over_batch: f32,
    not_a_number: f32,
    observation_size: u32,
    observation_vectors: u32,
    actor_layers: u32,
    critic_layers: u32,
    network: u32,
    packed_log_std: u32,
    observations_offset: u32,
    values_offset: u32,
    unused: u32,
    // Inputs, outputs, first weight, first bias among the parameters: four layers of the actor, four of the critic.
    layers: array<vec4<u32>, 8>,
    // Vectors of inputs, vectors of outputs, first vector of weights, first vector of biases in `weights`.
    packed_layers: array<vec4<u32>, 8>,
}

override GAUSSIAN: bool = false;

const WORKGROUP_SIZE = 32u;
const INPUT_LANES = 16u;
const MOST_LAYERS = 4u;
// Vectors of four in a uniform buffer of 64 KiB, WebGPU's default limit.
const WINDOW = 4096u;
// Vectors of four that an invocation keeps: a sample's observation, hidden activations and output. Just enough for two hidden layers of 64:
// software adapters take time and compile time in proportion to what is declared.
const KEPT = 40u;

struct Window {
    vectors: array<vec4<f32>, WINDOW>,
}

@group(0) @binding(0) var<uniform> params: ActorCriticParams;
@group(0) @binding(1) var<uniform> weights: Window;
@group(0) @binding(2) var<storage, read> observations: array<f32>;
@group(0) @binding(3) var<storage, read> actions: array<u32>;
@group(0) @binding(4) var<storage, read> samples: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> trace: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_output: array<f32>;
@group(0) @binding(8) var<storage, read_write> values: array<f32>;
@group(0) @binding(9) var<storage, read_write> d_values: array<f32>;
@group(0) @binding(10) var<storage, read> parameters: array<f32>;
@group(0) @binding(11) var<storage, read_write> packed: array<vec4<f32>>;
@group(0) @binding(12) var<uniform> observation_window: Window;
@group(0) @binding(13) var<uniform> hidden_window: Window;
@group(0) @binding(14) var<uniform> d_hidden_window: Window;
@group(0) @binding(15) var<uniform> d_output_window: Window;
@group(0) @binding(16) var<storage, read_write> grads: array<f32>;

// ------------------------------------------------------------------------------------------------ weights

// Up to four parameters from `first` on; zeros instead of those that are not wanted.
fn parameters_from(first: u32, wanted: u32) -> vec4<f32> {
    var vector = vec4<f32>();
    for (var c = 0u; c < min(wanted, 4u); c++) {
        vector[c] = parameters[first + c];
    }
    return vector;
}

fn beyond(size: u32, done: u32) -> u32 {
    return max(size, done) - done;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn pack_weights(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * WORKGROUP_SIZE + local;
    if workgroup.y == 2u * MOST_LAYERS {
        if 4u * i < params.width {
            packed[params.packed_log_std + i] = parameters_from(params.log_std_offset + 4u * i, params.width - 4u * i);
        }
        return;
    }
    let layer = params.layers[workgroup.y];
    let at = params.packed_layers[workgroup.y];
    let weights_of_layer = 4u * at.x * at.y;
    if i < weights_of_layer {
        let row = i / at.x;
        let column = 4u * (i - row * at.x);
        packed[at.z + i] = parameters_from(layer.z + row * layer.x + column, select(0u, beyond(layer.x, column), row < layer.y));
    } else if i - weights_of_layer < at.y {
        let row = 4u * (i - weights_of_layer);
        packed[at.w + (i - weights_of_layer)] = parameters_from(layer.w + row, beyond(layer.y, row));
    }
}

// ------------------------------------------------------------------------------------------------ a sample through a network

// Observation, hidden activations and output, and the gradients of the latter two, at the same places.
var<private> kept: array<vec4<f32>, KEPT>;
var<private> d_kept: array<vec4<f32>, KEPT>;
// Where the output starts.
var<private> output_at: u32;

fn activate_all(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(activate(x.x), activate(x.y), activate(x.z), activate(x.w));
}

fn derivatives(y: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(derivative(y.x), derivative(y.y), derivative(y.z), derivative(y.w));
}

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
                let w = row + k;
                low += vec4<f32>(
                    dot(weights.vectors[w], h),
                    dot(weights.vectors[w + at.x], h),
                    dot(weights.vectors[w + 2u * at.x], h),
                    dot(weights.vectors[w + 3u * at.x], h),
                );
                high += vec4<f32>(
                    dot(weights.vectors[w + 4u * at.x], h),
                    dot(weights.vectors[w + 5u * at.x], h),
                    dot(weights.vectors[w + 6u * at.x], h),
                    dot(weights.vectors[w + 7u * at.x], h),
                );
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
                let w = at.z + 4u * o * at.x + k;
                low += d.x * weights.vectors[w] + d.y * weights.vectors[w + at.x]
                    + d.z * weights.vectors[w + 2u * at.x] + d.w * weights.vectors[w + 3u * at.x];
                high += d.x * weights.vectors[w + 1u] + d.y * weights.vectors[w + at.x + 1u]
                    + d.z * weights.vectors[w + 2u * at.x + 1u] + d.w * weights.vectors[w + 3u * at.x + 1u];
            }
            d_kept[below + k] = low * derivatives(kept[below + k]);
            d_kept[below + k + 1u] = high * derivatives(kept[below + k + 1u]);
        }
        above = below;
    }
}

// ------------------------------------------------------------------------------------------------ what the loss asks for

var<private> sample_index: u32;

fn store_partial(index: u32, sum: f32) {
    trace[7u * WINDOW + index / 4u][index % 4u] = sum;
}

fn logit(action: u32) -> f32 {
    return kept[output_at + action / 4u][action % 4u];
}

fn is_valid(action: u32) -> bool {
    return true;
}

fn store_d_logit(action: u32, gradient: f32) {
    d_kept[output_at + action / 4u][action % 4u] = gradient;
}

fn mean_of_action(dimension: u32) -> f32 {
    return logit(dimension);
}

fn action_of(dimension: u32) -> f32 {
    return bitcast<f32>(actions[sample_index * params.width + dimension]);
}

fn log_std_of(dimension: u32) -> f32 {
    return weights.vectors[params.packed_log_std + dimension / 4u][dimension % 4u];
}

fn store_d_mean(dimension: u32, gradient: f32) {
    store_d_logit(dimension, gradient);
}

// Sums d_logp * (z^2 - 1), the slope of the log-probabilities in log_std, over the workgroup's samples into its row of partials.
fn write_log_std_sums(group: u32, local: u32, d_logp: f32) {
    for (var d = 0u; d < params.width; d++) {
        let z = (action_of(d) - mean_of_action(d)) * exp_of(-log_std_of(d));
        // A sample past the end, or of the critic, adds nothing.
        sh_lanes[local] = select(d_logp * (z * z - 1.0), 0.0, d_logp == 0.0);
        workgroupBarrier();
        if local == 0u {
            var sum = 0.0;
            for (var k = 0u; k < WORKGROUP_SIZE; k++) {
                sum += sh_lanes[k];
            }
            store_partial(group * params.partial_width + SUMS + d, sum);
        }
        workgroupBarrier();
    }
}

// ------------------------------------------------------------------------------------------------ samples

fn load_observation() {
    let first = params.observations_offset + sample_index * params.observation_size;
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

@compute @workgroup_size(WORKGROUP_SIZE)
fn samples_forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let is_critic = workgroup.y == 1u;
    let i = workgroup.x * WORKGROUP_SIZE + local;
    sample_index = min(i, params.batch - 1u);
    load_observation();
    forward(select(0u, MOST_LAYERS, is_critic), select(params.actor_layers, params.critic_layers, is_critic));
    if i >= params.batch {
        return;
    }
    if is_critic {
        values[params.values_offset + i] = kept[output_at].x;
    } else {
        for (var a = 0u; a < params.width; a++) {
            output[i * params.width + a] = logit(a);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn samples_gradient(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let is_critic = workgroup.y == 1u;
    let group = workgroup.y * groups.x + workgroup.x;
    let i = workgroup.x * WORKGROUP_SIZE + local;
    let in_batch = i < params.batch;
    // Invocations past the end go through the last sample, because all have to meet at the barriers, and leave nothing behind.
    sample_index = min(i, params.batch - 1u);
    let sample = samples[sample_index];
    let first_layer = select(0u, MOST_LAYERS, is_critic);
    let layers = select(params.actor_layers, params.critic_layers, is_critic);
    load_observation();
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
        categorical_loss(local, 0u, 0u, select(0u, params.width, in_batch), in_batch, actions[sample_index], sample);
    }
    write_partial_sums(group, local);
    if GAUSSIAN {
        write_log_std_sums(group, local, d_logp);
    }

    backward(first_layer, layers);
    if in_batch {
        let output_vectors = params.packed_layers[first_layer + layers - 1u].y;
        if is_critic {
            values[i] = kept[output_at].x;
            d_values[i] = d_kept[output_at].x;
            store_trace(4u, output_vectors);
        } else {
            for (var a = 0u; a < params.width; a++) {
                output[i * params.width + a] = logit(a);
                d_output[i * params.width + a] = d_kept[output_at + a / 4u][a % 4u];
            }
            for (var k = 0u; k < params.observation_vectors; k++) {
                trace[i * params.observation_vectors + k] = kept[k];
            }
            store_trace(1u, output_vectors);
        }
    }
}

// ------------------------------------------------------------------------------------------------ parameters

// A layer's place in the windows: vectors a sample and its first vector in them, of the inputs and of the gradients.
struct Place {
    input_stride: u32,
    input_at: u32,
    d_stride: u32,
    d_at: u32,
}

fn place_of(layer: u32, layers: u32, first_layer: u32) -> Place {
    var hidden = 0u;
    var input_at = 0u;
    var d_at = 0u;
    for (var l = 0u; l + 1u < layers; l++) {
        input_at = select(input_at, hidden, l + 1u == layer);
        d_at = select(d_at, hidden, l == layer);
        hidden += params.packed_layers[first_layer + l].y;
    }
    let at = params.packed_layers[first_layer + layer];
    return Place(
        select(hidden, params.observation_vectors, layer == 0u),
        input_at,
        select(hidden, at.y, layer + 1u == layers),
        d_at,
    );
}

@compute @workgroup_size(INPUT_LANES)
fn parameters_gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let layers = select(params.actor_layers, params.critic_layers, params.network == 1u);
    let first_layer = params.network * MOST_LAYERS;
    let layer = first_layer + workgroup.y;
    let vectors = params.packed_layers[layer];
    let o = 2u * workgroup.x;
    if o >= vectors.y {
        return;
    }
    let is_first = workgroup.y == 0u;
    let is_last = workgroup.y + 1u == layers;
    let place = place_of(workgroup.y, layers, first_layer);
    for (var k = local; k < vectors.x; k += INPUT_LANES) {
        // Four inputs by eight outputs, summed over all samples.
        var sums: array<vec4<f32>, 8>;
        var low_bias = vec4<f32>();
        var high_bias = vec4<f32>();
        for (var s = 0u; s < params.batch; s++) {
            // Both windows are read, whichever is asked for: software adapters go through both sides of a branch anyway.
            let input_at = s * place.input_stride + place.input_at + k;
            let d_at = s * place.d_stride + place.d_at + o;
            let hidden_at = select(input_at, 0u, is_first);
            let d_hidden_at = select(d_at, 0u, is_last);
            let observation_at = select(0u, input_at, is_first);
            let d_output_at = select(0u, d_at, is_last);
            let h = select(hidden_window.vectors[hidden_at], observation_window.vectors[observation_at], is_first);
            let low = select(d_hidden_window.vectors[d_hidden_at], d_output_window.vectors[d_output_at], is_last);
            let high = select(d_hidden_window.vectors[d_hidden_at + 1u], d_output_window.vectors[d_output_at + 1u], is_last);
            sums[0] += low.x * h;
            sums[1] += low.y * h;
            sums[2] += low.z * h;
            sums[3] += low.w * h;
            sums[4] += high.x * h;
            sums[5] += high.y * h;
            sums[6] += high.z * h;
            sums[7] += high.w * h;
            low_bias += low;
            high_bias += high;
        }
        let sizes = params.layers[layer];
        for (var row = 0u; row < 8u; row++) {
            let out = 4u * o + row;
            if out < sizes.y {
                let first = sizes.z + out * sizes.x + 4u * k;
                for (var c = 0u; c < 4u; c++) {
                    if 4u * k + c < sizes.x {
                        grads[first + c] = sums[row][c];
                    }
                }
                if k == 0u {
                    grads[sizes.w + out] = select(low_bias[row % 4u], high_bias[row % 4u], row >= 4u);
                }
            }
        }
    }
}
