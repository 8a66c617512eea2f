// Peaks of an adapter: copying, and arithmetic on registers.
//
//   copy: result[i] = source[i], i < len
//   fma:  twelve numbers an invocation, each `rounds` times x <- x * multiplier + addend; result[i] holds their sums in threes
//
// Shapes        source, result [len] of four numbers each
// Grid          copy: one invocation for every eight elements; multiply_add: one an element of result
// Workgroup     256 invocations
// Bindings      0 params, 1 source, 2 result
// Preconditions 1 <= len; rounds < 65 535
//               Indices proven: i < len is compared first; the host has checked both buffers against len
// Determinism   no sums across invocations
// Range         multiplier and addend keep x bounded: 0 <= multiplier < 1

struct PeakParams {
    len: u32,
    rounds: u32,
    multiplier: f32,
    addend: f32,
}

const WORKGROUP_SIZE = 256u;
const COPIED = 8u;

@group(0) @binding(0) var<uniform> params: PeakParams;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Neighbours copy neighbouring elements; several each, because starting an invocation costs too.
    let first = (workgroup.x + workgroup.y * workgroups.x) * WORKGROUP_SIZE * COPIED + lane;
    for (var k = 0u; k < COPIED; k++) {
        let i = first + k * WORKGROUP_SIZE;
        if i < params.len {
            result[i] = source[i];
        }
    }
}

// Twelve chains hide the latency of a multiply-add; their start values differ so that no two of them can be merged.
@compute @workgroup_size(WORKGROUP_SIZE)
fn multiply_add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (workgroup.x + workgroup.y * workgroups.x) * WORKGROUP_SIZE + lane;
    let multiplier = vec4<f32>(params.multiplier);
    let addend = vec4<f32>(params.addend);
    var x = vec4<f32>(0.0, 1.0, 2.0, 3.0) + f32(lane);
    var y = x + 4.0;
    var z = x + 8.0;
    for (var round = 0u; round < params.rounds; round++) {
        x = fma(x, multiplier, addend);
        y = fma(y, multiplier, addend);
        z = fma(z, multiplier, addend);
    }
    if i < params.len {
        result[i] = x + y + z;
    }
}
