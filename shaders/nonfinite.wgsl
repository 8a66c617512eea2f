// Finding NaN and infinities without a read-back.
//
//   first = min { i < len : x[i] is NaN or infinite, and flags[i] is 0 where UNLESS is not NEVER }
//   if there is one and control[STOP] == 0:
//       control[STOP] = NON_FINITE, control[BAD_TENSOR] = tensor, control[BAD_ELEMENT] = first
//
// Shapes        x [len] as bits, flags [len], control [4]
// Grid          small_find: one workgroup, does all, for up to six x, one after the other. find_first: `workgroups` workgroups that stride over x;
//               then report: one invocation
// Workgroup     256 invocations
// Bindings      0 params, 1 x, 2 control, 3 to 7 further x of small_find, any where there are fewer, 8 flags, any where UNLESS = NEVER
// Preconditions 1 <= len < 2^32; control[BAD_ELEMENT] = 2^32 - 1 while control[STOP] = 0; tensor != 0; count <= 6; where UNLESS is not NEVER,
//               SEVERAL is false
//               Indices proven: i = first + (k - 1) * stride <= len - 1 by the choice of count; i < len is compared first; k < count <= 6; words
//               of control are constants below 4
// Determinism   a minimum of integers: order does not matter. The first tensor reported stays
// Range         any bits: a compiler may assume that no float is NaN, so exponents are tested as integers
// Tolerance     exact

struct NonfiniteParams {
    len: u32,
    workgroups: u32,
    tensor: u32,
}

struct SmallParams {
    lens: array<vec4<u32>, 2>,
    tensors: array<vec4<u32>, 2>,
    count: u32,
}

// Whether small_find has more than one x: choosing among them costs.
override SEVERAL: bool = false;

const NEVER = 0u;
const WORDS = 1u;
const FLOATS = 2u;
// Whether there are elements that are not looked at, and the flags, any but 0, that say which.
override UNLESS: u32 = NEVER;

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
@group(0) @binding(0) var<uniform> small: SmallParams;
@group(0) @binding(3) var<storage, read> second: array<u32>;
@group(0) @binding(4) var<storage, read> third: array<u32>;
@group(0) @binding(5) var<storage, read> fourth: array<u32>;
@group(0) @binding(6) var<storage, read> fifth: array<u32>;
@group(0) @binding(7) var<storage, read> sixth: array<u32>;
@group(0) @binding(8) var<storage, read> flags: array<u32>;

const MOST_SMALL = 6u;

var<workgroup> sh_firsts: array<atomic<u32>, MOST_SMALL>;

fn is_bad(word: u32) -> bool {
    return (word & EXPONENT) == EXPONENT;
}

// -0.0 is 0.
fn is_looked_at(i: u32) -> bool {
    if UNLESS == NEVER {
        return true;
    }
    return select(flags[i], flags[i] << 1u, UNLESS == FLOATS) == 0u;
}

// The smallest of first, first + stride, first + 2 * stride, ... below len at which x is not finite.
fn strided_first(first: u32, stride: u32) -> u32 {
    if first >= params.len {
        return NOWHERE;
    }
    let count = (params.len - 1u - first) / stride + 1u;
    var found = NOWHERE;
    for (var k = count; k > 0u; k--) {
        let i = first + (k - 1u) * stride;
        if is_bad(x[i]) && is_looked_at(i) {
            found = i;
        }
    }
    return found;
}

fn report_first(tensor: u32, first: u32) {
    if first != NOWHERE && atomicLoad(&control[STOP]) == 0u {
        atomicStore(&control[STOP], NON_FINITE);
        atomicStore(&control[BAD_TENSOR], tensor);
        atomicStore(&control[BAD_ELEMENT], first);
    }
}

fn word_of(k: u32, i: u32) -> u32 {
    if !SEVERAL {
        return x[i];
    }
    switch k {
        case 0u: { return x[i]; }
        case 1u: { return second[i]; }
        case 2u: { return third[i]; }
        case 3u: { return fourth[i]; }
        case 4u: { return fifth[i]; }
        default: { return sixth[i]; }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn small_find(@builtin(local_invocation_index) local: u32) {
    if local < MOST_SMALL {
        atomicStore(&sh_firsts[local], NOWHERE);
    }
    workgroupBarrier();
    for (var k = 0u; k < small.count; k++) {
        var first = NOWHERE;
        for (var i = local; i < small.lens[k / 4u][k % 4u]; i += WORKGROUP_SIZE) {
            if is_bad(word_of(k, i)) && is_looked_at(i) {
                first = min(first, i);
            }
        }
        if first != NOWHERE {
            atomicMin(&sh_firsts[k], first);
        }
    }
    workgroupBarrier();
    if local == 0u {
        for (var k = 0u; k < small.count; k++) {
            report_first(small.tensors[k / 4u][k % 4u], atomicLoad(&sh_firsts[k]));
        }
    }
}

// STOP does not change here, so all invocations see whether an earlier operation has stopped.
@compute @workgroup_size(WORKGROUP_SIZE)
fn find_first(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = strided_first(workgroup.x * WORKGROUP_SIZE + local, params.workgroups * WORKGROUP_SIZE);
    if first != NOWHERE && atomicLoad(&control[STOP]) == 0u {
        atomicMin(&control[BAD_ELEMENT], first);
    }
}

@compute @workgroup_size(1)
fn report() {
    report_first(params.tensor, atomicLoad(&control[BAD_ELEMENT]));
}
