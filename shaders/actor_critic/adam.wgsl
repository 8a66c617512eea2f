// Norm, clipping and Adam, behind optimizer/formulas.wgsl, optimizer/conclude.wgsl, by_tile.wgsl and tiles.wgsl. Header: by_tile.wgsl.

@group(0) @binding(14) var<storage, read_write> m: array<f32>;
@group(0) @binding(15) var<storage, read_write> v: array<f32>;
@group(0) @binding(19) var<storage, read_write> control: array<atomic<u32>>;
@group(0) @binding(28) var<storage, read> schedule: array<f32>;
@group(0) @binding(29) var<uniform> all_squares: Squares;

// Workgroups of sum_tiles.
const MOST_GROUPS = 160u;

struct Squares {
    vectors: array<vec4<u32>, MOST_GROUPS>,
}

fn written_by(group: u32) -> Written {
    let read = all_squares.vectors[group];
    let is_one = group < params.square_groups;
    return Written(select(0.0, bitcast<f32>(read.x), is_one), select(NOWHERE, read.y, is_one));
}

// Every invocation adds up the same in the same order: none has to wait for another. Eight at a time, of which MOST_GROUPS is a multiple: nor does a load
// for the one before.
fn all_written() -> Written {
    var all = Written(0.0, NOWHERE);
    for (var group = 0u; group < params.square_groups; group += 8u) {
        let first = together(together(written_by(group), written_by(group + 1u)), together(written_by(group + 2u), written_by(group + 3u)));
        let second =
            together(together(written_by(group + 4u), written_by(group + 5u)), together(written_by(group + 6u), written_by(group + 7u)));
        all = together(all, together(first, second));
    }
    return all;
}

fn store_element(index: u32, element: AdamElement) {
    parameters[index] = element.param;
    m[index] = element.m;
    v[index] = element.v;
}

// What an invocation reads in `control` may be what another has just written there: where that happens, both stop anyway.
@compute @workgroup_size(VECTOR_LANES)
fn update_parameters(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * VECTOR_LANES + local;
    // All that the step needs is read before the norm is known, so that no load waits for another.
    let at = packed_at(i);
    let e = min(vec4<u32>(at.first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.len - 1u));
    let old_param = packed[min(at.place, params.packed_vectors - 1u)];
    let gradient = vec4<f32>(grads[e.x], grads[e.y], grads[e.z], grads[e.w]);
    let old_m = vec4<f32>(m[e.x], m[e.y], m[e.z], m[e.w]);
    let old_v = vec4<f32>(v[e.x], v[e.y], v[e.z], v[e.w]);
    let is_beyond = stats[params.stats_row * STATS_COLUMNS + STAT_APPROX_KL] > params.max_kl;
    let had_stopped = atomicLoad(&control[STOP]) != 0u;
    let row = params.schedule_row * SCHEDULE_COLUMNS;
    let adam = AdamConstants(
        params.beta1,
        params.one_minus_beta1,
        params.beta2,
        params.one_minus_beta2,
        params.adam_epsilon,
        params.l2,
        params.decay,
        schedule[row + LEARNING_RATE],
        schedule[row + STEP_SIZE],
        schedule[row + INV_SQRT_BIAS_CORRECTION2],
    );
    let all = all_written();
    let clip = clip_of(all.squares, params.limited != 0u, params.max_grad_norm, params.norm_epsilon);
    let stopped = had_stopped || is_beyond || all.first_bad != NOWHERE;
    if i == 0u {
        conclude(clip, all.first_bad, is_beyond, stopped, params.stats_row, params.tensor);
    }
    if stopped || i >= params.packed_vectors {
        return;
    }
    let clipped = clip.coef * gradient;
    let first = adam_of(AdamElement(old_param.x, old_m.x, old_v.x), clipped.x, adam);
    let second = adam_of(AdamElement(old_param.y, old_m.y, old_v.y), clipped.y, adam);
    let third = adam_of(AdamElement(old_param.z, old_m.z, old_v.z), clipped.z, adam);
    let fourth = adam_of(AdamElement(old_param.w, old_m.w, old_v.w), clipped.w, adam);
    if at.count > 0u {
        store_element(at.first, first);
    }
    if at.count > 1u {
        store_element(at.first + 1u, second);
    }
    if at.count > 2u {
        store_element(at.first + 2u, third);
    }
    if at.count > 3u {
        store_element(at.first + 3u, fourth);
    }
    packed[at.place] = of_parameters(vec4<f32>(first.param, second.param, third.param, fourth.param), at.count);
}
