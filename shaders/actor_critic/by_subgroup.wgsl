// What all invocations of a subgroup read alike, in front of samples.wgsl: eight invocations read a vector each, and all take it
// from there. For software adapters, whose loads are made lane by lane while a shuffle is one instruction; needs subgroups of eight or more,
// of which the first eight take part. Where there are none, by_invocation.wgsl, which gives the same bits.

// What an invocation of update_parameters does before its first vector is worth several.
const VECTORS_EACH = 4u;
const BLOCK = 8u;
// Of a block, what parameters_gradient adds before it stores sums again: a variable in a loop is in memory, and masked.
const UNROLLED = 2u;
var<private> own_of_block: u32;

// Before anything else here, and before any invocation leaves.
fn join_subgroup() {
    own_of_block = subgroupExclusiveAdd(1u) % BLOCK;
}

fn of_block(own: vec4<f32>, i: u32) -> vec4<f32> {
    return vec4<f32>(subgroupShuffle(own.x, i), subgroupShuffle(own.y, i), subgroupShuffle(own.z, i), subgroupShuffle(own.w, i));
}

fn word_of_block(own: u32, i: u32) -> u32 {
    return subgroupShuffle(own, i);
}

fn eight_weights(first: u32, stride: u32, stride_of_four: u32) -> Eight {
    let own = weights.vectors[first + (own_of_block % 4u) * stride + (own_of_block / 4u) * stride_of_four];
    return Eight(
        of_block(own, 0u),
        of_block(own, 1u),
        of_block(own, 2u),
        of_block(own, 3u),
        of_block(own, 4u),
        of_block(own, 5u),
        of_block(own, 6u),
        of_block(own, 7u),
    );
}
