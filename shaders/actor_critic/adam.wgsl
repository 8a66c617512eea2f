// Norm, clipping and Adam, behind shared.wgsl, optimizer/formulas.wgsl, optimizer/conclude.wgsl and what says where the state is: state_in_place.wgsl or
// state_in_windows.wgsl. Header: shared.wgsl.

@group(0) @binding(19) var<storage, read_write> control: array<atomic<u32>>;
@group(0) @binding(28) var<storage, read> schedule: array<f32>;
@group(0) @binding(29) var<uniform> squares_window: Squares;

// Workgroups of parameters_gradient or sum_tiles.
const MOST_GROUPS = 160u;

struct Squares {
    vectors: array<vec4<u32>, MOST_GROUPS>,
}

// What an invocation reads in `control` may be what another has just written there: where that happens, both stop anyway.
@compute @workgroup_size(VECTOR_LANES)
fn update_parameters(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let invocation = workgroup.x * VECTOR_LANES + local;
    prepare(invocation);
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
    if invocation == 0u {
        conclude(clip, all.first_bad, is_beyond, stopped, params.stats_row, params.tensor);
    }
    for (var n = 0u; n < VECTORS_EACH; n++) {
        step_vector(invocation + n * groups.x * VECTOR_LANES, clip.coef, adam, stopped);
    }
}
