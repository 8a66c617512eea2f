// Categorical distributions from logits, with optional masks: log p = l − max − log Σ exp(l − max) over the valid actions.
//
//   distribution  log p, p, log-sum-exp, mode              evaluate     log p[action], H = −Σ p·log p
//   sample        first action with Σ_{j<=a} p_j > u       backward     d_logp·(1[a] − p) − d_entropy·p·(log p + H)
//   kl            Σ p·(log p − log q)                      kl_backward  d_kl·p·(log p − log q − KL), or d_kl·(q − p) for q
//
// Shapes        logits, mask, log_probs, probs, d_logits [batch, actions]; all others [batch], of sample [>= offset + batch]
// Grid          LANES invocations a row, WORKGROUP_SIZE / LANES rows a workgroup; linear, folded past 65 535 workgroups
// Workgroup     WORKGROUP_SIZE invocations
// Bindings      0 params, 1 logits, 2 mask (anything where MASKED is false), 3.. as declared
// Preconditions sizes >= 1, batch * actions < 2^32. A masked action has logp 0 without gradient, one out of range NaN; a row without a valid
//               action has zeros everywhere
//               Indices proven: rows are clamped to batch - 1, actions walked below params.actions, an action from a buffer compared with it first;
//               lanes stay within the LANES of their row
// Determinism   fixed order: each lane its share in order, then a tree over lanes
// Range         finite logits; the maximum is taken out, so no exponential overflows
// Tolerance     derived in src/kernels/policy/tolerance.rs

struct CategoricalParams {
    batch: u32,
    actions: u32,
    offset: u32,
}

override WORKGROUP_SIZE: u32 = 64u;
// Invocations that share a row: a power of two up to WORKGROUP_SIZE.
override LANES: u32 = 1u;
override MASKED: bool = false;
// Of kl_backward: whether the gradient is with respect to q instead of p.
override WITH_RESPECT_TO_Q: bool = false;

@group(0) @binding(0) var<uniform> params: CategoricalParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read> q_logits: array<f32>;
@group(0) @binding(4) var<storage, read> actions: array<u32>;
@group(0) @binding(5) var<storage, read> uniforms: array<f32>;
@group(0) @binding(6) var<storage, read> d_logp: array<f32>;
@group(0) @binding(7) var<storage, read> d_entropy: array<f32>;
@group(0) @binding(8) var<storage, read> d_kl: array<f32>;
@group(0) @binding(9) var<storage, read_write> log_probs: array<f32>;
@group(0) @binding(10) var<storage, read_write> probs: array<f32>;
@group(0) @binding(11) var<storage, read_write> logsumexp: array<f32>;
@group(0) @binding(12) var<storage, read_write> mode: array<u32>;
@group(0) @binding(13) var<storage, read_write> logp: array<f32>;
@group(0) @binding(14) var<storage, read_write> entropy: array<f32>;
@group(0) @binding(15) var<storage, read_write> drawn: array<u32>;
@group(0) @binding(16) var<storage, read_write> d_logits: array<f32>;
@group(0) @binding(17) var<storage, read_write> kl_out: array<f32>;

const LOWEST: f32 = -3.4e38;
const NO_ACTION: u32 = 0xffffffffu;

var<workgroup> sh_floats: array<f32, WORKGROUP_SIZE>;
var<workgroup> sh_words: array<u32, WORKGROUP_SIZE>;

struct Place {
    row: u32,          // the row of this invocation, clamped to the last
    lane: u32,         // its number among those of the row
    first_lane: u32,   // index of lane 0 in workgroup memory
    inside: bool,      // whether the row exists; those past the end compute along, so that all reach the barriers
}

fn place(workgroup: vec3<u32>, groups: vec3<u32>, local: u32) -> Place {
    let invocation = (workgroup.y * groups.x + workgroup.x) * WORKGROUP_SIZE + local;
    let row = invocation / LANES;
    let lane = local % LANES;
    return Place(min(row, params.batch - 1u), lane, local - lane, row < params.batch);
}

fn valid(element: u32) -> bool {
    if MASKED {
        return mask[element] != 0u;
    }
    return true;
}

fn sum_over_lanes(at: Place, value: f32) -> f32 {
    if LANES == 1u {
        return value;
    }
    let mine = at.first_lane + at.lane;
    workgroupBarrier();
    sh_floats[mine] = value;
    workgroupBarrier();
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        if at.lane < step {
            sh_floats[mine] += sh_floats[mine + step];
        }
        workgroupBarrier();
    }
    return sh_floats[at.first_lane];
}

fn max_over_lanes(at: Place, value: f32) -> f32 {
    if LANES == 1u {
        return value;
    }
    let mine = at.first_lane + at.lane;
    workgroupBarrier();
    sh_floats[mine] = value;
    workgroupBarrier();
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        if at.lane < step {
            sh_floats[mine] = max(sh_floats[mine], sh_floats[mine + step]);
        }
        workgroupBarrier();
    }
    return sh_floats[at.first_lane];
}

fn min_over_lanes(at: Place, value: u32) -> u32 {
    if LANES == 1u {
        return value;
    }
    let mine = at.first_lane + at.lane;
    workgroupBarrier();
    sh_words[mine] = value;
    workgroupBarrier();
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        if at.lane < step {
            sh_words[mine] = min(sh_words[mine], sh_words[mine + step]);
        }
        workgroupBarrier();
    }
    return sh_words[at.first_lane];
}

// What makes log-probabilities of a row of logits.
struct RowSums {
    maximum: f32,
    sum: f32,      // Σ exp(l − maximum); 0 where no action is valid
    log_sum: f32,
}

fn row_sums(at: Place) -> RowSums {
    let base = at.row * params.actions;
    var largest = LOWEST;
    for (var a = at.lane; a < params.actions; a += LANES) {
        if valid(base + a) {
            largest = max(largest, logits[base + a]);
        }
    }
    let maximum = max_over_lanes(at, largest);
    var share = 0.0;
    for (var a = at.lane; a < params.actions; a += LANES) {
        if valid(base + a) {
            share += exp_of(logits[base + a] - maximum);
        }
    }
    let sum = sum_over_lanes(at, share);
    return RowSums(maximum, sum, log_of(sum));
}

fn q_row_sums(at: Place) -> RowSums {
    let base = at.row * params.actions;
    var largest = LOWEST;
    for (var a = at.lane; a < params.actions; a += LANES) {
        if valid(base + a) {
            largest = max(largest, q_logits[base + a]);
        }
    }
    let maximum = max_over_lanes(at, largest);
    var share = 0.0;
    for (var a = at.lane; a < params.actions; a += LANES) {
        if valid(base + a) {
            share += exp_of(q_logits[base + a] - maximum);
        }
    }
    let sum = sum_over_lanes(at, share);
    return RowSums(maximum, sum, log_of(sum));
}

fn log_prob(logit: f32, sums: RowSums) -> f32 {
    return logit - sums.maximum - sums.log_sum;
}

fn row_entropy(at: Place, sums: RowSums) -> f32 {
    let base = at.row * params.actions;
    var share = 0.0;
    for (var a = at.lane; a < params.actions; a += LANES) {
        if valid(base + a) {
            let log_p = log_prob(logits[base + a], sums);
            share -= exp_of(log_p) * log_p;
        }
    }
    return sum_over_lanes(at, share);
}

fn row_kl(at: Place, p: RowSums, q: RowSums) -> f32 {
    let base = at.row * params.actions;
    var share = 0.0;
    for (var a = at.lane; a < params.actions; a += LANES) {
        if valid(base + a) {
            let log_p = log_prob(logits[base + a], p);
            share += exp_of(log_p) * (log_p - log_prob(q_logits[base + a], q));
        }
    }
    return sum_over_lanes(at, share);
}

// A NaN that no compiler can see coming: WGSL lets constant ones be refused.
fn runtime_nan() -> f32 {
    return bitcast<f32>(0x7fc00000u | (params.batch & 1u));
}

fn action_log_prob(row: u32, action: u32, sums: RowSums) -> f32 {
    if action >= params.actions {
        return runtime_nan();
    }
    let element = row * params.actions + action;
    return select(0.0, log_prob(logits[element], sums), valid(element));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn distribution(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = place(workgroup, groups, local);
    let sums = row_sums(at);
    let base = at.row * params.actions;
    var first_best = NO_ACTION;
    for (var a = at.lane; a < params.actions; a += LANES) {
        let is_valid = valid(base + a);
        let log_p = select(0.0, log_prob(logits[base + a], sums), is_valid);
        if is_valid && logits[base + a] == sums.maximum {
            first_best = min(first_best, a);
        }
        if at.inside {
            log_probs[base + a] = log_p;
            probs[base + a] = select(0.0, exp_of(log_p), is_valid);
        }
    }
    let best = min_over_lanes(at, first_best);
    if at.inside && at.lane == 0u {
        logsumexp[at.row] = select(sums.sum, sums.maximum + sums.log_sum, sums.sum > 0.0);
        mode[at.row] = select(best, 0u, best == NO_ACTION);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn evaluate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = place(workgroup, groups, local);
    let sums = row_sums(at);
    let h = row_entropy(at, sums);
    if at.inside && at.lane == 0u {
        logp[at.row] = action_log_prob(at.row, actions[at.row], sums);
        entropy[at.row] = h;
    }
}

// Each lane owns a stretch of actions in order; the lane whose stretch of the cumulative sum holds the target looks for the action.
@compute @workgroup_size(WORKGROUP_SIZE)
fn sample(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = place(workgroup, groups, local);
    let sums = row_sums(at);
    let base = at.row * params.actions;
    let share = (params.actions + LANES - 1u) / LANES;
    let begin = min(at.lane * share, params.actions);
    let end = min(begin + share, params.actions);
    var stretch_sum = 0.0;
    var last_likely = NO_ACTION;
    for (var a = begin; a < end; a += 1u) {
        if valid(base + a) {
            let weight = exp_of(logits[base + a] - sums.maximum);
            stretch_sum += weight;
            if weight > 0.0 {
                last_likely = a;
            }
        }
    }
    workgroupBarrier();
    sh_floats[local] = stretch_sum;
    workgroupBarrier();
    var before = 0.0;
    for (var lane = 0u; lane < at.lane; lane += 1u) {
        before += sh_floats[at.first_lane + lane];
    }
    let wanted = uniforms[params.offset + at.row] * sums.sum;
    var found = NO_ACTION;
    if wanted >= before && wanted < before + stretch_sum {
        var cumulative = before;
        for (var a = begin; a < end; a += 1u) {
            if valid(base + a) {
                cumulative += exp_of(logits[base + a] - sums.maximum);
                if found == NO_ACTION && cumulative > wanted {
                    found = a;
                }
            }
        }
        found = min(found, last_likely);
    }
    let chosen = min_over_lanes(at, found);
    // Rounding can leave the whole sum at or below the target: then the last action whose probability is not 0. Of complements the least is
    // that of the largest.
    let fallback = ~min_over_lanes(at, select(~last_likely, NO_ACTION, last_likely == NO_ACTION));
    if at.inside && at.lane == 0u {
        var action = select(chosen, fallback, chosen == NO_ACTION);
        action = select(action, 0u, sums.sum == 0.0);
        drawn[params.offset + at.row] = action;
        logp[params.offset + at.row] = select(action_log_prob(at.row, action, sums), 0.0, sums.sum == 0.0);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = place(workgroup, groups, local);
    let sums = row_sums(at);
    let h = row_entropy(at, sums);
    let base = at.row * params.actions;
    let action = actions[at.row];
    var d = d_logp[at.row];
    if action >= params.actions {
        d = runtime_nan();
    } else if !valid(base + action) {
        d = 0.0;
    }
    if at.inside {
        for (var a = at.lane; a < params.actions; a += LANES) {
            let log_p = log_prob(logits[base + a], sums);
            let p = exp_of(log_p);
            let gradient = d * (select(0.0, 1.0, a == action) - p) - p * (log_p + h) * d_entropy[at.row];
            d_logits[base + a] = select(0.0, gradient, valid(base + a));
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn kl(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = place(workgroup, groups, local);
    let value = row_kl(at, row_sums(at), q_row_sums(at));
    if at.inside && at.lane == 0u {
        kl_out[at.row] = value;
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn kl_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = place(workgroup, groups, local);
    let p_sums = row_sums(at);
    let q_sums = q_row_sums(at);
    let value = row_kl(at, p_sums, q_sums);
    let base = at.row * params.actions;
    if at.inside {
        for (var a = at.lane; a < params.actions; a += LANES) {
            let log_p = log_prob(logits[base + a], p_sums);
            let log_q = log_prob(q_logits[base + a], q_sums);
            let with_p = exp_of(log_p) * (log_p - log_q - value);
            let gradient = d_kl[at.row] * select(with_p, exp_of(log_q) - exp_of(log_p), WITH_RESPECT_TO_Q);
            d_logits[base + a] = select(0.0, gradient, valid(base + a));
        }
    }
}
