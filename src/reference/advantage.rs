//! Twin of `shaders/advantage.wgsl`.

use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::advantage::{DiscountedReturns, Gae};
use crate::real::Real;

/// Elements of a rollout from which on threads pay: about a tenth of a millisecond of work.
const PARALLEL_FROM: usize = 1 << 16;
/// Environments a thread takes at least: two cache lines of `f32`, so that threads do not share one.
const LEAST_ENVS: usize = 32;
/// Environments a thread takes at most: what it carries from step to step then stays in its nearest cache.
const MOST_ENVS: usize = 2048;

/// δ_t = r_t + γ·next_values_t·(1 − terminated_t) − v_t;  A_t = δ_t + γλ·(1 − done_t)·A_{t+1};  return = A + v.
pub fn gae<T: Real>(
    op: &Gae,
    rewards: &[T],
    values: &[T],
    next_values: &[T],
    terminated: &[u32],
    truncated: &[u32],
    advantages: &mut [T],
    returns: &mut [T],
) {
    let (gamma, decay) = (op.gamma, op.decay());
    backwards(
        op.steps,
        op.envs,
        [advantages, returns],
        |_| 0.0,
        |step| {
            let Step { elements, outputs: [advantages, returns], carried, .. } = step;
            let (rewards, values, next_values) =
                (&rewards[elements.clone()], &values[elements.clone()], &next_values[elements.clone()]);
            let (terminated, truncated) = (&terminated[elements.clone()], &truncated[elements]);
            for n in 0..carried.len() {
                let bootstrap = if terminated[n] != 0 { 0.0 } else { gamma * next_values[n].f64() };
                let delta = rewards[n].f64() + bootstrap - values[n].f64();
                carried[n] = discounted(delta, decay, carried[n], terminated[n] | truncated[n] != 0);
                advantages[n] = T::of(carried[n]);
                returns[n] = T::of(carried[n] + values[n].f64());
            }
        },
    );
}

/// [`gae`] with terminated_t = done_t = dones_{t+1} and next_values_t = v_{t+1}; at the last step next_done and next_value.
pub fn gae_cleanrl<T: Real>(
    op: &Gae,
    rewards: &[T],
    values: &[T],
    dones: &[T],
    next_value: &[T],
    next_done: &[T],
    advantages: &mut [T],
    returns: &mut [T],
) {
    let (gamma, decay) = (op.gamma, op.decay());
    backwards(
        op.steps,
        op.envs,
        [advantages, returns],
        |_| 0.0,
        |step| {
            let Step { elements, envs, outputs: [advantages, returns], carried } = step;
            let after = elements.start + op.envs..elements.end + op.envs;
            let is_last = after.start >= op.len();
            let (next_values, dones) =
                if is_last { (&next_value[envs.clone()], &next_done[envs]) } else { (&values[after.clone()], &dones[after]) };
            let (rewards, values) = (&rewards[elements.clone()], &values[elements]);
            for n in 0..carried.len() {
                let done = dones[n] != T::zero();
                let bootstrap = if done { 0.0 } else { gamma * next_values[n].f64() };
                let delta = rewards[n].f64() + bootstrap - values[n].f64();
                carried[n] = discounted(delta, decay, carried[n], done);
                advantages[n] = T::of(carried[n]);
                returns[n] = T::of(carried[n] + values[n].f64());
            }
        },
    );
}

/// G_t = r_t + γ·(next_values_t·(truncated ∧ ¬terminated)_t + (1 − done_t)·G_{t+1}), G_T = next_value.
pub fn discounted_returns<T: Real>(
    op: &DiscountedReturns,
    rewards: &[T],
    next_values: &[T],
    next_value: &[T],
    terminated: &[u32],
    truncated: &[u32],
    returns: &mut [T],
) {
    let gamma = op.gamma;
    backwards(
        op.steps,
        op.envs,
        [returns],
        |env| next_value[env].f64(),
        |step| {
            let Step { elements, outputs: [returns], carried, .. } = step;
            let (rewards, next_values) = (&rewards[elements.clone()], &next_values[elements.clone()]);
            let (terminated, truncated) = (&terminated[elements.clone()], &truncated[elements]);
            for n in 0..carried.len() {
                let bootstrap = if truncated[n] != 0 && terminated[n] == 0 { gamma * next_values[n].f64() } else { 0.0 };
                carried[n] = discounted(rewards[n].f64() + bootstrap, gamma, carried[n], terminated[n] | truncated[n] != 0);
                returns[n] = T::of(carried[n]);
            }
        },
    );
}

/// G_t = r_t + γ·(1 − done_t)·G_{t+1}, G_T = 0.
pub fn reward_to_go<T: Real>(op: &DiscountedReturns, rewards: &[T], terminated: &[u32], truncated: &[u32], returns: &mut [T]) {
    let gamma = op.gamma;
    backwards(
        op.steps,
        op.envs,
        [returns],
        |_| 0.0,
        |step| {
            let Step { elements, outputs: [returns], carried, .. } = step;
            let (rewards, terminated, truncated) =
                (&rewards[elements.clone()], &terminated[elements.clone()], &truncated[elements]);
            for n in 0..carried.len() {
                carried[n] = discounted(rewards[n].f64(), gamma, carried[n], terminated[n] | truncated[n] != 0);
                returns[n] = T::of(carried[n]);
            }
        },
    );
}

/// now + decay·later, where `later` does not enter at all (not even as NaN·0) at an end or when `decay` is 0.
#[inline]
fn discounted(now: f64, decay: f64, later: f64, ends: bool) -> f64 {
    if ends || decay == 0.0 { now } else { now + decay * later }
}

/// One step of some environments.
struct Step<'a, T, const OUTPUTS: usize> {
    /// Where they lie in a buffer `[T, N]`.
    elements: Range<usize>,
    /// Which environments.
    envs: Range<usize>,
    /// Their part of each output.
    outputs: [&'a mut [T]; OUTPUTS],
    /// What goes from the later step to the earlier one.
    carried: &'a mut [f64],
}

/// Runs `step` from the last step to the first, on blocks of environments in parallel where the rollout is large.
fn backwards<T: Real, const OUTPUTS: usize>(
    steps: usize,
    envs: usize,
    mut outputs: [&mut [T]; OUTPUTS],
    initial: impl Fn(usize) -> f64 + Sync,
    step: impl Fn(Step<'_, T, OUTPUTS>) + Sync,
) {
    let block = match steps * envs >= PARALLEL_FROM {
        true => envs.div_ceil(rayon::current_num_threads()).next_multiple_of(LEAST_ENVS).min(MOST_ENVS),
        false => envs,
    };
    if block >= envs {
        let mut carried: Vec<f64> = (0..envs).map(initial).collect();
        for t in (0..steps).rev() {
            let elements = t * envs..(t + 1) * envs;
            let outputs = outputs.each_mut().map(|output| &mut output[elements.clone()]);
            step(Step { elements, envs: 0..envs, outputs, carried: &mut carried });
        }
        return;
    }
    let mut blocks: Vec<(Range<usize>, Vec<_>)> =
        (0..envs.div_ceil(block)).map(|b| (b * block..envs.min((b + 1) * block), Vec::with_capacity(steps))).collect();
    for _ in 0..steps {
        for (envs, rows) in &mut blocks {
            rows.push(outputs.each_mut().map(|output| take_front(output, envs.len())));
        }
    }
    blocks.into_par_iter().for_each(|(block, rows)| {
        let mut carried: Vec<f64> = block.clone().map(&initial).collect();
        for (t, outputs) in rows.into_iter().enumerate().rev() {
            let elements = t * envs + block.start..t * envs + block.end;
            step(Step { elements, envs: block.clone(), outputs, carried: &mut carried });
        }
    });
}

fn take_front<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = std::mem::take(slice).split_at_mut(len);
    *slice = rest;
    front
}
