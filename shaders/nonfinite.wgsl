// Finding NaN and infinities without a read-back.
//
//   first = min { i < len : x[i] is NaN or infinite }
//   if there is one and control[BAD_TENSOR] == 0:
//       control[STOP] = NON_FINITE, control[BAD_TENSOR] = tensor, control[BAD_ELEMENT] = first
//
// Shapes        x [len] as bits, control [4]
// Grid          small_find: one workgroup, does all. find_first: `workgroups` workgroups that stride over x; then report: one invocation
// Workgroup     256 invocations
// Bindings      0 params, 1 x, 2 control
// Preconditions 1 <= len < 2^32; control[BAD_ELEMENT] = 2^32 - 1 while control[BAD_TENSOR] = 0; tensor != 0
//               Indices proven: i = first + (k - 1) * stride <= len - 1 by the choice of count; words of control are constants below 4
// Determinism   a minimum of integers: order does not matter. The first tensor reported stays
// Range         any bits: a compiler may assume that no float is NaN, so exponents are tested as integers
// Tolerance     exact

struct NonfiniteParams {
    len: u32,
    workgroups: u32,
    tensor: u32,
}

const WORKGROUP_SIZE = 256u;
const EXPONENT = 0x7f800000u;
const NOWHERE = 0xffffffffu;

const STOP = 0u;
const BAD_TENSOR = 2u;
const BAD_ELEMENT = 3u;
const NON_FINITE = 2u;

@group(0) @binding(0) var<uniform> params: NonfiniteParams;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> control: array<atomic<u32>>;

var<workgroup> sh_first: atomic<u32>;

// The smallest of first, first + stride, first + 2 * stride, ... below len at which x is not finite.
fn strided_first(first: u32, stride: u32) -> u32 {
    if first >= params.len {
        return NOWHERE;
    }
    let count = (params.len - 1u - first) / stride + 1u;
    var found = NOWHERE;
    for (var k = count; k > 0u; k--) {
        let i = first + (k - 1u) * stride;
        if (x[i] & EXPONENT) == EXPONENT {
            found = i;
        }
    }
    return found;
}

fn report_first(first: u32) {
    if first != NOWHERE && atomicLoad(&control[BAD_TENSOR]) == 0u {
        atomicStore(&control[STOP], NON_FINITE);
        atomicStore(&control[BAD_TENSOR], params.tensor);
        atomicStore(&control[BAD_ELEMENT], first);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn small_find(@builtin(local_invocation_index) local: u32) {
    if local == 0u {
        atomicStore(&sh_first, NOWHERE);
    }
    workgroupBarrier();
    let first = strided_first(local, WORKGROUP_SIZE);
    if first != NOWHERE {
        atomicMin(&sh_first, first);
    }
    workgroupBarrier();
    if local == 0u {
        report_first(atomicLoad(&sh_first));
    }
}

// BAD_TENSOR does not change here, so all invocations see whether an earlier operation has reported.
@compute @workgroup_size(WORKGROUP_SIZE)
fn find_first(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = strided_first(workgroup.x * WORKGROUP_SIZE + local, params.workgroups * WORKGROUP_SIZE);
    if first != NOWHERE && atomicLoad(&control[BAD_TENSOR]) == 0u {
        atomicMin(&control[BAD_ELEMENT], first);
    }
}

@compute @workgroup_size(1)
fn report() {
    report_first(atomicLoad(&control[BAD_ELEMENT]));
}
