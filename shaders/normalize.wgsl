// Moments of long vectors: normalisation in place, and explained variance.
//
//   normalize           x = (x - mean) / denominator    std = sqrt(sum (x - mean)^2 / (len - ddof))
//   explained variance  1 - Var(returns - values) / Var(returns), population variances; NaN where Var(returns) = 0
//   denominator         ADD_TO_STD: std + epsilon    ADD_TO_VARIANCE: sqrt(std^2 + epsilon^2)    MAX: max(std, epsilon)
//                       where it is 0, x becomes 0; with len <= ddof, x stays and std is 0
//
// Nothing is ever squared that is not centred. A workgroup centres its chunk on a rounded mean of its own, itself found from distances
// to the first element (so that constants give exactly 0), and corrects for what that centre is off; chunks are joined by their means
// (Chan et al. 1983). Two dispatches: chunks, then apply or explain, each of whose workgroups joins all chunks for itself. One dispatch
// for what one workgroup does as fast alone.
//
// Shapes        x: elements offset + i * stride, i < vectors * len, vector by vector; values, returns [len]; moments [vectors, 2] = mean, std;
//               stats [stats_index + 1 or more]; partials [vectors, chunks + 1] = mean and sum of squares of each chunk, the last the pivot
// Grid          x: a workgroup a chunk of `chunk` elements, at most 512; normalize_whole, explain_whole and explain: one. y: vectors
// Workgroup     WORKGROUP_SIZE, neighbours on neighbouring elements
// Bindings      0 params, 1 x, 2 moments, 3 partials, 4 values, 5 returns, 6 stats (words, so that NaN is written as bits)
// Preconditions len, stride >= 1; ddof <= 1; epsilon >= 0; offset + (vectors * len - 1) * stride < 2^32
//               Indices proven: i < count_of(chunk) keeps start + i below len; there are no workgroups past the last chunk or vector, chunks + 1 partials a vector, and a
//               stats buffer beyond stats_index; lanes are below WORKGROUP_SIZE, partners below twice their reach
// Determinism   a fixed tree; one and two dispatches round differently
// Range         |x - mean| from 1e-18 (below, squares vanish) to 1e18 (above, they overflow)
// Tolerance     from the root mean square distance to the first element, see kernels/normalize.rs

struct NormalizeParams {
    len: u32,
    offset: u32,
    stride: u32,
    ddof: u32,
    epsilon: f32,
    chunk: u32,
    chunks: u32,
    stats_index: u32,
    nan_bits: u32,
}

const ADD_TO_STD: u32 = 0u;
const ADD_TO_VARIANCE: u32 = 1u;
const MAX: u32 = 2u;
override EPSILON_MODE: u32 = ADD_TO_STD;

const WORKGROUP_SIZE: u32 = 256u;

@group(0) @binding(0) var<uniform> params: NormalizeParams;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> moments: array<f32>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> values: array<f32>;
@group(0) @binding(5) var<storage, read> returns: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<u32>;

var<workgroup> tree: array<vec4<f32>, WORKGROUP_SIZE>;

// The sum over the workgroup, for everyone.
fn total(term: vec4<f32>, local: u32) -> vec4<f32> {
    tree[local] = term;
    for (var reach = WORKGROUP_SIZE / 2u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if local < reach {
            tree[local] += tree[local + reach];
        }
    }
    workgroupBarrier();
    let sum = tree[0];
    // The next call overwrites the tree.
    workgroupBarrier();
    return sum;
}

var<workgroup> shared_centre: vec2<f32>;

// The same number, but by way of memory. WGSL lets compilers reorder sums, and Mesa turns (pivot + d) - pivot into d: what rounding took
// from the centre would be corrected for, though it had never been taken.
fn as_rounded(centre: vec2<f32>, local: u32) -> vec2<f32> {
    if local == 0u {
        shared_centre = centre;
    }
    workgroupBarrier();
    return shared_centre;
}

// Means relative to the pivot, and sums of squares about the mean, of two quantities at once.
struct Moments {
    mean: vec2<f32>,
    squares: vec2<f32>,
}

// From the sums of distances to a centre, and of their squares; the mean is relative to that centre. It is near the mean, so that the
// difference cancels little.
fn moments_about(sums: vec4<f32>, count: u32) -> Moments {
    let shift = sums.xy / f32(count);
    return Moments(shift, max(sums.zw - sums.xy * shift, vec2<f32>()));
}

fn count_of(chunk: u32) -> u32 {
    return min(params.chunk, params.len - chunk * params.chunk);
}

// Joins all chunks of the vector whose partials start at `first`.
fn join(first: u32, local: u32) -> Moments {
    var sum = vec2<f32>();
    for (var chunk = local; chunk < params.chunks; chunk += WORKGROUP_SIZE) {
        sum += partials[first + chunk].xy * (f32(count_of(chunk)) / f32(params.len));
    }
    let mean = total(vec4<f32>(sum, 0.0, 0.0), local).xy;
    var squares = vec2<f32>();
    for (var chunk = local; chunk < params.chunks; chunk += WORKGROUP_SIZE) {
        let off = partials[first + chunk].xy - mean;
        squares += partials[first + chunk].zw + off * off * f32(count_of(chunk));
    }
    return Moments(mean, total(vec4<f32>(squares, 0.0, 0.0), local).xy);
}

// ---- normalize: the second quantity is unused

// The vector in hand, for all of a workgroup the same.
var<private> vector: u32;

fn at(i: u32) -> u32 {
    return params.offset + (vector * params.len + i) * params.stride;
}

fn first_partial() -> u32 {
    return vector * (params.chunks + 1u);
}

struct MomentsOfX {
    centre: f32,
    about_centre: Moments,
}

// The first 12 bits of x's mantissa, and the others: a product of two first halves is exact.
fn halves(x: f32) -> vec2<f32> {
    let high = bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
    return vec2<f32>(high, x - high);
}

// The power of two below x, which is normal.
fn binade(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) & 0x7f800000u);
}

fn moments_of_x(start: u32, count: u32, pivot: f32, local: u32) -> MomentsOfX {
    var from_pivot = vec2<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        let distance = x[at(start + i)] - pivot;
        from_pivot += vec2<f32>(distance, abs(distance));
    }
    let means = total(vec4<f32>(from_pivot, 0.0, 0.0), local).xy / f32(count);
    let centre = as_rounded(vec2<f32>(pivot + means.x, 0.0), local).x;
    // Distances to the centre all but cancel: multiples of `step` add up without rounding, and the small rests apart.
    let centre_halves = halves(centre);
    let step = max(binade(means.y), 1e-30) / 1024.0;
    var sums = vec3<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        let distance = halves(x[at(start + i)]) - centre_halves;
        let steps = round(distance.x / step) * step;
        let whole_distance = distance.x + distance.y;
        sums += vec3<f32>(steps, (distance.x - steps) + distance.y, whole_distance * whole_distance);
    }
    let totals = total(vec4<f32>(sums, 0.0), local);
    return MomentsOfX(centre, moments_about(vec4<f32>(totals.x + totals.y, 0.0, totals.z, 0.0), count));
}

// (x - pivot - shift) * factor, rounded once where the result is normal: normalised values are averaged again, and what rounding does to
// them must not exceed what storing them does. All but the last sum is exact or small.
fn scaled_distance(x: f32, pivot: vec2<f32>, shift: f32, factor: vec2<f32>) -> f32 {
    let from_pivot = halves(x) - pivot;
    let low = from_pivot.y - shift;
    let distance_high = halves(from_pivot.x + low).x;
    let distance_low = (from_pivot.x - distance_high) + low;
    return distance_high * factor.x + (distance_high * factor.y + distance_low * (factor.x + factor.y));
}

// Normalises elements start .. start + count, with the mean relative to the pivot. Whoever has element 0 writes the moments.
fn normalize_x(start: u32, count: u32, pivot: f32, all: Moments, local: u32) {
    let leaves_x = params.len <= params.ddof;
    var variance = 0.0;
    if !leaves_x {
        variance = all.squares.x / f32(params.len - params.ddof);
    }
    let deviation = sqrt(variance);
    if start == 0u && local == 0u {
        moments[2u * vector] = pivot + all.mean.x;
        moments[2u * vector + 1u] = deviation;
    }
    var denominator = deviation + params.epsilon;
    if EPSILON_MODE == ADD_TO_VARIANCE {
        denominator = sqrt(variance + params.epsilon * params.epsilon);
    } else if EPSILON_MODE == MAX {
        denominator = max(deviation, params.epsilon);
    }
    if !leaves_x {
        let pivot_halves = halves(pivot);
        let factor = halves(select(0.0, 1.0 / denominator, denominator > 0.0));
        for (var i = local; i < count; i += WORKGROUP_SIZE) {
            x[at(start + i)] = scaled_distance(x[at(start + i)], pivot_halves, all.mean.x, factor);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn normalize_whole(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    vector = workgroup.y;
    let found = moments_of_x(0u, params.len, x[at(0u)], local);
    // The centre as pivot: next to nothing is left to be rounded of the mean, whose error all samples would share.
    normalize_x(0u, params.len, found.centre, found.about_centre, local);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn normalize_chunks(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    vector = workgroup.y;
    let chunk = workgroup.x;
    let pivot = x[at(0u)];
    let found = moments_of_x(chunk * params.chunk, count_of(chunk), pivot, local);
    if local == 0u {
        let mean = found.centre - pivot + found.about_centre.mean.x;
        partials[first_partial() + chunk] = vec4<f32>(mean, 0.0, found.about_centre.squares);
        if chunk == 0u {
            partials[first_partial() + params.chunks] = vec4<f32>(pivot, 0.0, 0.0, 0.0);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn normalize_apply(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    vector = workgroup.y;
    let chunk = workgroup.x;
    let pivot = partials[first_partial() + params.chunks].x;
    normalize_x(chunk * params.chunk, count_of(chunk), pivot, join(first_partial(), local), local);
}

// ---- explained variance: of residuals and of returns

fn residual_and_return(i: u32) -> vec2<f32> {
    return vec2<f32>(returns[i] - values[i], returns[i]);
}

fn moments_of_returns(start: u32, count: u32, local: u32) -> Moments {
    let pivot = residual_and_return(0u);
    var sum = vec2<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        sum += residual_and_return(start + i) - pivot;
    }
    let centre = as_rounded(pivot + total(vec4<f32>(sum, 0.0, 0.0), local).xy / f32(count), local);
    var sums = vec4<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        let distance = residual_and_return(start + i) - centre;
        sums += vec4<f32>(distance, distance * distance);
    }
    let about_centre = moments_about(total(sums, local), count);
    return Moments(centre - pivot + about_centre.mean, about_centre.squares);
}

fn store_explained_variance(all: Moments, local: u32) {
    if local == 0u {
        var bits = params.nan_bits;
        if all.squares.y > 0.0 {
            bits = bitcast<u32>(1.0 - all.squares.x / all.squares.y);
        }
        stats[params.stats_index] = bits;
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn explain_whole(@builtin(local_invocation_index) local: u32) {
    store_explained_variance(moments_of_returns(0u, params.len, local), local);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn explain_chunks(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = workgroup.x;
    let moments_of_chunk = moments_of_returns(chunk * params.chunk, count_of(chunk), local);
    if local == 0u {
        partials[chunk] = vec4<f32>(moments_of_chunk.mean, moments_of_chunk.squares);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn explain(@builtin(local_invocation_index) local: u32) {
    store_explained_variance(join(0u, local), local);
}
