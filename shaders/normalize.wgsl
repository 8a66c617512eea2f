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
// Nor is anything squared as it comes: a workgroup takes its numbers times the power of two, exactly, that brings the largest of them to between 2 and 4.
//
// Shapes        x: elements offset + i * stride, i < vectors * len, vector by vector; values, returns [len]; moments [vectors, 2] = mean, std;
//               stats [stats_index + 1 or more]; partials [vectors, 2 * chunks + 1] = mean and sum of squares of each chunk, their exponents, and
//               the pivot
// Grid          a workgroup a chunk of `chunk` elements, at most 512 a vector, vector by vector; normalize_whole: one a vector; linear, folded past
//               65 535 workgroups. explain_chunks: one a chunk; explain_whole and explain: one
// Workgroup     WORKGROUP_SIZE, neighbours on neighbouring elements
// Bindings      0 params, 1 x, 2 moments, 3 partials, 4 values, 5 returns, 6 stats (words, so that NaN is written as bits)
// Preconditions len, stride >= 1; ddof <= 1; epsilon >= 0; offset + (vectors * len - 1) * stride < 2^32
//               Indices proven: i < count_of(chunk) keeps start + i below len; workgroups past the last vector leave, explain_chunks has none past the last
//               chunk; there are 2 * chunks + 1 partials a vector, and a stats buffer beyond stats_index; lanes are below WORKGROUP_SIZE, partners
//               below twice their reach
// Barriers      what ends a workgroup early is its own number
// Determinism   a fixed tree; one and two dispatches round differently
// Range         all of f32; what is below 2^-126 counts as 0
// Tolerance     from the root mean square distance to the first element, see kernels/normalize.rs

struct NormalizeParams {
    len: u32,
    vectors: u32,
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

var<workgroup> largest_of: array<vec2<u32>, WORKGROUP_SIZE>;

// The maximum over the workgroup, for everyone.
fn largest(value: vec2<u32>, local: u32) -> vec2<u32> {
    largest_of[local] = value;
    for (var reach = WORKGROUP_SIZE / 2u; reach > 0u; reach /= 2u) {
        workgroupBarrier();
        if local < reach {
            largest_of[local] = max(largest_of[local], largest_of[local + reach]);
        }
    }
    workgroupBarrier();
    let all = largest_of[0];
    // The next call overwrites them.
    workgroupBarrier();
    return all;
}

// |x| as an integer, in which order it is the same.
fn magnitude(x: f32) -> u32 {
    return bitcast<u32>(x) & 0x7fffffffu;
}

// The exponent of a magnitude. Where it is not large enough for squares to vanish anyway, not that small: so that 2^(1 - e) and 2^(e - 1) are normal.
fn exponent_of(magnitude: vec2<u32>) -> vec2<i32> {
    return clamp(vec2<i32>(magnitude >> vec2<u32>(23u)) - 127, vec2<i32>(-100), vec2<i32>(127));
}

// 2^n for normal results; beyond them the nearest.
fn power_of_two(n: i32) -> f32 {
    return bitcast<f32>(u32(clamp(n, -126, 127) + 127) << 23u);
}

// x * 2^n, exactly, by its exponent: compilers turn x * s - y * s into (x - y) * s, whose difference may overflow. 0 where the result is not normal;
// NaN and infinities stay.
fn scaled(x: f32, n: i32) -> f32 {
    let bits = bitcast<u32>(x);
    let exponent = i32((bits >> 23u) & 255u);
    let moved = bitcast<f32>(bits + (bitcast<u32>(n) << 23u));
    return select(select(0.0, moved, exponent > 0 && exponent + n > 0), x, exponent == 255);
}

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
    // Below 0 by rounding alone. A NaN fails the comparison and stays.
    let squares = sums.zw - sums.xy * shift;
    return Moments(shift, select(squares, vec2<f32>(), squares < vec2<f32>()));
}

fn count_of(chunk: u32) -> u32 {
    return min(params.chunk, params.len - chunk * params.chunk);
}

// Moments times powers of two: means are times 2^(1 - exponent), squares times the square of that.
struct Scaled {
    exponent: vec2<i32>,
    moments: Moments,
}

fn exponent_of_chunk(first: u32, chunk: u32) -> vec2<i32> {
    return vec2<i32>(partials[first + params.chunks + chunk].xy);
}

// What turns the chunk's numbers into those of a larger exponent.
fn factor_of_chunk(first: u32, chunk: u32, exponent: vec2<i32>) -> vec2<f32> {
    let less = exponent_of_chunk(first, chunk) - exponent;
    return vec2<f32>(power_of_two(less.x), power_of_two(less.y));
}

// Joins all chunks of the vector whose partials start at `first`.
fn join(first: u32, local: u32) -> Scaled {
    // Shifted to where order is that of unsigned numbers.
    var most = vec2<u32>();
    for (var chunk = local; chunk < params.chunks; chunk += WORKGROUP_SIZE) {
        most = max(most, vec2<u32>(exponent_of_chunk(first, chunk) + 127));
    }
    let exponent = vec2<i32>(largest(most, local)) - 127;
    var sum = vec2<f32>();
    for (var chunk = local; chunk < params.chunks; chunk += WORKGROUP_SIZE) {
        let mean = partials[first + chunk].xy * factor_of_chunk(first, chunk, exponent);
        sum += mean * (f32(count_of(chunk)) / f32(params.len));
    }
    let mean = total(vec4<f32>(sum, 0.0, 0.0), local).xy;
    var squares = vec2<f32>();
    for (var chunk = local; chunk < params.chunks; chunk += WORKGROUP_SIZE) {
        let factor = factor_of_chunk(first, chunk, exponent);
        let off = partials[first + chunk].xy * factor - mean;
        squares += partials[first + chunk].zw * factor * factor + off * off * f32(count_of(chunk));
    }
    return Scaled(exponent, Moments(mean, total(vec4<f32>(squares, 0.0, 0.0), local).xy));
}

fn store_partial(first: u32, chunk: u32, found: Scaled) {
    partials[first + chunk] = vec4<f32>(found.moments.mean, found.moments.squares);
    partials[first + params.chunks + chunk] = vec4<f32>(vec2<f32>(found.exponent), 0.0, 0.0);
}

// ---- normalize: the second quantity is unused

// The vector in hand, for all of a workgroup the same.
var<private> vector: u32;

fn at(i: u32) -> u32 {
    return params.offset + (vector * params.len + i) * params.stride;
}

fn first_partial() -> u32 {
    return vector * (2u * params.chunks + 1u);
}

// Where there are more workgroups than vectors have chunks.
fn is_past_the_end(workgroup: u32) -> bool {
    return workgroup >= params.vectors * params.chunks;
}

// Of elements start .. start + count, and of the vector's first.
fn exponent_of_x(start: u32, count: u32, local: u32) -> i32 {
    var most = magnitude(x[at(0u)]);
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        most = max(most, magnitude(x[at(start + i)]));
    }
    return exponent_of(largest(vec2<u32>(most), local)).x;
}

// Times 2^(1 - exponent), and the centre likewise.
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

fn moments_of_x(start: u32, count: u32, exponent: i32, pivot: f32, local: u32) -> MomentsOfX {
    var from_pivot = vec2<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        let distance = scaled(x[at(start + i)], 1 - exponent) - pivot;
        from_pivot += vec2<f32>(distance, abs(distance));
    }
    let means = total(vec4<f32>(from_pivot, 0.0, 0.0), local).xy / f32(count);
    let centre = as_rounded(vec2<f32>(pivot + means.x, 0.0), local).x;
    // Distances to the centre all but cancel: multiples of `step` add up without rounding, and the small rests apart.
    let centre_halves = halves(centre);
    let step = max(binade(means.y), 1e-30) / 1024.0;
    var sums = vec3<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        let distance = halves(scaled(x[at(start + i)], 1 - exponent)) - centre_halves;
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

// Normalises elements start .. start + count, with the mean relative to the pivot; all numbers times 2^(1 - exponent). Whoever has element 0 writes
// the moments.
fn normalize_x(start: u32, count: u32, exponent: i32, pivot: f32, all: Moments, local: u32) {
    let leaves_x = params.len <= params.ddof;
    var variance = 0.0;
    if !leaves_x {
        variance = all.squares.x / f32(params.len - params.ddof);
    }
    let deviation = sqrt(variance);
    if start == 0u && local == 0u {
        moments[2u * vector] = (pivot + all.mean.x) * power_of_two(exponent - 1);
        moments[2u * vector + 1u] = deviation * power_of_two(exponent - 1);
    }
    let epsilon = params.epsilon * power_of_two(1 - exponent);
    var denominator = deviation + epsilon;
    if EPSILON_MODE == ADD_TO_VARIANCE {
        // Beyond 1e18 the square may overflow, and the variance, at most 16, is nothing beside it.
        denominator = select(epsilon, sqrt(variance + epsilon * epsilon), epsilon < 1e18);
    } else if EPSILON_MODE == MAX {
        denominator = max(deviation, epsilon);
    }
    if !leaves_x {
        let pivot_halves = halves(pivot);
        let factor = halves(select(0.0, 1.0 / denominator, denominator > 0.0));
        for (var i = local; i < count; i += WORKGROUP_SIZE) {
            x[at(start + i)] = scaled_distance(scaled(x[at(start + i)], 1 - exponent), pivot_halves, all.mean.x, factor);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn normalize_whole(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    vector = workgroup.y * groups.x + workgroup.x;
    if is_past_the_end(vector) {
        return;
    }
    let exponent = exponent_of_x(0u, params.len, local);
    let found = moments_of_x(0u, params.len, exponent, scaled(x[at(0u)], 1 - exponent), local);
    // The centre as pivot: next to nothing is left to be rounded of the mean, whose error all samples would share.
    normalize_x(0u, params.len, exponent, found.centre, found.about_centre, local);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn normalize_chunks(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup.y * groups.x + workgroup.x;
    if is_past_the_end(index) {
        return;
    }
    vector = index / params.chunks;
    let chunk = index - vector * params.chunks;
    let exponent = exponent_of_x(chunk * params.chunk, count_of(chunk), local);
    let pivot = scaled(x[at(0u)], 1 - exponent);
    let found = moments_of_x(chunk * params.chunk, count_of(chunk), exponent, pivot, local);
    if local == 0u {
        let mean = found.centre - pivot + found.about_centre.mean;
        store_partial(first_partial(), chunk, Scaled(vec2<i32>(exponent), Moments(mean, found.about_centre.squares)));
        if chunk == 0u {
            partials[first_partial() + 2u * params.chunks] = vec4<f32>(x[at(0u)], 0.0, 0.0, 0.0);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn normalize_apply(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup.y * groups.x + workgroup.x;
    if is_past_the_end(index) {
        return;
    }
    vector = index / params.chunks;
    let chunk = index - vector * params.chunks;
    let all = join(first_partial(), local);
    let exponent = all.exponent.x;
    let pivot = scaled(partials[first_partial() + 2u * params.chunks].x, 1 - exponent);
    normalize_x(chunk * params.chunk, count_of(chunk), exponent, pivot, all.moments, local);
}

// ---- explained variance: of residuals and of returns

// Of elements start .. start + count, and of the first: residuals by what they are differences of.
fn exponents_of_returns(start: u32, count: u32, local: u32) -> vec2<i32> {
    var most = vec2<u32>(max(magnitude(values[0]), magnitude(returns[0])), magnitude(returns[0]));
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        let of_return = magnitude(returns[start + i]);
        most = max(most, vec2<u32>(max(magnitude(values[start + i]), of_return), of_return));
    }
    return exponent_of(largest(most, local));
}

fn residual_and_return(i: u32, exponent: vec2<i32>) -> vec2<f32> {
    let n = 1 - exponent;
    return vec2<f32>(scaled(returns[i], n.x) - scaled(values[i], n.x), scaled(returns[i], n.y));
}

fn moments_of_returns(start: u32, count: u32, local: u32) -> Scaled {
    let exponent = exponents_of_returns(start, count, local);
    let pivot = residual_and_return(0u, exponent);
    var sum = vec2<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        sum += residual_and_return(start + i, exponent) - pivot;
    }
    let centre = as_rounded(pivot + total(vec4<f32>(sum, 0.0, 0.0), local).xy / f32(count), local);
    var sums = vec4<f32>();
    for (var i = local; i < count; i += WORKGROUP_SIZE) {
        let distance = residual_and_return(start + i, exponent) - centre;
        sums += vec4<f32>(distance, distance * distance);
    }
    let about_centre = moments_about(total(sums, local), count);
    return Scaled(exponent, Moments(centre - pivot + about_centre.mean, about_centre.squares));
}

fn store_explained_variance(all: Scaled, local: u32) {
    if local == 0u {
        var bits = params.nan_bits;
        let squares = all.moments.squares;
        if squares.y > 0.0 {
            // Twice, since the square of the power of two may be beyond f32. Residuals that are all the same leave nothing unexplained.
            let factor = power_of_two(all.exponent.x - all.exponent.y);
            let unexplained = select(squares.x / squares.y * factor * factor, 0.0, squares.x == 0.0);
            bits = bitcast<u32>(1.0 - unexplained);
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
    let found = moments_of_returns(chunk * params.chunk, count_of(chunk), local);
    if local == 0u {
        store_partial(0u, chunk, found);
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn explain(@builtin(local_invocation_index) local: u32) {
    store_explained_variance(join(0u, local), local);
}
