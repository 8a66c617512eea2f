// Peak of tensor cores: products of matrices in registers.
//
//   multiply_matrices: four matrices of sums a subgroup, each `rounds` times C <- A·B + C, with constant matrices A of
//                      multiplier and twice that, B of addend and twice that, so that no two of the four can be merged
//
// Shapes        result [len], WORKGROUP_SIZE a workgroup: elements of the subgroups' matrices, each the sum of four, an equal share of each
// Grid          one workgroup a part of `result`
// Workgroup     WORKGROUP_SIZE invocations, SUBGROUPS subgroups
// Bindings      0 params, 2 result
// Preconditions rounds < 65 535; WORKGROUP_SIZE divides 1024
//               Indices proven: i < 4·ELEMENTS before an operand is written; a subgroup's matrix in `staging` begins at its number, clamped, times
//               a matrix's elements; local < WORKGROUP_SIZE; i < len is compared first, and the host has checked result against len
// Determinism   no sums across subgroups
// Range         sums that are multiples of 1/16 below 2^20 are exact

struct PeakParams {
    len: u32,
    rounds: u32,
    multiplier: f32,
    addend: f32,
}

override WORKGROUP_SIZE: u32 = 128u;

// The number of subgroups in linear's tiles.
const SUBGROUPS: u32 = 1024u / (SIZE * SIZE);
const ELEMENTS: u32 = SIZE * SIZE;

@group(0) @binding(0) var<uniform> params: PeakParams;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

var<workgroup> operands: array<f16, 4u * ELEMENTS>;
var<workgroup> staging: array<f32, SUBGROUPS * ELEMENTS>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn multiply_matrices(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    for (var i = local; i < 4u * ELEMENTS; i += WORKGROUP_SIZE) {
        let once = select(params.addend, params.multiplier, i < 2u * ELEMENTS);
        operands[i] = f16(once * f32(1u + i / ELEMENTS % 2u));
    }
    workgroupBarrier();
    let a = coopLoadT<MatrixA>(&operands[0], SIZE);
    let twice_a = coopLoadT<MatrixA>(&operands[ELEMENTS], SIZE);
    let b = coopLoadT<MatrixB>(&operands[2u * ELEMENTS], SIZE);
    let twice_b = coopLoadT<MatrixB>(&operands[3u * ELEMENTS], SIZE);
    var x: MatrixC;
    var y: MatrixC;
    var z: MatrixC;
    var w: MatrixC;
    for (var round = 0u; round < params.rounds; round += 1u) {
        x = coopMultiplyAdd(a, b, x);
        y = coopMultiplyAdd(a, twice_b, y);
        z = coopMultiplyAdd(twice_a, b, z);
        w = coopMultiplyAdd(twice_a, twice_b, w);
    }
    coopStoreT(x + y + z + w, &staging[min(subgroup, SUBGROUPS - 1u) * ELEMENTS], SIZE);
    workgroupBarrier();
    let i = (workgroup.x + workgroup.y * workgroups.x) * WORKGROUP_SIZE + local;
    if i < params.len {
        result[i] = staging[local * (SUBGROUPS * ELEMENTS / WORKGROUP_SIZE)];
    }
}
