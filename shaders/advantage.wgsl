// Advantages and returns: reverse scans over time of affine maps x_t = a_t + b_t * x_{t+1}.
//
//   GAE            a_t = r_t + gamma * next_values_t * (1 - terminated_t) - v_t    b_t = gamma * lambda * (1 - done_t)    x_T = 0
//                  done = terminated or truncated; advantage = x, return = x + v
//   CLEANRL        as GAE with terminated_t = done_t = dones_{t+1} and next_values_t = v_{t+1}; at t = T - 1 next_done and next_value
//   RETURNS        a_t = r_t + gamma * next_values_t * (truncated and not terminated)_t    b_t = gamma * (1 - done_t)    x_T = next_value
//   REWARD_TO_GO   a_t = r_t    b_t = gamma * (1 - done_t)    x_T = 0
//
// Two ways. *row*: one invocation an environment walks back over steps row_start .. row_end. *scan*: a workgroup takes a block of steps of a few
// environments; each lane composes STEPS_PER_LANE maps, a suffix scan composes the lanes, and each lane walks its steps. Where there is
// more than one block, a workgroup takes all of its environments in turn, the last first (blocks_in_turn); or, where environments are too few for that,
// block_maps finds each block's map first, and block_carries (blocks of blocks) the x that enters each block.
//
// Shapes        [T, N], time-major; next_value and next_done [N]; maps_of_blocks [blocks, N]
// Grid          row: an invocation an environment. block_maps, blocks: a workgroup (block, tile of environments), tiles fastest.
//               blocks_in_turn, block_carries: a workgroup a tile. All linear, folded into two dimensions past 65 535 workgroups
// Workgroup     row: ROW_WORKGROUP; the others SCAN_WORKGROUP = lanes * environments of a tile, neighbours in environments (coalesced)
// Bindings      0 params, 1 rewards, 9 maps_of_blocks (block_maps, block_carries, blocks), and by FORM (the rest is never touched):
//                                2            3            4            5           7            8
//                 GAE            values       next_values  terminated   truncated   advantages   returns
//                 CLEANRL        values       next_value   dones        next_done   advantages   returns
//                 RETURNS        next_value   next_values  terminated   truncated   returns
//                 REWARD_TO_GO                             terminated   truncated   returns
// Preconditions T, N >= 1; T * N < 2^32 less what rounding up to workgroups adds; 0 <= gamma, lambda <= 1; flags 0 or 1 (0.0 or 1.0)
//               Indices proven: every t < steps and env < envs is compared or clamped first, against buffers of T * N or N; blocks and lanes come from ScanPlan
// Determinism   a fixed tree; row and scan round differently
// Range         what lies behind an end never enters, NaN and Inf included: ends select, they do not multiply by 0. The same holds for
//               gamma * lambda = 0. A NaN spreads back to the end before it (in a scan: or until its weight underflows)
// Tolerance     relative to the same recursion on magnitudes, see kernels/advantage.rs

struct AdvantageParams {
    steps: u32,
    envs: u32,
    gamma: f32,
    decay: f32,
    blocks: u32,
    lanes: u32,
    env_tiles: u32,
    rounds: u32,
    row_start: u32,
    row_end: u32,
}

const GAE: u32 = 0u;
const CLEANRL: u32 = 1u;
const RETURNS: u32 = 2u;
const REWARD_TO_GO: u32 = 3u;
override FORM: u32 = GAE;

// Small, so that a few thousand environments already occupy every core of a GPU.
const ROW_WORKGROUP: u32 = 64u;
const SCAN_WORKGROUP: u32 = 256u;
// Eight maps are sixteen registers, and make the scan's barriers cheap beside its loads.
const STEPS_PER_LANE: u32 = 8u;

@group(0) @binding(0) var<uniform> params: AdvantageParams;
@group(0) @binding(1) var<storage, read> rewards: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> next_values: array<f32>;
@group(0) @binding(4) var<storage, read> terminated: array<u32>;
@group(0) @binding(5) var<storage, read> truncated: array<u32>;
@group(0) @binding(7) var<storage, read_write> scanned: array<f32>;
@group(0) @binding(8) var<storage, read_write> returns: array<f32>;
@group(0) @binding(9) var<storage, read_write> maps_of_blocks: array<vec2<f32>>;

// Maps x -> a + b * x are vec2(a, b). b = 0 cuts off whatever comes later.
const IDENTITY: vec2<f32> = vec2<f32>(0.0, 1.0);

fn apply(map: vec2<f32>, x: f32) -> f32 {
    return select(map.x, map.x + map.y * x, map.y != 0.0);
}

// x -> earlier(later(x)): time runs backwards here.
fn compose(earlier: vec2<f32>, later: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(apply(earlier, later.x), earlier.y * later.y);
}

// Flags are 0 or 1, as integers or as floats.
fn is_set(flag: u32) -> bool {
    return (flag & 0x7fffffffu) != 0u;
}

// The map from x_{t+1} to x_t, and the value that a return is above its advantage.
struct Step {
    map: vec2<f32>,
    value: f32,
}

// The last step's map takes x_T in and looks no further. All is read before anything is chosen, so that the loads of several steps overlap.
fn load_step(t: u32, env: u32) -> Step {
    let i = t * params.envs + env;
    let is_last = t + 1u == params.steps;
    var bootstrap = 0.0;
    var bootstraps: bool;
    var continues: bool;
    if FORM == CLEANRL {
        let next = select(i + params.envs, i, is_last);
        bootstrap = select(values[next], next_values[env], is_last);
        continues = !is_set(select(terminated[next], truncated[env], is_last));
        bootstraps = continues;
    } else {
        let terminates = is_set(terminated[i]);
        let truncates = is_set(truncated[i]);
        continues = !terminates && !truncates;
        if FORM == GAE {
            bootstrap = next_values[i];
            bootstraps = !terminates;
        } else if FORM == RETURNS {
            bootstraps = !terminates && (truncates || is_last);
            bootstrap = select(values[env], next_values[i], truncates);
        }
    }
    var a = rewards[i] + select(0.0, params.gamma * bootstrap, bootstraps);
    var value = 0.0;
    if FORM == GAE || FORM == CLEANRL {
        value = values[i];
        a -= value;
    }
    return Step(vec2<f32>(a, select(0.0, params.decay, continues && !is_last)), value);
}

// One step back: from x_{t+1} to x_t, which is stored.
fn step_back(t: u32, env: u32, step: Step, later: f32) -> f32 {
    let i = t * params.envs + env;
    let x = apply(step.map, later);
    scanned[i] = x;
    if FORM == GAE || FORM == CLEANRL {
        returns[i] = x + step.value;
    }
    return x;
}

fn linear_index(workgroup: vec3<u32>, groups: vec3<u32>) -> u32 {
    return workgroup.y * groups.x + workgroup.x;
}

@compute @workgroup_size(ROW_WORKGROUP)
fn row(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let env = linear_index(workgroup, groups) * ROW_WORKGROUP + local;
    if env >= params.envs {
        return;
    }
    var t = params.row_end;
    var x = 0.0;
    if t < params.steps {
        x = scanned[t * params.envs + env];
    }
    // Four steps are loaded before the first is used, so that their loads overlap.
    for (; t >= params.row_start + 4u; t -= 4u) {
        let step3 = load_step(t - 1u, env);
        let step2 = load_step(t - 2u, env);
        let step1 = load_step(t - 3u, env);
        let step0 = load_step(t - 4u, env);
        x = step_back(t - 1u, env, step3, x);
        x = step_back(t - 2u, env, step2, x);
        x = step_back(t - 3u, env, step1, x);
        x = step_back(t - 4u, env, step0, x);
    }
    for (; t > params.row_start; t -= 1u) {
        x = step_back(t - 1u, env, load_step(t - 1u, env), x);
    }
}

// What one lane works on: `len` <= STEPS_PER_LANE consecutive steps (in block_carries: blocks) of one environment.
struct Span {
    env: u32,
    block: u32,
    start: u32,
    len: u32,
}

fn tile_envs() -> u32 {
    return SCAN_WORKGROUP / params.lanes;
}

// The lane's part of a tile that starts at element `first` of `count`. Compares distances, which cannot wrap.
fn span_of(tile: u32, first: u32, count: u32, local: u32) -> Span {
    var span = Span(tile * tile_envs() + local % tile_envs(), 0u, 0u, 0u);
    let offset = local / tile_envs() * STEPS_PER_LANE;
    if tile < params.env_tiles && span.env < params.envs && offset < count - first {
        span.start = first + offset;
        span.len = min(count - span.start, STEPS_PER_LANE);
    }
    return span;
}

fn span_of_block(tile: u32, block: u32, local: u32) -> Span {
    if block >= params.blocks {
        return Span();
    }
    var span = span_of(tile, block * params.lanes * STEPS_PER_LANE, params.steps, local);
    span.block = block;
    return span;
}

fn span_of_steps(index: u32, local: u32) -> Span {
    return span_of_block(index % params.env_tiles, index / params.env_tiles, local);
}

// Past the end of a span, another step. That changes nothing: it counts as later than the rollout's last step, which takes nothing from behind.
fn step_of(span: Span, k: u32) -> Step {
    return load_step(span.start + min(k, max(span.len, 1u) - 1u), min(span.env, params.envs - 1u));
}

fn block_map_or_identity(span: Span, k: u32) -> vec2<f32> {
    if k >= span.len {
        return IDENTITY;
    }
    return maps_of_blocks[(span.start + k) * params.envs + span.env];
}

alias Maps = array<vec2<f32>, STEPS_PER_LANE>;

alias Steps = array<Step, STEPS_PER_LANE>;

// Unrolled, here and below, so that the maps stay in registers.
fn steps_of(span: Span) -> Steps {
    return Steps(
        step_of(span, 0u), step_of(span, 1u), step_of(span, 2u), step_of(span, 3u),
        step_of(span, 4u), step_of(span, 5u), step_of(span, 6u), step_of(span, 7u),
    );
}

fn maps_of(steps: Steps) -> Maps {
    return Maps(
        steps[0].map, steps[1].map, steps[2].map, steps[3].map,
        steps[4].map, steps[5].map, steps[6].map, steps[7].map,
    );
}

fn compose_all(maps: Maps) -> vec2<f32> {
    var map = compose(maps[6], maps[7]);
    map = compose(maps[5], map);
    map = compose(maps[4], map);
    map = compose(maps[3], map);
    map = compose(maps[2], map);
    map = compose(maps[1], map);
    return compose(maps[0], map);
}

// Two halves of SCAN_WORKGROUP maps: each round reads one and writes the other, with one barrier between.
var<workgroup> lane_maps: array<vec2<f32>, 2 * SCAN_WORKGROUP>;

// Composes each lane's map with those of all later lanes of its environment. Returns the half of lane_maps that holds the results.
fn suffix_scan(map: vec2<f32>, local: u32) -> u32 {
    var half = 0u;
    lane_maps[local] = map;
    for (var reach = tile_envs(); reach < SCAN_WORKGROUP; reach *= 2u) {
        workgroupBarrier();
        var composed = lane_maps[half + local];
        if local + reach < SCAN_WORKGROUP {
            composed = compose(composed, lane_maps[half + local + reach]);
        }
        half = SCAN_WORKGROUP - half;
        lane_maps[half + local] = composed;
    }
    workgroupBarrier();
    return half;
}

// The x that enters a lane from the lanes behind it, where `x` enters the last lane.
fn enters_lane(half: u32, local: u32, x: f32) -> f32 {
    let next_lane = local + tile_envs();
    if next_lane >= SCAN_WORKGROUP {
        return x;
    }
    return apply(lane_maps[half + next_lane], x);
}

@compute @workgroup_size(SCAN_WORKGROUP)
fn block_maps(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let span = span_of_steps(linear_index(workgroup, groups), local);
    let half = suffix_scan(compose_all(maps_of(steps_of(span))), local);
    if span.len > 0u && local < tile_envs() {
        maps_of_blocks[span.block * params.envs + span.env] = lane_maps[half + local];
    }
}

// Replaces each block's map by vec2(the x that enters the block, 0); lanes * STEPS_PER_LANE blocks a round, the last round first.
@compute @workgroup_size(SCAN_WORKGROUP)
fn block_carries(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = linear_index(workgroup, groups);
    var enters_round = 0.0;
    for (var round = params.rounds; round > 0u; round -= 1u) {
        let span = span_of(tile, (round - 1u) * params.lanes * STEPS_PER_LANE, params.blocks, local);
        let maps = Maps(
            block_map_or_identity(span, 0u), block_map_or_identity(span, 1u), block_map_or_identity(span, 2u), block_map_or_identity(span, 3u),
            block_map_or_identity(span, 4u), block_map_or_identity(span, 5u), block_map_or_identity(span, 6u), block_map_or_identity(span, 7u),
        );
        let half = suffix_scan(compose_all(maps), local);
        var x = enters_lane(half, local, enters_round);
        x = store_carry(span, 7u, maps[7], x);
        x = store_carry(span, 6u, maps[6], x);
        x = store_carry(span, 5u, maps[5], x);
        x = store_carry(span, 4u, maps[4], x);
        x = store_carry(span, 3u, maps[3], x);
        x = store_carry(span, 2u, maps[2], x);
        x = store_carry(span, 1u, maps[1], x);
        x = store_carry(span, 0u, maps[0], x);
        enters_round = apply(lane_maps[half + local % tile_envs()], enters_round);
        // The next round overwrites lane_maps.
        workgroupBarrier();
    }
}

fn store_carry(span: Span, k: u32, map: vec2<f32>, x: f32) -> f32 {
    if k >= span.len {
        return x;
    }
    maps_of_blocks[(span.start + k) * params.envs + span.env] = vec2<f32>(x, 0.0);
    return apply(map, x);
}

fn walk_step(span: Span, k: u32, step: Step, x: f32) -> f32 {
    if k >= span.len {
        return x;
    }
    return step_back(span.start + k, span.env, step, x);
}

fn walk(span: Span, steps: Steps, enters: f32) {
    var x = enters;
    x = walk_step(span, 7u, steps[7], x);
    x = walk_step(span, 6u, steps[6], x);
    x = walk_step(span, 5u, steps[5], x);
    x = walk_step(span, 4u, steps[4], x);
    x = walk_step(span, 3u, steps[3], x);
    x = walk_step(span, 2u, steps[2], x);
    x = walk_step(span, 1u, steps[1], x);
    x = walk_step(span, 0u, steps[0], x);
}

@compute @workgroup_size(SCAN_WORKGROUP)
fn blocks(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let span = span_of_steps(linear_index(workgroup, groups), local);
    let steps = steps_of(span);
    let half = suffix_scan(compose_all(maps_of(steps)), local);
    var enters_block = 0.0;
    if span.len > 0u && span.block + 1u < params.blocks {
        enters_block = maps_of_blocks[span.block * params.envs + span.env].x;
    }
    walk(span, steps, enters_lane(half, local, enters_block));
}

@compute @workgroup_size(SCAN_WORKGROUP)
fn blocks_in_turn(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = linear_index(workgroup, groups);
    var enters_block = 0.0;
    for (var block = params.blocks; block > 0u; block -= 1u) {
        let span = span_of_block(tile, block - 1u, local);
        let steps = steps_of(span);
        let half = suffix_scan(compose_all(maps_of(steps)), local);
        walk(span, steps, enters_lane(half, local, enters_block));
        enters_block = apply(lane_maps[half + local % tile_envs()], enters_block);
        // The next block overwrites lane_maps.
        workgroupBarrier();
    }
}
