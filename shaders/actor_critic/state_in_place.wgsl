// Parameters, moments and gradients where the caller has them, behind tiles.wgsl. Header: shared.wgsl.

@group(0) @binding(14) var<storage, read_write> m: array<f32>;
@group(0) @binding(15) var<storage, read_write> v: array<f32>;

fn step_vector(i: u32, coef: f32, adam: AdamConstants, stopped: bool) {
    if stopped || i >= params.packed_vectors {
        return;
    }
    let at = packed_at(i);
    let last = params.len - 1u;
    let e = vec4<u32>(min(at.first, last), min(at.first + 1u, last), min(at.first + 2u, last), min(at.first + 3u, last));
    let grad = coef * vec4<f32>(grads[e.x], grads[e.y], grads[e.z], grads[e.w]);
    let param = packed[at.place];
    let first = adam_of(AdamElement(param.x, m[e.x], v[e.x]), grad.x, adam);
    let second = adam_of(AdamElement(param.y, m[e.y], v[e.y]), grad.y, adam);
    let third = adam_of(AdamElement(param.z, m[e.z], v[e.z]), grad.z, adam);
    let fourth = adam_of(AdamElement(param.w, m[e.w], v[e.w]), grad.w, adam);
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
