// Actor and critic of small networks, a tile of samples a workgroup: a step of a rollout in one dispatch, a minibatch step of learning in three.
//
//   pack_weights       parameters as vectors of four along the inputs, sizes padded to multiples of 8 with zeros
//   tiles_act          h = act(W h + b) layer by layer; an action from the actor's output, and its log-probability (categorical.wgsl,
//                      gaussian.wgsl)
//   tiles_gradient     the same networks for samples picked by an index buffer, PPO's loss and its gradient (surrogate/shared.wgsl),
//                      d = (Wᵀ d) ⊙ act′(h) back down, and the share of dW[o, k] = Σ_samples d[o] h[k] and db[o] = Σ_samples d[o] of each
//                      workgroup's samples
//   sum_tiles          the sums of these over workgroups, for all layers of both networks; d log_std; of each workgroup the sum of squares, and
//                      the first of its elements that is not finite; the row of statistics
//   update_parameters  norm and clip factor, the first element that is not finite (nonfinite.wgsl), the stop beyond max_kl (surrogate/shared.wgsl),
//                      Adam (optimizer.wgsl), and the packed weights anew
//
// Behind this stand tiles.wgsl, with the samples, and adam.wgsl.
//
// Shapes        observations [rows, observation_size], actions [rows] or [rows, width], indices [first_index + batch or more], samples
//               [first_sample + batch or more, 4] in the order of indices; output [batch, width]; values [batch], of tiles_act, as logp,
//               noise and actions, [first_row + batch or more]; squares [square_groups, 4]; stats [rows, 16]; schedule [steps, 4]; control [4];
//               parameters, m, v, grads [len]; layers as `layers` says, 4 a network at most; tile_gradients [partial_rows / 2, packed_vectors, 4],
//               then [partial_rows, partial_width, 4], partial sums, the first of each four; packed [packed_vectors, 4]
// Grid          pack_weights, update_parameters: an invocation a packed vector; tiles_*: a workgroup of samples in x, networks in y;
//               tiles_gradient takes as many tiles as there are, partial_rows / 2 at a time; sum_tiles: an invocation a packed vector, and one
//               workgroup
// Workgroup     pack_weights, update_parameters: VECTOR_LANES invocations; tiles_*: TILE_LANES, with TILE samples; sum_tiles: SUM_LANES
// Bindings      0 params; tiles_*: 2 observations, 6 output, 8 values, 30 packed weights; tiles_act: 9 noise, 20 drawn actions (words: indices, or
//               the Gaussian's floats), 21 logp; tiles_gradient: 3 actions, 4 samples, 7 indices; this and sum_tiles: 31 tile_gradients;
//               sum_tiles: 16 grads, 17 squares, 18 stats; update_parameters: 10 parameters, 11 packed, 14 m, 15 v, 16 grads, 18 stats, 19 control,
//               28 schedule, 29 squares (uniform); pack_weights: 10, 11
// Preconditions those that ByTile::new checks: no more than KEPT vectors a sample; no layer has more than WIDEST vectors of outputs; hidden activations
//               among identity, tanh, relu and elu. An action that is no index gives NaN; an index >= rows is clamped to rows - 1
//               Indices proven: sizes in vectors are even and add up to KEPT at most; samples past the end are clamped to the last one; an index is
//               clamped to rows - 1; an action from a buffer < width is compared first; square_groups counts the workgroups of sum_tiles, MOST_GROUPS
//               at most, and a block of them ends at MOST_GROUPS, a multiple of eight; elements of a vector are clamped to len - 1 where they
//               are read, and compared where they are written, as packed vectors are with packed_vectors before, or clamped;
//               weights are copied up to the network's last, COPIED at most; outputs are no more than invocations of a tile; tiles and rows of
//               partials are clamped; width is 4 WIDEST at most
// Determinism   every sum has one order that depends on the shapes alone
// Range         as surrogate/shared.wgsl
// Tolerance     that of the single operations it stands for, see tests/actor_critic

struct ActorCriticParams {
    // Inputs, outputs, first weight, first bias among the parameters: four layers of the actor, four of the critic.
    layers: array<vec4<u32>, 8>,
    // Vectors of inputs, vectors of outputs, first vector of weights, first vector of biases in `packed`.
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
    max_kl: f32,
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

// Samples for whose losses loss.wgsl has room: at least TILE.
const WORKGROUP_SIZE = 16u;
// Of pack_weights and update_parameters.
const VECTOR_LANES = 32u;
const MOST_LAYERS = 4u;

@group(0) @binding(0) var<uniform> params: ActorCriticParams;
@group(0) @binding(2) var<storage, read> observations: array<f32>;
@group(0) @binding(3) var<storage, read> actions: array<u32>;
@group(0) @binding(4) var<storage, read> samples: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;
@group(0) @binding(7) var<storage, read> indices: array<u32>;
@group(0) @binding(8) var<storage, read_write> values: array<f32>;
@group(0) @binding(9) var<storage, read> noise: array<f32>;
@group(0) @binding(10) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(11) var<storage, read_write> packed: array<vec4<f32>>;
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
    // Where the vector is in `packed`.
    place: u32,
}

fn packed_at(i: u32) -> Packed {
    var l = 0u;
    for (var next = 1u; next < 2u * MOST_LAYERS; next++) {
        // Where networks have fewer layers, nothing is beyond what the entry says.
        l = select(l, next, i >= params.packed_layers[next].z);
    }
    let layer = params.layers[l];
    let at = params.packed_layers[l];
    if i >= params.packed_log_std {
        let dimension = 4u * (i - params.packed_log_std);
        return Packed(params.log_std_offset + dimension, min(select(0u, beyond(params.width, dimension), GAUSSIAN), 4u), i);
    }
    if i < at.w {
        // The quotient of such small numbers, half way between the nearest at which it could be another: exact, and a fraction of an integer division's time.
        let row = u32((f32(i - at.z) + 0.5) / f32(at.x));
        let vector = (i - at.z) - row * at.x;
        let column = 4u * vector;
        let count = min(select(0u, beyond(layer.x, column), row < layer.y), 4u);
        return Packed(layer.z + row * layer.x + column, count, at.z + vector * 4u * at.y + row);
    }
    let row = 4u * (i - at.w);
    return Packed(layer.w + row, min(beyond(layer.y, row), 4u), i);
}

// Of a packed vector the first `count` elements, and zeros for the rest.
fn of_parameters(vector: vec4<f32>, count: u32) -> vec4<f32> {
    return select(vec4<f32>(), vector, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count));
}

@compute @workgroup_size(VECTOR_LANES)
fn pack_weights(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * VECTOR_LANES + local;
    let at = packed_at(i);
    var vector = vec4<f32>();
    for (var c = 0u; c < at.count; c++) {
        vector[c] = parameters[at.first + c];
    }
    if i < params.packed_vectors {
        packed[at.place] = vector;
    }
}

// ------------------------------------------------------------------------------------------------ what a network is made of

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

// ------------------------------------------------------------------------------------------------ policies

fn is_valid(action: u32) -> bool {
    return true;
}

fn mean_of_action(dimension: u32) -> f32 {
    return logit(dimension);
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
    logp[row] = (logit(action) - largest) - log_of(sum);
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

// ------------------------------------------------------------------------------------------------ what is written of the gradient

// Of each workgroup of sum_tiles: its sum of squares as bits, the first element that is not finite, nothing, nothing.
@group(0) @binding(17) var<storage, read_write> squares: array<vec4<u32>>;

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
