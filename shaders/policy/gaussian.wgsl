// Diagonal Gaussian distributions, and the tanh-squashed ones. z = (x − mean)·e^(−log_std).
//
//   evaluate           logp = Σ_d −½z² − log_std − ½log 2π;   entropy = Σ_d log_std + ½log 2πe
//   sample             x = mean + e^log_std·noise, and its logp
//   backward           d_mean = d_logp·z·e^(−log_std);   d_log_std = d_logp·(z² − 1) + d_entropy
//   kl                 Σ_d ½(e^t − 1 − t) + ½((p_mean − q_mean)·e^(−q_log_std))²,   t = 2(p_log_std − q_log_std)
//   kl_backward        the derivatives of that
//   squashed_evaluate  a = low + (high − low)·σ(2u);   log_det = 2(log 2 − u − softplus(−2u));   logp − log_det − log((high − low)/2)
//   squashed_backward  as backward for fixed u; for u = mean + e^log_std·noise: d_mean = 2·tanh u, d_log_std = −1 + 2·tanh u·(u − mean)
//   sum_parts          adds up what the backward kernels leave of a log-std shared by the batch
//
// Shapes        mean, x, noise, u, actions, log_det, d_mean [batch, dim]; log_std, d_log_std [batch, dim] or [dim]; others [batch]
// Grid          forward: one invocation a row. Backward: one invocation a dimension of `rows_per_part` rows. Linear, folded past 65 535 workgroups
// Workgroup     WORKGROUP_SIZE invocations
// Bindings      0 params, 1 mean, 2 log_std, 3 x (actions, noise or u), then as declared
// Preconditions sizes >= 1, batch * dim < 2^32
//               Indices proven: rows end below batch and d below dim, both by comparison; the host has checked each buffer from its offset on
// Determinism   fixed order: over dimensions; over the rows of a part, then over parts
// Range         finite inputs with |log_std| below about 40, where e^(2·log_std) stays finite
// Tolerance     derived in src/kernels/policy/tolerance.rs

struct GaussianParams {
    batch: u32,
    dim: u32,
    offset: u32,             // of sample: first row
    log_std_offset: u32,
    d_log_std_offset: u32,
    rows_per_part: u32,
    parts: u32,
    low: f32,
    high: f32,
    log_half_width: f32,     // log((high − low)/2)
}

override WORKGROUP_SIZE: u32 = 64u;
override STATE_DEPENDENT: bool = false;
override WITH_RESPECT_TO_Q: bool = false;
override REPARAMETERISED: bool = false;

@group(0) @binding(0) var<uniform> params: GaussianParams;
@group(0) @binding(1) var<storage, read> mean: array<f32>;
@group(0) @binding(2) var<storage, read> log_std: array<f32>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read> q_mean: array<f32>;
@group(0) @binding(5) var<storage, read> q_log_std: array<f32>;
@group(0) @binding(6) var<storage, read> d_logp: array<f32>;
@group(0) @binding(7) var<storage, read> d_entropy: array<f32>;
@group(0) @binding(8) var<storage, read> d_kl: array<f32>;
@group(0) @binding(9) var<storage, read> parts: array<f32>;
@group(0) @binding(10) var<storage, read_write> logp: array<f32>;
@group(0) @binding(11) var<storage, read_write> entropy: array<f32>;
@group(0) @binding(12) var<storage, read_write> actions: array<f32>;
@group(0) @binding(13) var<storage, read_write> log_det: array<f32>;
@group(0) @binding(14) var<storage, read_write> kl_out: array<f32>;
@group(0) @binding(15) var<storage, read_write> d_mean: array<f32>;
@group(0) @binding(16) var<storage, read_write> d_log_std: array<f32>;

const HALF_LOG_TWO_PI: f32 = 0.9189385332;
const LOG_TWO: f32 = 0.6931471806;

fn linear_index(workgroup: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (workgroup.y * groups.x + workgroup.x) * WORKGROUP_SIZE + local;
}

fn log_std_index(row: u32, d: u32) -> u32 {
    return params.log_std_offset + select(d, row * params.dim + d, STATE_DEPENDENT);
}

fn log_density(z: f32, s: f32) -> f32 {
    return -0.5 * z * z - s - HALF_LOG_TWO_PI;
}

// log(1 − tanh²u) = 2(log 2 − u − softplus(−2u)), written with |u| so that nothing cancels.
fn squash_log_det(u: f32) -> f32 {
    return 2.0 * (LOG_TWO - abs(u) - log_1_plus(exp_of(-2.0 * min(abs(u), 40.0))));
}

fn sigmoid(v: f32) -> f32 {
    return 1.0 / (1.0 + exp_of(-max(v, -87.0)));
}

fn tanh_of(u: f32) -> f32 {
    return 2.0 * sigmoid(2.0 * u) - 1.0;
}

// e^t − 1 − t, by its series near zero, where the difference would cancel.
fn exp_minus_tangent(t: f32) -> f32 {
    let series = t * t * (0.5 + t * (0.16666667 + t * (0.041666667 + t * (8.3333333e-3 + t * (1.3888889e-3 + t * (1.984127e-4 + t * 2.4801587e-5))))));
    return select(exp_of(t) - 1.0 - t, series, abs(t) < 0.5);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn evaluate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_index(workgroup, groups, local);
    if row >= params.batch {
        return;
    }
    var sum = 0.0;
    var h = 0.0;
    for (var d = 0u; d < params.dim; d += 1u) {
        let element = row * params.dim + d;
        let s = log_std[log_std_index(row, d)];
        sum += log_density((x[element] - mean[element]) * exp_of(-s), s);
        h += s + (HALF_LOG_TWO_PI + 0.5);
    }
    logp[row] = sum;
    entropy[row] = h;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sample(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_index(workgroup, groups, local);
    if row >= params.batch {
        return;
    }
    var sum = 0.0;
    for (var d = 0u; d < params.dim; d += 1u) {
        let at = (params.offset + row) * params.dim + d;
        let s = log_std[log_std_index(row, d)];
        actions[at] = mean[row * params.dim + d] + exp_of(s) * x[at];
        sum += log_density(x[at], s);
    }
    logp[params.offset + row] = sum;
}

// Writes the gradient of one row and dimension; what a log-std shared by the batch gets is returned to be summed.
fn store_gradient(row: u32, d: u32, to_mean: f32, to_log_std: f32) -> f32 {
    let element = row * params.dim + d;
    d_mean[element] = to_mean;
    if STATE_DEPENDENT {
        d_log_std[params.d_log_std_offset + element] = to_log_std;
    }
    return to_log_std;
}

fn store_part(part: u32, d: u32, sum: f32) {
    if !STATE_DEPENDENT {
        d_log_std[part * params.dim + d] = sum;
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_index(workgroup, groups, local);
    let part = index / params.dim;
    let d = index - part * params.dim;
    var sum = 0.0;
    for (var row = part * params.rows_per_part; row < min((part + 1u) * params.rows_per_part, params.batch); row += 1u) {
        let element = row * params.dim + d;
        let s = log_std[log_std_index(row, d)];
        let inverse = exp_of(-s);
        let z = (x[element] - mean[element]) * inverse;
        let has_slope = d_logp[row] != 0.0;
        let to_mean = select(0.0, d_logp[row] * z * inverse, has_slope);
        let to_log_std = select(0.0, d_logp[row] * (z * z - 1.0), has_slope);
        sum += store_gradient(row, d, to_mean, to_log_std + d_entropy[row]);
    }
    if part < params.parts {
        store_part(part, d, sum);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn kl(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_index(workgroup, groups, local);
    if row >= params.batch {
        return;
    }
    var sum = 0.0;
    for (var d = 0u; d < params.dim; d += 1u) {
        let element = row * params.dim + d;
        let q = q_log_std[log_std_index(row, d)];
        let z = (mean[element] - q_mean[element]) * exp_of(-q);
        sum += 0.5 * exp_minus_tangent(2.0 * (log_std[log_std_index(row, d)] - q)) + 0.5 * z * z;
    }
    kl_out[row] = sum;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn kl_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_index(workgroup, groups, local);
    let part = index / params.dim;
    let d = index - part * params.dim;
    var sum = 0.0;
    for (var row = part * params.rows_per_part; row < min((part + 1u) * params.rows_per_part, params.batch); row += 1u) {
        let element = row * params.dim + d;
        let q = q_log_std[log_std_index(row, d)];
        let inverse = exp_of(-q);
        let z = (mean[element] - q_mean[element]) * inverse;
        let t = 2.0 * (log_std[log_std_index(row, d)] - q);
        let variance_excess = exp_minus_tangent(t) + t;
        let to_mean = d_kl[row] * z * inverse;
        let to_log_std = d_kl[row] * select(variance_excess, -variance_excess - z * z, WITH_RESPECT_TO_Q);
        sum += store_gradient(row, d, select(to_mean, -to_mean, WITH_RESPECT_TO_Q), to_log_std);
    }
    if part < params.parts {
        store_part(part, d, sum);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn squashed_evaluate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = linear_index(workgroup, groups, local);
    if row >= params.batch {
        return;
    }
    var sum = 0.0;
    for (var d = 0u; d < params.dim; d += 1u) {
        let element = row * params.dim + d;
        let s = log_std[log_std_index(row, d)];
        let u = x[element];
        let squeezed = squash_log_det(u);
        // The difference is rounded, and may lead past the upper end.
        actions[element] = min(params.low + (params.high - params.low) * sigmoid(2.0 * u), params.high);
        log_det[element] = squeezed;
        sum += log_density((u - mean[element]) * exp_of(-s), s) - squeezed - params.log_half_width;
    }
    logp[row] = sum;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn squashed_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_index(workgroup, groups, local);
    let part = index / params.dim;
    let d = index - part * params.dim;
    var sum = 0.0;
    for (var row = part * params.rows_per_part; row < min((part + 1u) * params.rows_per_part, params.batch); row += 1u) {
        let element = row * params.dim + d;
        let s = log_std[log_std_index(row, d)];
        let inverse = exp_of(-s);
        let from_mean = x[element] - mean[element];
        let z = from_mean * inverse;
        let slope = 2.0 * tanh_of(x[element]);
        let to_mean = select(z * inverse, slope, REPARAMETERISED);
        let to_log_std = select(z * z - 1.0, slope * from_mean - 1.0, REPARAMETERISED);
        let has_slope = d_logp[row] != 0.0;
        sum += store_gradient(row, d, select(0.0, d_logp[row] * to_mean, has_slope), select(0.0, d_logp[row] * to_log_std, has_slope));
    }
    if part < params.parts {
        store_part(part, d, sum);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sum_parts(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let d = linear_index(workgroup, groups, local);
    if d >= params.dim {
        return;
    }
    var sum = 0.0;
    for (var part = 0u; part < params.parts; part += 1u) {
        sum += parts[part * params.dim + d];
    }
    d_log_std[params.d_log_std_offset + d] = sum;
}
