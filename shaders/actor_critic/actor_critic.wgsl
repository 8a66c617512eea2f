// Actor and critic of small networks: a step of a rollout in one dispatch, a minibatch step of learning in three.
//
//   pack_weights         parameters as vectors of four along the inputs, sizes padded to multiples of 8 with zeros
//   samples_act          h = act(W h + b) layer by layer; an action from the actor's output, and its log-probability (categorical.wgsl,
//                        gaussian.wgsl)
//   samples_gradient     the same networks for samples picked by an index buffer, PPO's loss and its gradient (surrogate.wgsl),
//                        d = (Wᵀ d) ⊙ act′(h) back down
//   parameters_gradient  dW[o, k] = Σ_samples d[o] h[k], db[o] = Σ_samples d[o], for all layers of both networks; d log_std; of each
//                        workgroup the sum of squares, and the first of its elements that is not finite; the row of statistics
//   update_parameters    norm and clip factor, what is not finite (nonfinite.wgsl), Adam (optimizer.wgsl), and the packed weights anew
//
// What is read often is read from uniform buffers, windows of 64 KiB: a constant cache on a GPU, and on llvmpipe the only memory whose
// loads are not made lane by lane. In front of all this stands by_invocation.wgsl or by_subgroup.wgsl, which say who reads what all invocations
// of a workgroup read alike. Between the entry points everything is in `trace`, windows one after the other: observations; activations
// of hidden layers, their gradients, the output's gradient of the actor; the same three of the critic; partial sums.
//
// Shapes        observations [rows, observation_size], actions [rows] or [rows, width], indices [first_index + batch or more], samples
//               [first_sample + batch or more, 4] in the order of indices; output [batch, width]; values [batch], of samples_act, as logp,
//               noise and actions, [first_row + batch or more]; a window [batch, padded sizes]; squares [square_groups, 4]; stats [rows, 16];
//               schedule [steps, 4]; control [4]; parameters, grads, m, v [len]; layers as `layers` says, 4 a network at most
// Grid          pack_weights: an invocation a packed vector; update_parameters: one for VECTORS_EACH; samples_*: a workgroup of samples in x, networks in y;
//               parameters_gradient: 8 outputs a workgroup in x, layers in y, networks in z
// Workgroup     WORKGROUP_SIZE invocations; samples_act: ACT_LANES; parameters_gradient: INPUT_LANES, each with 4 inputs
// Bindings      0 params; samples_*: 1 weights (window), 2 observations, 6 output, 8 values; samples_act: 9 noise, 20 drawn actions (words:
//               indices, or the Gaussian's floats), 21 logp; samples_gradient: 3 actions, 4 samples, 5 trace, 7 indices;
//               parameters_gradient: windows 12 observations, 13 partial sums, 22 activations, 23 their gradients, 24 d_output of the actor,
//               25 to 27 of the critic, and 16 grads, 17 squares, 18 stats; update_parameters: 10 parameters, 11 packed, 14 m, 15 v,
//               16 grads, 18 stats, 19 control, 28 schedule, 29 squares (window)
// Preconditions what Plan::new checks: everything fits its window, no more than KEPT vectors a sample; hidden activations among identity,
//               tanh, relu and elu. An action that is no index gives NaN; an index >= rows is clamped to rows - 1
//               Indices proven: sizes in vectors are even and add up to KEPT at most, samples times them and all packed vectors to WINDOW, by
//               Plan::new; samples past the end are clamped to the last one; what indices hold is clamped to rows - 1; an action from a
//               buffer < width is compared first; square_groups counts the workgroups of parameters_gradient, MOST_GROUPS at most; elements
//               of a vector are clamped to len - 1 where they are read, and compared where they are written, as packed vectors are
//               with packed_vectors before; a block of samples ends at the last one, one of workgroups at MOST_GROUPS
// Determinism   every sum has one order that depends on the shapes alone
// Range         as surrogate.wgsl
// Tolerance     that of the single operations it stands for, see tests/actor_critic.rs

struct ActorCriticParams {
    // Inputs, outputs, first weight, first bias among the parameters: four layers of the actor, four of the critic.
    layers: array<vec4<u32>, 8>,
    // Vectors of inputs, vectors of outputs, first vector of weights, first vector of biases in `weights`.
    packed_layers: array<vec4<u32>, 8>,
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
    packed_log_std: u32,
    packed_vectors: u32,
    observations_offset: u32,
    first_row: u32,
    rows: u32,
    first_index: u32,
    first_sample: u32,
    stats_row: u32,
    square_groups: u32,
    limited: u32,
    max_grad_norm: f32,
    norm_epsilon: f32,
    tensor: u32,
    len: u32,
    schedule_row: u32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    adam_epsilon: f32,
    l2: f32,
    decay: f32,
}

override GAUSSIAN: bool = false;
// Samples a workgroup of samples_act. Software adapters compute lanes without a sample like any other.
override ACT_LANES: u32 = 32u;

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
@group(0) @binding(7) var<storage, read> indices: array<u32>;
@group(0) @binding(8) var<storage, read_write> values: array<f32>;
@group(0) @binding(9) var<storage, read> noise: array<f32>;
@group(0) @binding(10) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(11) var<storage, read_write> packed: array<vec4<f32>>;
@group(0) @binding(16) var<storage, read_write> grads: array<f32>;
@group(0) @binding(18) var<storage, read_write> stats: array<f32>;
@group(0) @binding(20) var<storage, read_write> drawn: array<u32>;
@group(0) @binding(21) var<storage, read_write> logp: array<f32>;

// ------------------------------------------------------------------------------------------------ weights

fn beyond(size: u32, done: u32) -> u32 {
    return max(size, done) - done;
}

// The parameters in a packed vector: the first, and how many there are, 4 at most. The rest is padding.
struct Packed {
    first: u32,
    count: u32,
}

fn packed_at(i: u32) -> Packed {
    var l = 0u;
    for (var next = 1u; next < 2u * MOST_LAYERS; next++) {
        // Networks of fewer layers leave entries of zeros.
        let at = params.packed_layers[next];
        l = select(l, next, at.x > 0u && i >= at.z);
    }
    let layer = params.layers[l];
    let at = params.packed_layers[l];
    if i >= params.packed_log_std {
        let dimension = 4u * (i - params.packed_log_std);
        return Packed(params.log_std_offset + dimension, min(select(0u, beyond(params.width, dimension), GAUSSIAN), 4u));
    }
    if i < at.w {
        let row = (i - at.z) / at.x;
        let column = 4u * ((i - at.z) - row * at.x);
        return Packed(layer.z + row * layer.x + column, min(select(0u, beyond(layer.x, column), row < layer.y), 4u));
    }
    let row = 4u * (i - at.w);
    return Packed(layer.w + row, min(beyond(layer.y, row), 4u));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn pack_weights(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * WORKGROUP_SIZE + local;
    let at = packed_at(i);
    var vector = vec4<f32>();
    for (var c = 0u; c < at.count; c++) {
        vector[c] = parameters[at.first + c];
    }
    if i < params.packed_vectors {
        packed[i] = vector;
    }
}

// ------------------------------------------------------------------------------------------------ a sample through a network

// Observation, hidden activations and output, and the gradients of the latter two, at the same places.
var<private> kept: array<vec4<f32>, KEPT>;
var<private> d_kept: array<vec4<f32>, KEPT>;
// Where the output starts.
var<private> output_at: u32;

// Weights that are read together.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
    e: vec4<f32>,
    f: vec4<f32>,
    g: vec4<f32>,
    h: vec4<f32>,
}

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
    return bitcast<f32>(actions[source_row * params.width + dimension]);
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

// The first action at which the cumulative probability is beyond a uniform number, as in categorical.wgsl.
fn draw_categorical(row: u32) {
    var largest = LOWEST;
    for (var a = 0u; a < params.width; a++) {
        largest = max(largest, logit(a));
    }
    var sum = 0.0;
    var last_likely = 0u;
    for (var a = 0u; a < params.width; a++) {
        let weight = exp_of(logit(a) - largest);
        sum += weight;
        last_likely = select(last_likely, a, weight > 0.0);
    }
    let wanted = noise[row] * sum;
    // Rounding can leave the whole sum at or below what is wanted: then the last action whose probability is not 0.
    var action = last_likely;
    var is_found = false;
    var cumulative = 0.0;
    for (var a = 0u; a < last_likely; a++) {
        cumulative += exp_of(logit(a) - largest);
        action = select(action, a, !is_found && cumulative > wanted);
        is_found = is_found || cumulative > wanted;
    }
    drawn[row] = action;
    logp[row] = (logit(action) - largest) - log(sum);
}

fn draw_gaussian(row: u32) {
    var sum = 0.0;
    for (var d = 0u; d < params.width; d++) {
        let z = noise[row * params.width + d];
        let log_std = log_std_of(d);
        drawn[row * params.width + d] = bitcast<u32>(mean_of_action(d) + exp_of(log_std) * z);
        sum -= 0.5 * z * z + log_std + (HALF_LOG_2PI_HIGH + HALF_LOG_2PI_LOW);
    }
    logp[row] = sum;
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
        write_log_std_sums(group, local, d_logp);
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
