// Parameters, moments and gradients where the caller has them, behind tiles.wgsl. Header: shared.wgsl.

@group(0) @binding(14) var<storage, read_write> m: array<f32>;
@group(0) @binding(15) var<storage, read_write> v: array<f32>;

// A vector as it is before the step.
struct Before {
    at: Packed,
    param: vec4<f32>,
    grad: vec4<f32>,
    m: vec4<f32>,
    v: vec4<f32>,
}

var<private> before: Before;

// Reads all that an invocation needs before the norm is known, so that no load waits for another.
fn prepare(i: u32) {
    let at = packed_at(i);
    let e = min(vec4<u32>(at.first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.len - 1u));
    before = Before(
        at,
        packed[min(at.place, params.packed_vectors - 1u)],
        vec4<f32>(grads[e.x], grads[e.y], grads[e.z], grads[e.w]),
        vec4<f32>(m[e.x], m[e.y], m[e.z], m[e.w]),
        vec4<f32>(v[e.x], v[e.y], v[e.z], v[e.w]),
    );
}

fn written_by(group: u32) -> Written {
    let read = squares_window.vectors[group];
    let is_one = group < params.square_groups;
    return Written(select(0.0, bitcast<f32>(read.x), is_one), select(NOWHERE, read.y, is_one));
}

// Every invocation adds up the same in the same order: none has to wait for another. Eight at a time, of which MOST_GROUPS is a multiple: nor does a load
// for the one before.
fn all_written() -> Written {
    var all = Written(0.0, NOWHERE);
    for (var group = 0u; group < params.square_groups; group += 8u) {
        let first = together(together(written_by(group), written_by(group + 1u)), together(written_by(group + 2u), written_by(group + 3u)));
        let second =
            together(together(written_by(group + 4u), written_by(group + 5u)), together(written_by(group + 6u), written_by(group + 7u)));
        all = together(all, together(first, second));
    }
    return all;
}

fn step_vector(i: u32, coef: f32, adam: AdamConstants, stopped: bool) {
    if stopped || i >= params.packed_vectors {
        return;
    }
    let at = before.at;
    let grad = coef * before.grad;
    let first = adam_of(AdamElement(before.param.x, before.m.x, before.v.x), grad.x, adam);
    let second = adam_of(AdamElement(before.param.y, before.m.y, before.v.y), grad.y, adam);
    let third = adam_of(AdamElement(before.param.z, before.m.z, before.v.z), grad.z, adam);
    let fourth = adam_of(AdamElement(before.param.w, before.m.w, before.v.w), grad.w, adam);
    if at.count > 0u {
        store_element(at.first, first);
    }
    if at.count > 1u {
        store_element(at.first + 1u, second);
    }
    if at.count > 2u {
        store_element(at.first + 2u, third);
    }
    if at.count > 3u {
        store_element(at.first + 3u, fourth);
    }
    packed[at.place] = of_parameters(vec4<f32>(first.param, second.param, third.param, fourth.param), at.count);
}

fn store_element(index: u32, element: AdamElement) {
    parameters[index] = element.param;
    m[index] = element.m;
    v[index] = element.v;
}
