// The end of a minibatch step of networks whose layers are matrix products of their own: the parts of all parameters' gradients that stretches of the
// batch have left are summed, and with them their squares; then clipping and Adam. Behind optimizer/formulas.wgsl and optimizer/conclude.wgsl.
//
//   sum_layers     grads[i] = sum over a layer's stretches of their parts, in order; found = sum of squares, first element that is not finite
//   update_layers  as adam_step of optimizer.wgsl, with the norm of all of `found`, and nothing where
//                  control[STOP] != 0, an element is not finite or stats[row, APPROX_KL] > max_kl; see conclude
//
// Shapes        parts: of each layer [splits, out, in + 1], the bias last, from `parts_at` on; a layer of no splits has its gradient in grads already, as
//               log_std has. grads, parameters, m, v [len]; found [workgroups, 2] as bits; stats [rows, 16]; schedule [steps, 4]; control [4]
// Grid          sum_layers: for each layer one workgroup every 256 * rounds elements; update_layers: one invocation an element; linear, folded
//               past 65 535 workgroups
// Workgroup     256 invocations
// Bindings      0 params, 1 parts, 2 grads, 3 found, 4 stats, 5 control, 6 parameters, 7 m, 8 v, 9 schedule
// Preconditions 1 <= len < 2^32; 1 <= count <= MOST_LAYERS; workgroups <= 1024; layers' parameters lie in [0, len) and are all of them; parts hold what
//               each layer says
//               Indices proven: an element is compared with its layer's first; a split is below splits, a row below out, a column below in + 1, so
//               parts and parameters are those that the host has checked; a place in found is below workgroups, the one of parameters at most len - 1
// Barriers      what ends a workgroup early is its own number
// Determinism   every sum has one order that the sizes decide. What an invocation reads in control may be what another has just written there: where that
//               happens, both stop anyway
// Range         as optimizer.wgsl
// Tolerance     composite_tolerance. Of a sum of squares, rounds + 12 roundings; rounds are 4 up to a million parameters, 128 for 30 million

const MOST_LAYERS = 17u;
const WORKGROUP_SIZE = 256u;
const STATS_COLUMNS = 16u;
const STAT_APPROX_KL = 5u;
const NOWHERE = 0xffffffffu;
const EXPONENT = 0x7f800000u;

struct ByLayerParams {
    // First workgroup, elements, splits, first element in parts.
    sums: array<vec4<u32>, MOST_LAYERS>,
    // Columns (in + 1), first weight, first bias, nothing.
    places: array<vec4<u32>, MOST_LAYERS>,
    count: u32,
    workgroups: u32,
    rounds: u32,
    len: u32,
    stats_row: u32,
    schedule_row: u32,
    tensor: u32,
    limited: u32,
    max_grad_norm: f32,
    norm_epsilon: f32,
    max_kl: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    adam_epsilon: f32,
    l2: f32,
    decay: f32,
}

@group(0) @binding(0) var<uniform> params: ByLayerParams;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> grads: array<f32>;
@group(0) @binding(3) var<storage, read_write> found: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;
@group(0) @binding(5) var<storage, read_write> control: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(7) var<storage, read_write> m: array<f32>;
@group(0) @binding(8) var<storage, read_write> v: array<f32>;
@group(0) @binding(9) var<storage, read> schedule: array<f32>;

var<workgroup> sh_squares: array<f32, WORKGROUP_SIZE>;
var<workgroup> sh_first_bad: array<u32, WORKGROUP_SIZE>;

// Leaves sum and minimum over all invocations in the first elements.
fn gather_over_workgroup(local: u32, squares: f32, first_bad: u32) {
    sh_squares[local] = squares;
    sh_first_bad[local] = first_bad;
    workgroupBarrier();
    for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
        if local < half {
            sh_squares[local] += sh_squares[local + half];
            sh_first_bad[local] = min(sh_first_bad[local], sh_first_bad[local + half]);
        }
        workgroupBarrier();
    }
}

fn sum_of_parts(element: u32, sums: vec4<u32>) -> f32 {
    let first = sums.w + element;
    var sum = 0.0;
    var split = 0u;
    // Four loads under way at a time; the sum keeps its order.
    for (; split + 4u <= sums.z; split += 4u) {
        let i = first + split * sums.y;
        sum = (((sum + parts[i]) + parts[i + sums.y]) + parts[i + 2u * sums.y]) + parts[i + 3u * sums.y];
    }
    for (; split < sums.z; split += 1u) {
        sum += parts[first + split * sums.y];
    }
    return sum;
}

fn parameter_of(element: u32, place: vec4<u32>) -> u32 {
    let row = element / place.x;
    let column = element - row * place.x;
    return select(place.y + row * (place.x - 1u) + column, place.z + row, column + 1u == place.x);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sum_layers(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup.y * groups.x + workgroup.x;
    if index >= params.workgroups {
        return;
    }
    var layer = 0u;
    for (var next = 1u; next < params.count; next++) {
        layer = select(layer, next, index >= params.sums[next].x);
    }
    let sums = params.sums[layer];
    let place = params.places[layer];
    let first = (index - sums.x) * params.rounds * WORKGROUP_SIZE + local;
    var squares = 0.0;
    var first_bad = NOWHERE;
    for (var round = 0u; round < params.rounds; round++) {
        let element = first + round * WORKGROUP_SIZE;
        if element < sums.y {
            let parameter = parameter_of(element, place);
            var gradient = 0.0;
            if sums.z == 0u {
                gradient = grads[parameter];
            } else {
                gradient = sum_of_parts(element, sums);
                grads[parameter] = gradient;
            }
            squares += gradient * gradient;
            // A compiler may assume that no float is NaN.
            if (bitcast<u32>(gradient) & EXPONENT) == EXPONENT {
                first_bad = min(first_bad, parameter);
            }
        }
    }
    gather_over_workgroup(local, squares, first_bad);
    if local == 0u {
        found[index] = vec2<u32>(bitcast<u32>(sh_squares[0]), sh_first_bad[0]);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn update_layers(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (workgroup.y * groups.x + workgroup.x) * WORKGROUP_SIZE + local;
    // Before the norm is known, so that no load waits for another.
    let at = min(i, params.len - 1u);
    let before = AdamElement(parameters[at], m[at], v[at]);
    let gradient = grads[at];
    let is_beyond = stats[params.stats_row * STATS_COLUMNS + STAT_APPROX_KL] > params.max_kl;
    let had_stopped = atomicLoad(&control[STOP]) != 0u;
    let row = params.schedule_row * SCHEDULE_COLUMNS;
    let adam = AdamConstants(
        params.beta1,
        params.one_minus_beta1,
        params.beta2,
        params.one_minus_beta2,
        params.adam_epsilon,
        params.l2,
        params.decay,
        schedule[row + LEARNING_RATE],
        schedule[row + STEP_SIZE],
        schedule[row + INV_SQRT_BIAS_CORRECTION2],
    );
    var squares = 0.0;
    var first_bad = NOWHERE;
    for (var k = local; k < params.workgroups; k += WORKGROUP_SIZE) {
        squares += bitcast<f32>(found[k].x);
        first_bad = min(first_bad, found[k].y);
    }
    gather_over_workgroup(local, squares, first_bad);
    let clip = clip_of(sh_squares[0], params.limited != 0u, params.max_grad_norm, params.norm_epsilon);
    let stopped = had_stopped || is_beyond || sh_first_bad[0] != NOWHERE;
    if i == 0u {
        conclude(clip, sh_first_bad[0], is_beyond, stopped, params.stats_row, params.tensor);
    }
    if i < params.len && !stopped {
        let stepped = adam_of(before, clip.coef * gradient, adam);
        parameters[i] = stepped.param;
        m[i] = stepped.m;
        v[i] = stepped.v;
    }
}
