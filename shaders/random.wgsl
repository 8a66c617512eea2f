// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
//   words:       w[4b .. 4b + 3] = philox(counter = (b, purpose, stream low, stream high), key = (seed low, seed high))
//   uniform:     out[i] = ((w[i] >> 9) + 1/2) * 2^-23
//   normal:      Box-Muller of two words (v, w): out = sqrt(-2 log uniform(v)) * (cos, sin)(angle(w))
//   permuted:    out[offset + k len + i] = the first value below len on the cycle i, F(i), F(F(i)), ..., F a Feistel network of 24 rounds
//                (Mitchell et al. 2021, "Bandwidth-optimal random shuffling for GPUs"), keyed by the words of stream + k
//
// Shapes        out [len]; of permutations [>= offset + count len]
// Grid          one invocation four elements (uniform, normal) or one of the workgroups_each of a permutation; linear, folded past 65 535 workgroups
// Workgroup     WORKGROUP_SIZE invocations
// Bindings      0 params; 1 out (floats); 2 out (words)
// Preconditions 1 <= len < 2^32; permutations: low_bits + high_bits <= 32, len <= 2^(low_bits + high_bits), offset + count len < 2^32
//               Indices proven: 4 * block + i < len, and k < count, i < len, are compared first; where the network sends i is only written
// Determinism   every element is a function of (seed, stream, index)
// Range         uniform: 2^-24 .. 1 - 2^-24, all steps exact; normal: |x| <= sqrt(48 log 2) = 5.77, never 0
// Tolerance     uniform and permutations exact; normal relative, from the errors of sqrt, log and the two polynomials

struct RandomParams {
    len: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
}

struct PermutationParams {
    len: u32,
    count: u32,
    offset: u32,
    workgroups_each: u32,
    low_bits: u32,
    high_bits: u32,
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
}

const NUMBERS = 0u;
const PERMUTATION = 0x7065726du;
// Of four rounds each.
const KEY_BLOCKS = 6u;

override WORKGROUP_SIZE: u32 = 256u;

@group(0) @binding(0) var<uniform> params: RandomParams;
@group(0) @binding(0) var<uniform> permutation_params: PermutationParams;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read_write> permuted: array<u32>;

var<workgroup> sh_round_keys: array<vec4<u32>, KEY_BLOCKS>;

fn linear_workgroup(workgroup: vec3<u32>, groups: vec3<u32>) -> u32 {
    return workgroup.y * groups.x + workgroup.x;
}

// a * b = high * 2^32 + low, by halves of 16 bits; no intermediate sum reaches 2^32. Returns (high, low).
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let first = a_high * b_low + ((a_low * b_low) >> 16u);
    let second = a_low * b_high + (first & 0xffffu);
    return vec2<u32>(a_high * b_high + (first >> 16u) + (second >> 16u), a * b);
}

fn philox(first_counter: vec4<u32>, first_key: vec2<u32>) -> vec4<u32> {
    var counter = first_counter;
    var key = first_key;
    for (var round = 0u; round < 10u; round++) {
        let x = multiply_wide(0xd2511f53u, counter.x);
        let z = multiply_wide(0xcd9e8d57u, counter.z);
        counter = vec4<u32>(z.x ^ counter.y ^ key.x, z.y, x.x ^ counter.w ^ key.y, x.y);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return counter;
}

fn block_of_numbers(block: u32) -> vec4<u32> {
    let counter = vec4<u32>(block, NUMBERS, params.stream_low, params.stream_high);
    return philox(counter, vec2<u32>(params.seed_low, params.seed_high));
}

fn write_block(block: u32, values: vec4<f32>) {
    for (var i = 0u; i < min(4u, params.len - 4u * block); i++) {
        out[4u * block + i] = values[i];
    }
}

fn unit_interval(word: u32) -> f32 {
    return (f32(word >> 9u) + 0.5) * 0x1p-23f;
}

// 2 atanh(s) = log((1 + s)/(1 - s)) for 0 <= s <= 1/3, with a small relative error (the first term left out is s^16/17 of it).
fn twice_atanh(s: f32) -> f32 {
    let z = s * s;
    let tail = z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0 + z / 15.0))))));
    return 2.0 * (s + s * tail);
}

// -log u for 0 < u < 1. The builtin is off by up to 2^-21 on [1/2, 1], far more than the values near u = 1, so not used there.
fn negative_log(u: f32) -> f32 {
    if u < 0.5 {
        return -log(u);
    }
    return twice_atanh((1.0 - u) / (1.0 + u));
}

// (cos, sin) of a quarter of a turn times (q + t): q are the word's two highest bits, t its next 23, half a step off the ends, in
// (-1/2, 1/2). Both are exact, so only the polynomials on [-pi/4, pi/4] and their argument carry an error.
fn unit_vector(word: u32) -> vec2<f32> {
    let t = (f32((word >> 7u) & 0x7fffffu) + 0.5) * 0x1p-23f - 0.5;
    let angle = t * 1.5707963267948966f;
    let z = angle * angle;
    let sine = angle + angle * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z / 362880.0)));
    let cosine = 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0 - z / 3628800.0))));
    switch word >> 30u {
        case 0u: { return vec2<f32>(cosine, sine); }
        case 1u: { return vec2<f32>(-sine, cosine); }
        case 2u: { return vec2<f32>(-cosine, -sine); }
        default: { return vec2<f32>(sine, -cosine); }
    }
}

fn normal_pair(radius_word: u32, angle_word: u32) -> vec2<f32> {
    return sqrt(2.0 * negative_log(unit_interval(radius_word))) * unit_vector(angle_word);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn uniform_numbers(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = linear_workgroup(workgroup, groups) * WORKGROUP_SIZE + local;
    if block > (params.len - 1u) / 4u {
        return;
    }
    let words = block_of_numbers(block);
    let values = vec4<f32>(unit_interval(words.x), unit_interval(words.y), unit_interval(words.z), unit_interval(words.w));
    write_block(block, values);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn normal_numbers(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = linear_workgroup(workgroup, groups) * WORKGROUP_SIZE + local;
    if block > (params.len - 1u) / 4u {
        return;
    }
    let words = block_of_numbers(block);
    write_block(block, vec4<f32>(normal_pair(words.x, words.y), normal_pair(words.z, words.w)));
}

// A mixer of 32 bits (two rounds of multiplication and shifts); any function makes the network a permutation, a good one a random one.
fn mix(word: u32) -> u32 {
    var x = word;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

// Each half in turn is XORed with a function of the other half and a key, which the same step would undo: a bijection of
// 0 .. 2^(low_bits + high_bits).
fn feistel(value: u32) -> u32 {
    let low_mask = (1u << permutation_params.low_bits) - 1u;
    let high_mask = (1u << permutation_params.high_bits) - 1u;
    var low = value & low_mask;
    var high = value >> permutation_params.low_bits;
    for (var block = 0u; block < KEY_BLOCKS; block++) {
        let keys = sh_round_keys[block];
        high ^= mix(low + keys.x) & high_mask;
        low ^= mix(high + keys.y) & low_mask;
        high ^= mix(low + keys.z) & high_mask;
        low ^= mix(high + keys.w) & low_mask;
    }
    return (high << permutation_params.low_bits) | low;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn permutations(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let own_workgroup = linear_workgroup(workgroup, groups);
    let which = own_workgroup / permutation_params.workgroups_each;
    let stream_low = permutation_params.stream_low + which;
    let stream_high = permutation_params.stream_high + select(0u, 1u, stream_low < which);
    for (var block = local; block < KEY_BLOCKS; block += WORKGROUP_SIZE) {
        let counter = vec4<u32>(block, PERMUTATION, stream_low, stream_high);
        sh_round_keys[block] = philox(counter, vec2<u32>(permutation_params.seed_low, permutation_params.seed_high));
    }
    workgroupBarrier();
    let i = (own_workgroup % permutation_params.workgroups_each) * WORKGROUP_SIZE + local;
    if which >= permutation_params.count || i >= permutation_params.len {
        return;
    }
    // The cycle through i comes back to i, so this ends; it takes less than two steps on average once len > 16.
    var value = feistel(i);
    while value >= permutation_params.len {
        value = feistel(value);
    }
    permuted[permutation_params.offset + which * permutation_params.len + i] = value;
}
