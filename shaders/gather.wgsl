// Minibatches by an index buffer.
//
//   rows:         target[i, c] = source[indices[start + i], c]                         i < count, c < width
//   pack_samples: samples[i]   = (old_logp[r], advantages[r], returns[r], old_values[r])   r = indices[start + i]
//
// Shapes        source [rows, width], indices [>= start + count], target [count, width], samples [count, 4]
// Grid          one invocation an element of target (rows) or a row of samples; linear, folded into two dimensions past 65 535 workgroups
// Workgroup     WORKGROUP_SIZE invocations
// Bindings      0 params; rows: 1 source, 2 indices, 3 target; pack_samples: 2 indices, 4..7 the columns, 8 samples
// Preconditions rows >= 1, width >= 1, count * width < 2^32; an index >= rows is clamped to rows - 1
//               Indices proven: element < count * width and i < count are compared first, what indices hold is clamped to rows - 1
// Determinism   copies; no order matters
// Range         any bits: rows moves words, so NaN payloads survive
// Tolerance     exact

struct GatherParams {
    rows: u32,
    width: u32,
    start: u32,
    count: u32,
}

override WORKGROUP_SIZE: u32 = 256u;

@group(0) @binding(0) var<uniform> params: GatherParams;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> target_rows: array<u32>;
@group(0) @binding(4) var<storage, read> old_logp: array<f32>;
@group(0) @binding(5) var<storage, read> advantages: array<f32>;
@group(0) @binding(6) var<storage, read> returns: array<f32>;
@group(0) @binding(7) var<storage, read> old_values: array<f32>;
@group(0) @binding(8) var<storage, read_write> samples: array<vec4<f32>>;

fn linear_index(workgroup: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (workgroup.y * groups.x + workgroup.x) * WORKGROUP_SIZE + local;
}

fn source_row(i: u32) -> u32 {
    return min(indices[params.start + i], params.rows - 1u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = linear_index(workgroup, groups, local);
    if element >= params.count * params.width {
        return;
    }
    let row = element / params.width;
    let column = element - row * params.width;
    target_rows[element] = source[source_row(row) * params.width + column];
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn pack_samples(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_index(workgroup, groups, local);
    if i >= params.count {
        return;
    }
    let row = source_row(i);
    samples[i] = vec4<f32>(old_logp[row], advantages[row], returns[row], old_values[row]);
}
