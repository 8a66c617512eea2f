// Actor and critic of small networks over a minibatch: forward, loss and backward, an invocation a sample, and then the parameters' gradients.
//
//   pack_weights         parameters as vectors of four along the inputs, sizes padded to multiples of 8 with zeros
//   samples_forward      h = act(W h + b) layer by layer
//   samples_gradient     the same for samples picked by an index buffer, PPO's loss and its gradient (surrogate.wgsl), d = (Wᵀ d) ⊙ act′(h)
//                        back down
//   parameters_gradient  dW[o, k] = Σ_samples d[o] h[k], db[o] = Σ_samples d[o], for all layers of one network; an invocation's sum of squares,
//                        and the first of its elements that is not finite
//   finish_gradient      the row of statistics, d log_std, the gradient's norm and clip factor (optimizer.wgsl), and what is not finite
//                        (nonfinite.wgsl)
//
// What is read often is read from uniform buffers, windows of 64 KiB: a constant cache on a GPU, and on llvmpipe the only memory whose
// loads are not made lane by lane. Between the entry points everything is in `trace`, windows one after the other: observations; activations
// of hidden layers, their gradients, the output's gradient of the actor; the same three of the critic; partial sums.
//
// Shapes        observations [rows, observation_size], actions [rows] or [rows, width], indices [first_index + batch or more], samples
//               [first_sample + batch or more, 4] in the order of indices; output [batch, width], values [batch]; a window [batch, padded
//               sizes]; squares [partial_squares, 2]; stats [rows, 16]; control [4]; layers as `layers` says, 4 a network at most
// Grid          pack_weights: an invocation a vector; samples_*: 32 samples a workgroup in x, networks in y; parameters_gradient: 8 outputs a
//               workgroup in x, layers in y; finish_gradient: one workgroup
// Workgroup     WORKGROUP_SIZE invocations; parameters_gradient: INPUT_LANES, each with 4 inputs; finish_gradient: FINISH_LANES
// Bindings      0 params; 1 weights (window); 2 observations, 3 actions (words: indices, or the Gaussian's floats), 4 samples, 5 trace,
//               6 output, 7 indices, 8 values; pack_weights: 10 parameters, 11 packed; parameters_gradient: windows 12 observations,
//               13 activations, 14 their gradients, 15 d_output, and 16 grads, 17 squares; finish_gradient: 5, 16, 17, 18 stats, 19 control
// Preconditions what Plan::new checks: everything fits its window, no more than KEPT vectors a sample; hidden activations among identity,
//               tanh, relu and elu. An action that is no index gives NaN; an index >= rows is clamped to rows - 1
//               Indices proven: sizes in vectors are even and add up to KEPT at most, samples times them and all packed vectors to WINDOW, by
//               Plan::new; samples past the end are clamped to the last one; what indices hold is clamped to rows - 1; an action from a
//               buffer < width is compared first; partial_squares counts the invocations of both parameters_gradient
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
    network: u32,
    packed_log_std: u32,
    observations_offset: u32,
    values_offset: u32,
    rows: u32,
    first_index: u32,
    first_sample: u32,
    stats_row: u32,
    first_square: u32,
    partial_squares: u32,
    limited: u32,
    max_grad_norm: f32,
    norm_epsilon: f32,
    tensor: u32,
}

override GAUSSIAN: bool = false;

const WORKGROUP_SIZE = 32u;
const INPUT_LANES = 16u;
const FINISH_LANES = 128u;
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
@group(0) @binding(10) var<storage, read> parameters: array<f32>;
@group(0) @binding(11) var<storage, read_write> packed: array<vec4<f32>>;
@group(0) @binding(12) var<uniform> observation_window: Window;
@group(0) @binding(13) var<uniform> hidden_window: Window;
@group(0) @binding(14) var<uniform> d_hidden_window: Window;
@group(0) @binding(15) var<uniform> d_output_window: Window;
@group(0) @binding(16) var<storage, read_write> grads: array<f32>;
// Of each invocation of parameters_gradient: its sum of squares as bits, and the first element that is not finite.
@group(0) @binding(17) var<storage, read_write> squares: array<vec2<u32>>;
@group(0) @binding(18) var<storage, read_write> stats: array<f32>;
@group(0) @binding(19) var<storage, read_write> control: array<u32>;

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
        if GAUSSIAN && dimension < params.width {
            packed[i] = parameters_from(params.log_std_offset + dimension, params.width - dimension);
        }
    } else if i < at.w {
        let row = (i - at.z) / at.x;
        let column = 4u * ((i - at.z) - row * at.x);
        packed[i] = parameters_from(layer.z + row * layer.x + column, select(0u, beyond(layer.x, column), row < layer.y));
    } else {
        let row = 4u * (i - at.w);
        packed[i] = parameters_from(layer.w + row, beyond(layer.y, row));
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

@compute @workgroup_size(WORKGROUP_SIZE)
fn samples_forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let is_critic = workgroup.y == 1u;
    let i = workgroup.x * WORKGROUP_SIZE + local;
    sample_index = min(i, params.batch - 1u);
    load_observation(sample_index);
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

// What an invocation has written: the sum of squares, and the first element that is not finite. A compiler may assume that no float is NaN,
// so exponents are tested as integers.
struct Written {
    squares: f32,
    first_bad: u32,
}

const NOWHERE = 0xffffffffu;
const EXPONENT = 0x7f800000u;

var<private> written: Written;

fn note(index: u32, gradient: f32) {
    written.squares += gradient * gradient;
    let is_bad = (bitcast<u32>(gradient) & EXPONENT) == EXPONENT;
    written.first_bad = select(written.first_bad, min(written.first_bad, index), is_bad);
}

fn store_gradient(index: u32, gradient: f32) {
    grads[index] = gradient;
    note(index, gradient);
}

@compute @workgroup_size(INPUT_LANES)
fn parameters_gradient(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let layers = select(params.actor_layers, params.critic_layers, params.network == 1u);
    let first_layer = params.network * MOST_LAYERS;
    let layer = first_layer + workgroup.y;
    let vectors = params.packed_layers[layer];
    let o = 2u * workgroup.x;
    let is_first = workgroup.y == 0u;
    let is_last = workgroup.y + 1u == layers;
    let place = place_of(workgroup.y, layers, first_layer);
    let inputs = select(0u, vectors.x, o < vectors.y);
    written = Written(0.0, NOWHERE);
    for (var k = local; k < inputs; k += INPUT_LANES) {
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
                        store_gradient(first + c, sums[row][c]);
                    }
                }
                if k == 0u {
                    store_gradient(sizes.w + out, select(low_bias[row % 4u], high_bias[row % 4u], row >= 4u));
                }
            }
        }
    }
    let slot = (workgroup.y * groups.x + workgroup.x) * INPUT_LANES + local;
    squares[params.first_square + slot] = vec2<u32>(bitcast<u32>(written.squares), written.first_bad);
}

// ------------------------------------------------------------------------------------------------ the end

const GRAD_NORM = 7u;
const CLIP_COEF = 8u;
const STOP = 0u;
const BAD_TENSOR = 2u;
const BAD_ELEMENT = 3u;
const NON_FINITE = 2u;

var<workgroup> sh_squares: array<f32, FINISH_LANES>;
var<workgroup> sh_first_bad: array<u32, FINISH_LANES>;

fn sum_of_partials(column: u32) -> f32 {
    var sum = 0.0;
    for (var row = 0u; row < params.partial_rows; row++) {
        let index = row * params.partial_width + column;
        sum += trace[7u * WINDOW + index / 4u][index % 4u];
    }
    return sum;
}

fn write_norm(sum_of_squares: f32) {
    let norm = sqrt(sum_of_squares);
    let divisor = norm + params.norm_epsilon;
    var coef = 1.0;
    if params.limited != 0u && divisor > params.max_grad_norm {
        coef = params.max_grad_norm / divisor;
    }
    let bits = bitcast<u32>(sum_of_squares);
    if (bits & 0x7fffffffu) > EXPONENT {
        coef = sum_of_squares;
    }
    stats[params.stats_row * STATS_COLUMNS + GRAD_NORM] = norm;
    stats[params.stats_row * STATS_COLUMNS + CLIP_COEF] = coef;
}

@compute @workgroup_size(FINISH_LANES)
fn finish_gradient(@builtin(local_invocation_index) local: u32) {
    written = Written(0.0, NOWHERE);
    if local < SUMS {
        sh_segments[local] = sum_of_partials(local);
    }
    if GAUSSIAN {
        for (var d = local; d < params.width; d += FINISH_LANES) {
            // The entropy of each sample has slope 1 in each log_std.
            store_gradient(params.log_std_offset + d, sum_of_partials(SUMS + d) - params.ent_coef);
        }
    }
    for (var i = local; i < params.partial_squares; i += FINISH_LANES) {
        let of_invocation = squares[i];
        written.squares += bitcast<f32>(of_invocation.x);
        written.first_bad = min(written.first_bad, of_invocation.y);
    }
    sh_squares[local] = written.squares;
    sh_first_bad[local] = written.first_bad;
    workgroupBarrier();
    if local > 0u {
        return;
    }
    write_stats();
    var sum = 0.0;
    var first_bad = NOWHERE;
    for (var lane = 0u; lane < FINISH_LANES; lane++) {
        sum += sh_squares[lane];
        first_bad = min(first_bad, sh_first_bad[lane]);
    }
    write_norm(sum);
    if first_bad != NOWHERE && control[BAD_TENSOR] == 0u {
        control[STOP] = NON_FINITE;
        control[BAD_TENSOR] = params.tensor;
        control[BAD_ELEMENT] = first_bad;
    }
}
