// Global-norm clipping and Adam over one flat parameter buffer, behind formulas.wgsl.
//
//   gradient norm: norm = sqrt(sum_i grads[i]^2)
//                  coef = min(1, max_grad_norm / (norm + epsilon)), 1 where the norm is not limited
//   adam_step:     g     = coef * grads[i] + l2 * params[i]
//                  m[i]  = beta1 * m[i] + (1 - beta1) * g
//                  v[i]  = beta2 * v[i] + (1 - beta2) * g^2
//                  params[i] = params[i] * (1 - learning_rate * decay)
//                            - step_size * m[i] / (sqrt(v[i]) * inv_sqrt_bias_correction2 + epsilon)
//                  nothing at all where control[STOP] != 0; else control[STEPS_DONE] += 1
//
// Shapes        grads, params, m, v [len]; stats [rows, 16]; schedule [steps, 4]; control [4]; partials [PARTIALS of the host]
// Grid          norm: small_norm one workgroup; partial_squares `partials` workgroups that stride over grads, then finish_norm one
//               workgroup. adam_step: one invocation an element, linear, folded into two dimensions past 65 535 workgroups
// Workgroup     256 invocations: sums go 256 -> 16 -> 1 with two barriers
// Bindings      0 params of the entry point; 1 grads, 2 partials, 3 stats, 4 params, 5 m, 6 v, 7 schedule, 8 control
// Preconditions 1 <= len < 2^32; partials <= 1024
//               Indices proven: i < len is compared first, strides end below len, there are PARTIALS >= workgroups; the host has checked both rows
// Determinism   every sum has one order that depends on len alone
// Range         squares below 2^-126 may flush to zero, so norms below sqrt(len) * 2^-63 are lost; squares above 2^128 give an infinite
//               norm, as in torch. A NaN gradient gives a NaN norm and factor
// Tolerance     GradientNorm::norm_tolerance, clip_coef_tolerance; Adam::bounds

struct NormParams {
    len: u32,
    partials: u32,
    stats_row: u32,
    limited: u32,
    max_grad_norm: f32,
    epsilon: f32,
}

struct AdamParams {
    len: u32,
    schedule_row: u32,
    stats_row: u32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    epsilon: f32,
    l2: f32,
    decay: f32,
}

const WORKGROUP_SIZE = 256u;
const SEGMENTS = 16u;
// Squares are summed in blocks, so that rounding errors grow with the number of blocks and not of squares.
const BLOCK = 32u;

const STATS_COLUMNS = 16u;

@group(0) @binding(0) var<uniform> norm_params: NormParams;
@group(0) @binding(0) var<uniform> adam_params: AdamParams;
@group(0) @binding(1) var<storage, read> grads: array<f32>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;
@group(0) @binding(4) var<storage, read_write> params: array<f32>;
@group(0) @binding(5) var<storage, read_write> m: array<f32>;
@group(0) @binding(6) var<storage, read_write> v: array<f32>;
@group(0) @binding(7) var<storage, read> schedule: array<f32>;
@group(0) @binding(8) var<storage, read_write> control: array<u32>;

var<workgroup> sh_values: array<f32, WORKGROUP_SIZE>;
var<workgroup> sh_segments: array<f32, SEGMENTS>;

// The sum over the workgroup, complete in invocation 0.
fn workgroup_sum(local: u32, value: f32) -> f32 {
    sh_values[local] = value;
    workgroupBarrier();
    if local < SEGMENTS {
        var segment = 0.0;
        for (var k = 0u; k < WORKGROUP_SIZE / SEGMENTS; k++) {
            segment += sh_values[local * (WORKGROUP_SIZE / SEGMENTS) + k];
        }
        sh_segments[local] = segment;
    }
    workgroupBarrier();
    var sum = 0.0;
    if local == 0u {
        for (var k = 0u; k < SEGMENTS; k++) {
            sum += sh_segments[k];
        }
    }
    return sum;
}

// grads[first]^2 + grads[first + stride]^2 + ... below len.
fn strided_squares(first: u32, stride: u32) -> f32 {
    if first >= norm_params.len {
        return 0.0;
    }
    let count = (norm_params.len - 1u - first) / stride + 1u;
    var sum = 0.0;
    for (var block = 0u; block < count; block += BLOCK) {
        var block_sum = 0.0;
        for (var k = block; k < min(block + BLOCK, count); k++) {
            let g = grads[first + k * stride];
            block_sum += g * g;
        }
        sum += block_sum;
    }
    return sum;
}

fn write_norm(sum_of_squares: f32) {
    let clip = clip_of(sum_of_squares, norm_params.limited != 0u, norm_params.max_grad_norm, norm_params.epsilon);
    stats[norm_params.stats_row * STATS_COLUMNS + GRAD_NORM] = clip.norm;
    stats[norm_params.stats_row * STATS_COLUMNS + CLIP_COEF] = clip.coef;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn small_norm(@builtin(local_invocation_index) local: u32) {
    let sum = workgroup_sum(local, strided_squares(local, WORKGROUP_SIZE));
    if local == 0u {
        write_norm(sum);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn partial_squares(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let sum = workgroup_sum(local, strided_squares(workgroup.x * WORKGROUP_SIZE + local, norm_params.partials * WORKGROUP_SIZE));
    if local == 0u {
        partials[workgroup.x] = sum;
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn finish_norm(@builtin(local_invocation_index) local: u32) {
    var own = 0.0;
    for (var k = local; k < norm_params.partials; k += WORKGROUP_SIZE) {
        own += partials[k];
    }
    let sum = workgroup_sum(local, own);
    if local == 0u {
        write_norm(sum);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn adam_step(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // What all invocations read is read before any of them leaves: software adapters then read it once and not lane by lane.
    let row = adam_params.schedule_row * SCHEDULE_COLUMNS;
    let adam = AdamConstants(
        adam_params.beta1,
        adam_params.one_minus_beta1,
        adam_params.beta2,
        adam_params.one_minus_beta2,
        adam_params.epsilon,
        adam_params.l2,
        adam_params.decay,
        schedule[row + LEARNING_RATE],
        schedule[row + STEP_SIZE],
        schedule[row + INV_SQRT_BIAS_CORRECTION2],
    );
    let coef = stats[adam_params.stats_row * STATS_COLUMNS + CLIP_COEF];
    let stopped = control[STOP] != 0u;
    let i = (workgroup.y * groups.x + workgroup.x) * WORKGROUP_SIZE + local;
    if i >= adam_params.len || stopped {
        return;
    }
    if i == 0u {
        control[STEPS_DONE] += 1u;
    }
    let stepped = adam_of(AdamElement(params[i], m[i], v[i]), coef * grads[i], adam);
    m[i] = stepped.m;
    v[i] = stepped.v;
    params[i] = stepped.param;
}
