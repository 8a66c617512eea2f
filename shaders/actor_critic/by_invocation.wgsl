// What all invocations of a subgroup read alike, in front of samples.wgsl: each invocation reads it all. The other way, and which
// runs where, is in by_subgroup.wgsl.

// Packed vectors that an invocation of update_parameters takes.
const VECTORS_EACH = 1u;
// Vectors that are read together, and which of them this invocation reads.
const BLOCK = 1u;
const own_of_block = 0u;
const UNROLLED = 1u;

fn join_subgroup() {}

// The i-th of a block, of which each invocation has read its own.
fn of_block(own: vec4<f32>, i: u32) -> vec4<f32> {
    return own;
}

fn word_of_block(own: u32, i: u32) -> u32 {
    return own;
}

// Vectors first + (i % 4) stride + (i / 4) stride_of_four of the weights, for i < 8.
fn eight_weights(first: u32, stride: u32, stride_of_four: u32) -> Eight {
    let fifth = first + stride_of_four;
    return Eight(
        weights.vectors[first],
        weights.vectors[first + stride],
        weights.vectors[first + 2u * stride],
        weights.vectors[first + 3u * stride],
        weights.vectors[fifth],
        weights.vectors[fifth + stride],
        weights.vectors[fifth + 2u * stride],
        weights.vectors[fifth + 3u * stride],
    );
}
