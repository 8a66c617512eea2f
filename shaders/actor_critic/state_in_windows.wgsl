// Parameters, moments and gradients packed, all in the same order, behind samples.wgsl: for software adapters, which read a uniform buffer many times
// as fast as storage, and store a vector for little more than an element. A uniform buffer cannot be written in the same dispatch, so each step
// reads one copy of parameters and moments and writes the other, in windows one after the other. Header: shared.wgsl.

@group(0) @binding(14) var<storage, read_write> m: array<f32>;
@group(0) @binding(15) var<storage, read_write> v: array<f32>;
@group(0) @binding(32) var<uniform> grads_window: Window;
@group(0) @binding(33) var<uniform> m_window: Window;
@group(0) @binding(34) var<uniform> v_window: Window;
@group(0) @binding(35) var<storage, read_write> flat_grads: array<f32>;

@compute @workgroup_size(VECTOR_LANES)
fn pack_moments(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * VECTOR_LANES + local;
    let at = packed_at(i);
    var first_moment = vec4<f32>();
    var second_moment = vec4<f32>();
    for (var c = 0u; c < at.count; c++) {
        first_moment[c] = m[at.first + c];
        second_moment[c] = v[at.first + c];
    }
    if i < params.packed_vectors {
        packed[WINDOW + i] = first_moment;
        packed[2u * WINDOW + i] = second_moment;
    }
}

@compute @workgroup_size(VECTOR_LANES)
fn unpack_state(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * VECTOR_LANES + local;
    if i >= params.packed_vectors {
        return;
    }
    let at = packed_at(i);
    let param = weights.vectors[i];
    let first_moment = m_window.vectors[i];
    let second_moment = v_window.vectors[i];
    let grad = grads_window.vectors[i];
    for (var c = 0u; c < at.count; c++) {
        parameters[at.first + c] = param[c];
        m[at.first + c] = first_moment[c];
        v[at.first + c] = second_moment[c];
        flat_grads[at.first + c] = grad[c];
    }
}

fn prepare(i: u32) {
    join_subgroup();
}

// Every invocation adds up the same in the same order, so none has to wait for another.
fn all_written() -> Written {
    var all = Written(0.0, NOWHERE);
    for (var block = 0u; block < params.square_groups; block += BLOCK) {
        let own = squares_window.vectors[min(block + own_of_block, MOST_GROUPS - 1u)];
        all = added(all, Written(bitcast<f32>(own.x), own.y), min(params.square_groups - block, BLOCK));
    }
    return all;
}

fn step_vector(i: u32, coef: f32, adam: AdamConstants, stopped: bool) {
    if i >= params.packed_vectors {
        return;
    }
    let grad = coef * grads_window.vectors[i];
    let old_param = weights.vectors[i];
    let old_m = m_window.vectors[i];
    let old_v = v_window.vectors[i];
    let first = adam_of(AdamElement(old_param.x, old_m.x, old_v.x), grad.x, adam);
    let second = adam_of(AdamElement(old_param.y, old_m.y, old_v.y), grad.y, adam);
    let third = adam_of(AdamElement(old_param.z, old_m.z, old_v.z), grad.z, adam);
    let fourth = adam_of(AdamElement(old_param.w, old_m.w, old_v.w), grad.w, adam);
    let param = of_parameters(vec4<f32>(first.param, second.param, third.param, fourth.param), packed_at(i).count);
    packed[i] = select(param, old_param, stopped);
    packed[WINDOW + i] = select(vec4<f32>(first.m, second.m, third.m, fourth.m), old_m, stopped);
    packed[2u * WINDOW + i] = select(vec4<f32>(first.v, second.v, third.v, fourth.v), old_v, stopped);
}
