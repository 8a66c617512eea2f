// What a step leaves in statistics and control, behind formulas.wgsl, for shaders that have `stats`, an atomic `control` and NOWHERE.

const BAD_TENSOR = 2u;
const BAD_ELEMENT = 3u;
const TARGET_KL = 1u;
const NON_FINITE = 2u;

// By one invocation. `first_bad`: the first element of the gradient that is not finite, or NOWHERE; `is_beyond`: whether KL is beyond its limit; `stopped`:
// one of these, or a stop of an earlier step. The gradient of a step that KL leaves out, or an earlier stop, may be anything.
fn conclude(clip: Clip, first_bad: u32, is_beyond: bool, stopped: bool, row: u32, tensor: u32) {
    stats[row * STATS_COLUMNS + GRAD_NORM] = clip.norm;
    stats[row * STATS_COLUMNS + CLIP_COEF] = clip.coef;
    if !stopped {
        atomicAdd(&control[STEPS_DONE], 1u);
        return;
    }
    if atomicLoad(&control[STOP]) != 0u {
        return;
    }
    if is_beyond {
        atomicStore(&control[STOP], TARGET_KL);
        return;
    }
    atomicStore(&control[STOP], NON_FINITE);
    atomicStore(&control[BAD_TENSOR], tensor);
    atomicStore(&control[BAD_ELEMENT], first_bad);
}
